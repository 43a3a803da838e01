"""The experts' own answers, as far as each is trusted, added to the student's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_ka2er.model.alignment import REAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_ka2er.model.config import StudentConfig

_CERTAIN = 8.0  # logits beyond say nothing more


class Shortcut(nn.Module):
    """Adds each task's expert's logits to the student's, times the trust in its features.

    The experts' features at stride 1 are what their own last layers make logits of.  With a copy of
    these layers the student need not learn from scratch what the experts know: it learns where to
    trust them, and what to add.  Closed (gain 0) at first, so that an untrained student is exactly
    SwinUNETR.

    Parameters
    ----------
    config : StudentConfig
        Tasks and experts.  An expert of no task of the student's answers nothing.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        values = {entry.task.name: entry.task.values for entry in config.tasks}
        self.outputs = [
            config.outputs(e.name) if e.name in values else range(0) for e in config.experts
        ]
        # nnU-Net's channels are label values; a student may name its labels in another order.
        self.channels = [[v - 1 for v in values.get(e.name, ())] for e in config.experts]
        self.n_outputs = config.n_outputs
        self.heads = nn.ModuleList(
            nn.Conv3d(e.channels[1], 1 + len(outputs), 1)
            for e, outputs in zip(config.experts, self.outputs, strict=True)
        )
        for head in self.heads:
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.gain = nn.Parameter(torch.zeros(config.n_outputs))

    @torch.no_grad()
    def open(self, k: int, head: nn.Conv3d, gain: float | None = 1.0) -> None:
        """Take over an expert's last layer, and believe it.

        Parameters
        ----------
        k : int
            Index of the expert.
        head : Conv3d
            From its features to the logits of background and of label values 1, 2 …  One of another
            size (regions that overlap, for instance) is left out.
        gain : float or None
            How much it counts; None: as much as before.
        """
        own = self.heads[k]
        is_whole = sorted(self.channels[k]) == list(range(len(self.outputs[k])))
        if head.weight.shape != own.weight.shape or not len(self.outputs[k]) or not is_whole:
            return
        own.load_state_dict({"bias": torch.zeros(len(own.weight)), **head.state_dict()})  # type: ignore[arg-type]
        if gain is not None:
            self.gain[list(self.outputs[k])] = gain

    def forward(
        self, features: Sequence[Tensor], inside: Tensor, state: Tensor, weights: Tensor
    ) -> Tensor:
        """Return what is to be added to the student's logits, shape (B, outputs, Z, Y, X).

        Parameters
        ----------
        features : sequence of Tensor
            Per expert (B, C_k, Z, Y, X), raw, at stride 1.
        inside : Tensor, shape (B, K, Z, Y, X)
            Inside the experts' fields.
        state : Tensor, shape (B, K)
            Only `REAL` experts answer.
        weights : Tensor, shape (B, K+1, Z, Y, X)
            The trust in each, the null expert last.
        """
        total = weights.new_zeros(weights.shape[0], self.n_outputs, *weights.shape[2:])
        for k, outputs in enumerate(self.outputs):
            is_real = state[:, k] == REAL
            if not len(outputs) or not bool(is_real.any()):
                continue
            trust = weights[:, k : k + 1] * (inside[:, k : k + 1] & is_real.view(-1, 1, 1, 1, 1))
            logits = _label_logits(self.heads[k](features[k]))[:, self.channels[k]]
            total[:, list(outputs)] += trust * logits
        return total * self.gain.view(1, -1, 1, 1, 1)


def _label_logits(logits: Tensor) -> Tensor:
    """Return each label's log-odds against all else, from a softmax's logits, background first."""
    probable = logits.log_softmax(dim=1)[:, 1:]
    improbable = torch.log(-torch.expm1(probable.clamp_max(-1e-6)))
    return (probable - improbable).clamp(-_CERTAIN, _CERTAIN)
