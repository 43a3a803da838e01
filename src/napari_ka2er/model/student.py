"""The student: foundation, amalgamation, prompt encoder and mask decoder in one network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from napari_ka2er.model.amalgamation import CoarseAmalgamation, CoarseResult
from napari_ka2er.model.config import COARSE_STRIDES, FINE_STRIDES, StudentConfig
from napari_ka2er.model.foundation import Foundation
from napari_ka2er.model.likeness import values_at
from napari_ka2er.model.mask_decoder import MaskDecoder
from napari_ka2er.model.merging import FineMerging
from napari_ka2er.model.onednn import take_onednn
from napari_ka2er.model.prompt_encoder import PromptEncoder
from napari_ka2er.model.shortcut import Shortcut

if TYPE_CHECKING:
    from torch import Tensor

    from napari_ka2er.model.alignment import WindowFeatures
    from napari_ka2er.model.prompt_maps import PromptTensors
    from napari_ka2er.model.standardise import Standardise


@dataclass(slots=True)
class Encoded:
    """What the student makes of a window before any prompt; independent of task and prompt.

    Parameters
    ----------
    gold : Tensor, shape (B, d, Z/8, Y/8, X/8)
        Gold features G.
    dense : Tensor, shape (B, F, Z/2, Y/2, X/2)
        Dense embedding.
    logits : Tensor, shape (B, labels, Z, Y, X)
        The automatic result of all tasks' labels.
    weights : Tensor, shape (B, K+1, Z/8, Y/8, X/8)
        How much each expert, and last the null expert, was trusted: mean over the levels.
    coarse : dict of int to CoarseResult
        What the coarse levels returned, for the losses.
    """

    gold: Tensor
    dense: Tensor
    logits: Tensor
    weights: Tensor
    coarse: dict[int, CoarseResult]


@dataclass(slots=True)
class Trunk:
    """The decoder's stages by stride, the weights, and what the coarse levels returned.

    `shortcut` is what the experts' own logits add, (B, labels, Z, Y, X), or None.
    """

    decoded: dict[int, Tensor]
    weights: Tensor
    coarse: dict[int, CoarseResult]
    shortcut: Tensor | None = None


class Student(nn.Module):
    """One network for all tasks.

    Parameters
    ----------
    config : StudentConfig
        Sizes, tasks and experts.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        size, width = config.feature_size, config.width
        self.foundation = Foundation(config)
        self.coarse = nn.ModuleDict()
        self.fine = nn.ModuleDict()
        self.shortcut: Shortcut | None = None
        if config.amalgamation != "none":
            self._add_amalgamation(config)
        self.to_gold = nn.Sequential(nn.Conv3d(4 * size, width, 1), nn.GroupNorm(4, width))
        self.to_dense = nn.Conv3d(size, config.dense_width, 1)
        self.class_tokens = nn.Embedding(config.n_outputs + 1, width)  # the last is "any structure"
        self.prompt_encoder = PromptEncoder(width, config.dense_width)
        self.mask_decoder = MaskDecoder(width, config.dense_width, config.heads)
        take_onednn(self)

    def _add_amalgamation(self, config: StudentConfig) -> None:
        uniform = config.amalgamation == "uniform"
        for stride in COARSE_STRIDES:
            self.coarse[str(stride)] = CoarseAmalgamation(
                config.feature_size * stride // 2,  # Swin doubles its channels at every stage
                [e.channels[stride] for e in config.experts],
                config.width,
                config.heads,
                uniform,
            )
        if config.amalgamation == "bottleneck":
            return
        for stride in FINE_STRIDES:
            self.fine[str(stride)] = FineMerging(
                config.feature_size * max(stride // 2, 1),
                [e.channels[stride] for e in config.experts],
                config.merge_width,
                uniform,
            )
        if config.shortcut:
            self.shortcut = Shortcut(config)

    def encode(
        self, image: Tensor, features: WindowFeatures | None = None, noise: float = 0.0
    ) -> Encoded:
        """Return gold features, dense embedding and the automatic result.

        Parameters
        ----------
        image : Tensor, shape (B, 1, Z, Y, X)
            Normalised windows, sizes multiples of 32.
        features : WindowFeatures or None
            The experts' features; None is the distilled mode, in which all are hallucinated.
        noise : float
            Deviation of the noise on experts' standardised tokens (training).
        """
        return self.finish(self.trunk(image, features, noise))

    def trunk(
        self, image: Tensor, features: WindowFeatures | None = None, noise: float = 0.0
    ) -> Trunk:
        """Return what `encode` computes before its last projections; see there."""
        stages = self.foundation.stages(image)
        coarse = self.amalgamate_coarse(stages, features, noise)
        pooled = [result.weights for result in coarse.values()]
        prior = coarse[COARSE_STRIDES[-1]].weights if coarse else None
        added: list[Tensor] = []

        def amend(stride: int, stage: Tensor) -> Tensor:
            if str(stride) not in self.fine:
                return stage
            fine: Any = self.fine[str(stride)]
            merged: Tensor
            if features is None:
                merged = fine.alone(stage)
                return merged
            merged, weights = fine(
                stage, features.levels[stride], features.masks[stride], features.state, prior
            )
            pooled.append(weights)
            if stride == 1 and self.shortcut is not None:
                given = features.levels[1], features.masks[1], features.state, weights
                added.append(self.shortcut(*given))
            return merged

        decoded = self.foundation.decode(image, stages, amend)
        return Trunk(decoded, _mean_weights(pooled, image), coarse, *added)

    def finish(self, trunk: Trunk) -> Encoded:
        """Return gold features, dense embedding and the automatic result of a trunk."""
        logits = self.foundation.head(trunk.decoded[1])
        return Encoded(
            gold=self.to_gold(trunk.decoded[8]),
            dense=self.to_dense(trunk.decoded[2]),
            logits=logits if trunk.shortcut is None else logits + trunk.shortcut,
            weights=trunk.weights,
            coarse=trunk.coarse,
        )

    def amalgamate_coarse(
        self, stages: list[Tensor], features: WindowFeatures | None, noise: float = 0.0
    ) -> dict[int, CoarseResult]:
        """Replace the coarse ones of the Swin `stages` by gold; return what the levels said."""
        results: dict[int, CoarseResult] = {}
        for stride in COARSE_STRIDES:
            if str(stride) not in self.coarse:
                continue
            at = stride.bit_length() - 2  # stride 8 is stage 2, stride 16 is stage 3
            given = (
                (features.levels[stride], features.masks[stride], features.state)
                if features is not None
                else (None, None, None)
            )
            results[stride] = self.coarse[str(stride)](stages[at], *given, noise)
            stages[at] = results[stride].gold
        return results

    @torch.no_grad()
    def route(self, image: Tensor) -> Tensor:
        """Return the weights (B, K+1, Z/8, Y/8, X/8) expected before any expert has run.

        They come from hallucinated tokens alone; sparse mode runs the experts that they favour.
        """
        stages = self.foundation.stages(image)
        results = self.amalgamate_coarse(stages, None, 0.0)
        return _mean_weights([r.weights for r in results.values()], image)

    def decode(
        self,
        *,
        gold: Tensor,
        dense: Tensor,
        image: Tensor,
        previous: Tensor,
        prompts: PromptTensors,
        output: Tensor,
        previous_known: Tensor,
        fading: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return a mask for prompts in a region of interest.

        Parameters
        ----------
        gold : Tensor, shape (B, d, Z/8, Y/8, X/8)
            Gold features there.
        dense : Tensor, shape (B, F, Z/2, Y/2, X/2)
            Dense embedding there.
        image : Tensor, shape (B, 1, Z, Y, X)
            The normalised image there.
        previous : Tensor, shape (B, 1, Z, Y, X)
            Logits of the mask so far (the automatic result at first).
        prompts : PromptTensors
            Prompts in voxels of the region.
        output : Tensor of int, shape (B,)
            The label's index among the outputs; `config.n_outputs` means any structure.
        previous_known : Tensor of bool, shape (B,)
            False where there is no mask so far and `previous` is to be ignored.
        fading : Tensor of bool, shape (B,), optional
            Where the change of the mask fades with the distance to the newest prompt: for labels
            that have an automatic result, which is good in most places.  On training cases five
            clicks closed more of what was missing so (docs/benchmarks/sample.md, Clicks); training
            itself goes without.

        Returns
        -------
        logits : Tensor, shape (B, 1, Z, Y, X)
            The new mask.
        predicted_dice : Tensor, shape (B,)
            How good the student thinks it is, in [0, 1].
        """
        result: tuple[Tensor, Tensor] = self.mask_decoder(
            gold=gold,
            dense_embedding=dense,
            image=image,
            previous=previous,
            previous_known=previous_known,
            sparse=self.prompt_encoder(
                prompts, tuple(image.shape[2:]), values_at(dense, prompts.points, 2)
            ),
            class_token=self.class_tokens(output),
            prompts=prompts,
            fading=fading,
        )
        return result

    def forward(
        self, image: Tensor, features: WindowFeatures | None = None, noise: float = 0.0
    ) -> Encoded:
        """Return `encode`'s result; the entry point for distributed training."""
        return self.encode(image, features, noise)

    def standardisers(self) -> dict[tuple[int, int], Standardise]:
        """Return the frozen statistics by (stride, expert)."""
        levels = {**self.coarse, **self.fine}
        return {
            (int(stride), k): scale
            for stride, level in levels.items()
            for k, scale in enumerate(level.standardise)  # type: ignore[arg-type]
        }


def _mean_weights(weights: list[Tensor], image: Tensor) -> Tensor:
    z, y, x = (n // 8 for n in image.shape[2:])
    target = (z, y, x)
    if not weights:
        return image.new_ones(image.shape[0], 1, *target)
    return torch.stack([_resized(w, target) for w in weights]).mean(dim=0)


def _resized(weights: Tensor, target: tuple[int, int, int]) -> Tensor:
    if weights.shape[2:] == target:  # ONNX has no adaptive pooling
        return weights
    if weights.shape[2] >= target[0]:
        return F.adaptive_avg_pool3d(weights, target)
    return F.interpolate(weights, size=target, mode="trilinear", align_corners=False)
