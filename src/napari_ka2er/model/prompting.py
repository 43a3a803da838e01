"""From prompts to a mask: a region of interest is cut from the cached features and decoded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.prompts import Point, positions_of
from napari_ka2er.core.touched import restrict_change, touched_by, voxels_of
from napari_ka2er.model.answers import PromptResult as PromptResult
from napari_ka2er.model.device import autocast
from napari_ka2er.model.mask_logits import logits_of
from napari_ka2er.model.prompt_maps import prompt_tensors
from napari_ka2er.model.roi import (
    box_of,
    box_of_voxels,
    enlarged,
    image_box,
    is_cut,
    roi_around,
    union,
)
from napari_ka2er.model.sampling import sample, share_of
from napari_ka2er.model.spreading import spread
from napari_ka2er.model.tile_store import STRIDES
from napari_ka2er.model.tiles import region_geometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.prompts import Prompt
    from napari_ka2er.core.volume import Geometry
    from napari_ka2er.model.filling import Cancelled, GridFeatures, Progress
    from napari_ka2er.model.tiles import Region

    Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is asked of the student.

    Parameters
    ----------
    prompts : sequence of Prompt
        Oldest first, at least one; the newest decides where to look.
    output : int
        Which of the student's outputs is meant; their number stands for any structure.
    previous : ndarray of bool, shape (Z, Y, X), or None
        The mask so far, on the image's voxels.
    is_free : bool
        Whether the mask may change where no prompt touches the change.
    """

    prompts: Sequence[Prompt]
    output: int
    previous: Mask | None = None
    is_free: bool = False


