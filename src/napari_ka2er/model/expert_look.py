"""Setting up an expert's view of a volume: working spacing, crop, padding and cache folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.resampling import grid_of, index_map
from napari_ka2er.model.device import autocast, precision
from napari_ka2er.model.expert_features import decode
from napari_ka2er.model.expert_image import finite, nonzero_box, pad
from napari_ka2er.model.expert_store import FeatureStore
from napari_ka2er.model.expert_view import ExpertView, StageLayout, Work
from napari_ka2er.model.expert_windows import WindowGrid, WorkingGrid, padding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Geometry, Volume
    from napari_ka2er.model.experts import Expert

    Triple = tuple[float, float, float]

# An expert works at its planned spacing unless that is finer than this share of the student's: a
# 1 mm expert must not walk through a whole chest at 1 mm for a student that sees 4 mm.
_FINEST_SHARE = 0.75


def look(
    expert: Expert,
    volume: Volume,
    grid_spacing_mm: Triple,
    cache_dir: Path | None,
    stages: Sequence[int] | None,
) -> ExpertView:
    """Return an expert's view of a volume; see `napari_ka2er.model.experts.Expert.look`."""
    kept = sorted(set(range(len(expert.strides)) if stages is None else stages))
    spacing = working_spacing(expert.spacing_mm, volume.geometry, grid_spacing_mm)
    grid = working_grid(expert, volume, spacing)
    windows = WindowGrid(grid.seen_shape, expert.patch_size, expert.strides[-1])
    shapes = {
        s: (
            expert.stage_channels[s],
            *(n // t for n, t in zip(grid.padded_shape, expert.strides[s], strict=True)),
        )
        for s in kept
    }
    if cache_dir is None:
        store = FeatureStore.in_memory(shapes, windows.shape)
    else:
        identity = {
            "volume": volume.digest(),
            "expert": expert.digest,
            "spacing_mm": list(spacing),
            "stages": kept,
            **_rounding(expert.device),
        }
        store = FeatureStore.on_disk(cache_dir, shapes, windows.shape, identity)
    work = Work(
        prepare=lambda: _prepare(expert, volume, spacing, grid),
        look=lambda window, finest: _features(expert, window, finest),
    )
    layout = StageLayout(expert.strides, expert.token_centres)
    return ExpertView(grid, windows, store, layout, work)


def _rounding(device: torch.device) -> dict[str, str]:
    """Name the precision where it is not the usual one: stores of before that is named are good."""
    dtype = precision(device)
    return {} if dtype == torch.float32 else {"precision": str(dtype)}


def working_spacing(planned: Triple, geometry: Geometry, grid_spacing: Triple) -> Triple:
    """Return the spacing (Z, Y, X) in mm, along the volume's axes, at which an expert works.

    Parameters
    ----------
    planned : tuple of float
        The expert's own, along the volume's axes.
    geometry : Geometry
        The volume's lattice.
    grid_spacing : tuple of float
        Of the student's grid, along the grid's axes, which are the volume's in another order.
    """
    to_volume = index_map(geometry, grid_of(geometry, grid_spacing))[:3, :3]
    student = np.abs(to_volume).max(axis=1) * geometry.spacing
    z, y, x = (
        float(p if p >= _FINEST_SHARE * s else s) for p, s in zip(planned, student, strict=True)
    )
    return z, y, x


def working_grid(expert: Expert, volume: Volume, spacing: Triple) -> WorkingGrid:
    """Return where the expert's voxels lie, without preprocessing the volume."""
    crop = nonzero_box(finite(volume))
    plan = expert.plan
    order = list(plan.transpose)
    size = [crop[axis][1] - crop[axis][0] for axis in order]
    old, new = ([mm[axis] for axis in order] for mm in (volume.spacing, spacing))
    shape = plan.working_shape(size, old, new)
    if 0 in shape:
        wanted = f"a volume of at least one voxel at {spacing} mm"
        raise UserError(wanted, f"{volume.name} of {volume.geometry.extent_mm} mm")
    before, after = padding(shape, expert.patch_size, expert.strides[-1])
    patch = tuple(expert.patch_size)
    return WorkingGrid(volume.geometry, plan.transpose, crop, shape, before, after, patch)


def _prepare(
    expert: Expert, volume: Volume, spacing: Triple, grid: WorkingGrid
) -> NDArray[np.float32]:
    """Preprocess the whole volume and pad it up to the patch."""
    data = expert.plan.working_image(volume, expert.plan.at_spacing(spacing))
    if data.shape[1:] != grid.shape:
        name = expert.plan.configuration.preprocessor_name
        wanted = f"a preprocessor that crops and resamples as nnU-Net's default, to {grid.shape}"
        raise UserError(wanted, f"{name}, which makes {data.shape[1:]}")
    return pad(data, grid)


def _features(
    expert: Expert, window: NDArray[np.float32], finest: int
) -> list[NDArray[np.float32]]:
    image = torch.from_numpy(np.ascontiguousarray(window))[None].to(expert.device)
    with torch.no_grad(), autocast(expert.device):
        features = decode(expert.looking, image, finest)
    return [feature[0].float().cpu().numpy() for feature in features]
