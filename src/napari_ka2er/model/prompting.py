"""From prompts to a mask: a region of interest is cut from the cached features and decoded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_ka2er.core.boxes import is_empty, overlap, union, within
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.prompts import Point, positions_of
from napari_ka2er.core.touched import extent_of, restrict_change, touched_by
from napari_ka2er.model.answers import PromptResult as PromptResult
from napari_ka2er.model.device import autocast
from napari_ka2er.model.mask_logits import logits_of
from napari_ka2er.model.nameless import centre_of, newest_box, own_pieces, room_of, with_centres
from napari_ka2er.model.prompt_maps import prompt_tensors
from napari_ka2er.model.question import Decoded, Question, Started
from napari_ka2er.model.roi import (
    box_of,
    enlarged,
    image_box,
    is_cut,
    roi_around,
)
from napari_ka2er.model.sampling import sample, share_of
from napari_ka2er.model.spreading import spread
from napari_ka2er.model.tile_store import STRIDES
from napari_ka2er.model.tiles import region_geometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.prompts import Box, Prompt
    from napari_ka2er.core.volume import Geometry
    from napari_ka2er.model.filling import Cancelled, GridFeatures, Progress
    from napari_ka2er.model.tiles import Region

    Mask = NDArray[np.bool_]


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
            decoded = self._decode(question, roi)
            larger = enlarged(roi, grid.shape)
            seconds += time.perf_counter() - start
            if larger == roi or not is_cut(decoded.changed, roi, grid.shape):
                break
            roi = larger
        start = time.perf_counter()
        box, mask = self._on_image(question, roi, decoded)
        seconds += time.perf_counter() - start
        return PromptResult(box, mask, decoded.dice, seconds, n_windows, roi)

    def _check(self, prompts: Sequence[Prompt]) -> None:
        if not prompts:
            raise UserError("at least one prompt", "none")
        for prompt in prompts:
            if isinstance(prompt, Point):
                is_inside = self._geometry.contains(prompt.position_mm)
            else:
                is_inside = not is_empty(extent_of(prompt, self._geometry))
            if not is_inside:
                where = ", ".join(f"{p:.1f}" for p in positions_of(prompt)[0])
                kind = type(prompt).__name__.lower()
                raise UserError(
                    "a prompt inside the volume", f"a {kind} at ({where}) mm outside it"
                )

    def _decode(self, question: Question, roi: Region) -> Decoded:
        lattice = region_geometry(self._features.geometry, roi)
        started = self._started(question, roi, lattice)
        features, loaded = self._features, self._features.loaded
        asked = self._asked(question, lattice)
        prompts = prompt_tensors(asked, lattice).to(loaded.device)
        with torch.inference_mode(), autocast(loaded.device):
            logits, dice = loaded.student.decode(
                gold=self._crop("gold", roi),
                dense=self._crop("dense", roi),
                image=self._tensor(features.image[roi][None]),
                previous=self._tensor(started.logits[None]),
                prompts=prompts,
                output=torch.tensor([question.output], device=loaded.device),
                previous_known=torch.tensor([started.is_known], device=loaded.device),
                fading=torch.tensor([not self._is_nameless(question)], device=loaded.device),
            )
        values = spread(logits[0, 0].float().cpu().numpy(), asked, lattice)
        mask = self._restricted(question, started.mask, started.replaced, values > 0, lattice)
        return Decoded(values, float(dice[0]), started.mask != mask, started.replaced)

    def _is_nameless(self, question: Question) -> bool:
        return self._features.stored_channel(question.output) is None

    def _asked(self, question: Question, lattice: Geometry) -> Sequence[Prompt]:
        """Return what the student is shown: boxes of structures without a name mean more."""
        if self._is_nameless(question):
            return with_centres(question.prompts, lattice)
        return question.prompts

    def _boxed(self, question: Question, lattice: Geometry) -> Box | None:
        """Return the newest prompt if it is a box around a structure without a name."""
        return newest_box(question.prompts, lattice) if self._is_nameless(question) else None

    def _started(self, question: Question, roi: Region, lattice: Geometry) -> Started:
        """Return what there is on the grid before the newest prompt is answered."""
        automatic = self._automatic(question, roi)
        nothing = np.zeros(lattice.shape, bool)
        if question.previous is None or not question.previous.any():
            logits = np.zeros(lattice.shape, np.float32) if automatic is None else automatic
            return Started(nothing, logits, automatic is not None, nothing)
        box = image_box(lattice, self._geometry)
        source = region_geometry(self._geometry, box)
        mask = share_of(question.previous[box], source, lattice) > 0.5
        if automatic is not None:
            return Started(mask, _logits_of(mask, automatic), True, nothing)
        own = own_pieces(mask, self._asked(question, lattice), lattice)
        if self._boxed(question, lattice) is not None:  # a box is answered from nothing
            return Started(mask, np.zeros(lattice.shape, np.float32), False, own)
        return Started(mask, _logits_of(own, None), bool(own.any()), nothing)

    def _automatic(self, question: Question, roi: Region) -> NDArray[np.float32] | None:
        channel = self._features.stored_channel(question.output)
        if channel is None:
            return None
        stored = self._features.store.arrays["logits"][(channel, *roi)]
        return np.asarray(stored, dtype=np.float32)

    def _restricted(
        self, question: Question, before: Mask, replaced: Mask, after: Mask, lattice: Geometry
    ) -> Mask:
        """Keep what the newest prompt touches of a change, and what older ones declared."""
        newest = touched_by(question.prompts[-1:], lattice)
        boxed = self._boxed(question, lattice)
        if boxed is not None:
            before = before & ~replaced
            newest = touched_by([centre_of(boxed)], lattice)
            after = _inside(room_of(boxed, lattice), after, before)
        if question.is_free:
            free: Mask = (after | newest.positive) & ~newest.negative
            return free
        mask = restrict_change(before, after, newest)
        declared = touched_by(question.prompts, lattice)
        changed = mask != before
        kept: Mask = (mask | (changed & declared.positive)) & ~(changed & declared.negative)
        return kept

    def _on_image(self, question: Question, roi: Region, decoded: Decoded) -> tuple[Region, Mask]:
        """Carry a change from the grid to the image's voxels."""
        lattice = region_geometry(self._features.geometry, roi)
        box = union(
            image_box(region_geometry(lattice, box_of(decoded.changed, margin=2)), self._geometry),
            extent_of(question.prompts[-1], self._geometry),
        )
        here = region_geometry(self._geometry, box)
        before = np.zeros(here.shape, bool)
        if question.previous is not None:
            before = question.previous[box]
        after = sample(decoded.logits[None], lattice, here)[0] > 0
        known = overlap(image_box(lattice, self._geometry), box)
        # Beyond the region nothing was decoded: `sample` goes on with what lies at its border.
        after = before if known is None else _inside(within(known, box), after, before)
        replaced = np.zeros(here.shape, bool)
        if decoded.replaced.any():  # any share counts: the grid's voxels are larger than crumbs
            replaced = sample(decoded.replaced[None], lattice, here)[0] > 0
        mask = self._restricted(question, before, replaced, after, here)
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


def _inside(region: Region, after: Mask, before: Mask) -> Mask:
    """Return `after` in a region, `before` elsewhere."""
    mask = before.copy()
    mask[region] = after[region]
    return mask


def _logits_of(mask: Mask, automatic: NDArray[np.float32] | None) -> NDArray[np.float32]:
    known = None if automatic is None else torch.from_numpy(automatic)[None, None]
    logits: NDArray[np.float32] = logits_of(torch.from_numpy(mask)[None, None], known)[0, 0].numpy()
    return logits


def _ends(prompt: Prompt, grid: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    index = grid.to_index(positions_of(prompt))
    last = np.array(grid.shape) - 1
    return np.clip(index.min(axis=0), 0, last), np.clip(index.max(axis=0), 0, last)