class Prompter:
    """Answers prompts in one volume on one grid.

    Parameters
    ----------
    features : GridFeatures
        The volume as far as it is encoded.
    geometry : Geometry
        The image's lattice.
    """

    def __init__(self, features: GridFeatures, geometry: Geometry) -> None:
        self._features = features
        self._geometry = geometry

    def answer(
        self,
        question: Question,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> PromptResult:
        """Return the change that prompts make.

        Raises
        ------
        UserError
            If there are no prompts, or one lies outside the volume.
        CancelledError
            If `cancelled` says so while tiles are encoded.
        """
        self._check(question.prompts)
        grid = self._features.geometry
        low, high = _ends(question.prompts[-1], grid)
        roi = roi_around(low, high, grid.shape)
        n_windows, seconds = 0, 0.0
        while True:
            centre = (low + high) / 2
            n_windows += self._features.fill(
                roi, centre=centre, progress=progress, cancelled=cancelled
            )
            start = time.perf_counter()
            logits, dice, changed = self._decode(question, roi)
            larger = enlarged(roi, grid.shape)
            seconds += time.perf_counter() - start
            if larger == roi or not is_cut(changed, roi, grid.shape):
                break
            roi = larger
        start = time.perf_counter()
        box, mask = self._on_image(question, roi, logits, changed)
        seconds += time.perf_counter() - start
        return PromptResult(box, mask, dice, seconds, n_windows, roi)

    def _check(self, prompts: Sequence[Prompt]) -> None:
        if not prompts:
            raise UserError("at least one prompt", "none")
        for prompt in prompts:
            if isinstance(prompt, Point):
                is_inside = self._geometry.contains(prompt.position_mm)
            else:
                is_inside = len(voxels_of(prompt, self._geometry)) > 0
            if not is_inside:
                where = ", ".join(f"{p:.1f}" for p in positions_of(prompt)[0])
                kind = type(prompt).__name__.lower()
                raise UserError(
                    "a prompt inside the volume", f"a {kind} at ({where}) mm outside it"
                )

    def _decode(self, question: Question, roi: Region) -> tuple[NDArray[np.float32], float, Mask]:
        """Return the mask's logits in a region, its predicted Dice and where it would change."""
        lattice = region_geometry(self._features.geometry, roi)
        before, previous, is_known = self._previous(question, roi, lattice)
        features, loaded = self._features, self._features.loaded
        prompts = prompt_tensors(question.prompts, lattice).to(loaded.device)
        has_automatic = features.stored_channel(question.output) is not None
        with torch.inference_mode(), autocast(loaded.device):
            logits, dice = loaded.student.decode(
                gold=self._crop("gold", roi),
                dense=self._crop("dense", roi),
                image=self._tensor(features.image[roi][None]),
                previous=self._tensor(previous[None]),
                prompts=prompts,
                output=torch.tensor([question.output], device=loaded.device),
                previous_known=torch.tensor([is_known], device=loaded.device),
                fading=torch.tensor([has_automatic], device=loaded.device),
            )
        values = spread(logits[0, 0].float().cpu().numpy(), question.prompts, lattice)
        after = self._restricted(question, before, values > 0, lattice)
        return values, float(dice[0]), before != after

    def _previous(
        self, question: Question, roi: Region, lattice: Geometry
    ) -> tuple[Mask, NDArray[np.float32], bool]:
        """Return the mask so far on the grid, as voxels and as logits, and whether there is one."""
        channel = self._features.stored_channel(question.output)
        automatic = None
        if channel is not None:
            stored = self._features.store.arrays["logits"][(channel, *roi)]
            automatic = np.asarray(stored, dtype=np.float32)
        if question.previous is not None and question.previous.any():
            box = image_box(lattice, self._geometry)
            source = region_geometry(self._geometry, box)
            share = share_of(question.previous[box], source, lattice)
            return share > 0.5, _logits_of(share > 0.5, automatic), True
        nothing = np.zeros(lattice.shape, bool)
        if automatic is None:
            return nothing, np.zeros(lattice.shape, np.float32), False
        return nothing, automatic, True

    def _restricted(self, question: Question, before: Mask, after: Mask, lattice: Geometry) -> Mask:
        """Keep what the newest prompt touches of a change, and what older ones declared."""
        newest = touched_by(question.prompts[-1:], lattice)
        if question.is_free:
            free: Mask = (after | newest.positive) & ~newest.negative
            return free
        mask = restrict_change(before, after, newest)
        declared = touched_by(question.prompts, lattice)
        changed = mask != before
        kept: Mask = (mask | (changed & declared.positive)) & ~(changed & declared.negative)
        return kept

    def _on_image(
        self, question: Question, roi: Region, logits: NDArray[np.float32], changed: Mask
    ) -> tuple[Region, Mask]:
        """Carry a change from the grid to the image's voxels."""
        lattice = region_geometry(self._features.geometry, roi)
        box = union(
            image_box(region_geometry(lattice, box_of(changed, margin=2)), self._geometry),
            box_of_voxels(voxels_of(question.prompts[-1], self._geometry)),
        )
        here = region_geometry(self._geometry, box)
        before = np.zeros(here.shape, bool)
        if question.previous is not None:
            before = question.previous[box]
        after = sample(logits[None], lattice, here)[0] > 0
        mask = self._restricted(question, before, after, here)
        inner = box_of(mask != before)
        z, y, x = (
            slice(b.start + i.start, b.start + i.stop) for b, i in zip(box, inner, strict=True)
        )
        return (z, y, x), np.array(mask[inner])

    def _crop(self, name: str, roi: Region) -> torch.Tensor:
        stride = STRIDES[name]
        part = tuple(slice(s.start // stride, s.stop // stride) for s in roi)
        return self._tensor(self._features.store.arrays[name][(slice(None), *part)])

    def _tensor(self, values: NDArray[np.floating]) -> torch.Tensor:
        array = np.ascontiguousarray(values, dtype=np.float32)
        return torch.from_numpy(array)[None].to(self._features.loaded.device)


def _logits_of(mask: Mask, automatic: NDArray[np.float32] | None) -> NDArray[np.float32]:
    known = None if automatic is None else torch.from_numpy(automatic)[None, None]
    logits: NDArray[np.float32] = logits_of(torch.from_numpy(mask)[None, None], known)[0, 0].numpy()
    return logits


def _ends(prompt: Prompt, grid: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    index = grid.to_index(positions_of(prompt))
    last = np.array(grid.shape) - 1
    return np.clip(index.min(axis=0), 0, last), np.clip(index.max(axis=0), 0, last)
