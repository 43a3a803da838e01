"""A volume on one of the student's grids, encoded tile by tile as far as it is needed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_ka2er.core.errors import CancelledError
from napari_ka2er.core.resampling import student_image
from napari_ka2er.model.alignment import token_geometry
from napari_ka2er.model.device import autocast, precision
from napari_ka2er.model.expert_views import ExpertViews, part_of
from napari_ka2er.model.fingerprints import fingerprint
from napari_ka2er.model.routing import choose_experts, knowing_experts, shared_outputs
from napari_ka2er.model.tile_store import Identity
from napari_ka2er.model.tiles import STEP, Lattice, region_geometry, tiled_grid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from napari_ka2er.core.volume import Geometry, Volume
    from napari_ka2er.model.cache import Cache
    from napari_ka2er.model.config import Mode, TaskEntry
    from napari_ka2er.model.expert_views import Cancelled as Cancelled
    from napari_ka2er.model.expert_views import Progress as Progress
    from napari_ka2er.model.loaded import LoadedStudent
    from napari_ka2er.model.student import Encoded
    from napari_ka2er.model.tiles import Region, Tile


class GridFeatures:
    """What the student makes of a volume on the grid of one or several tasks.

    Parameters
    ----------
    loaded : LoadedStudent
        The student and its experts.
    volume : Volume
        The image; one channel.
    entry : TaskEntry
        A task; tasks with the same spacing and window share the grid.
    mode : str
        ``"full"``, ``"sparse"`` or ``"distilled"``.
    cache : Cache
        Where results are kept.
    """

    def __init__(
        self, loaded: LoadedStudent, volume: Volume, entry: TaskEntry, mode: Mode, cache: Cache
    ) -> None:
        self.loaded = loaded
        self._volume = volume
        self._entry = entry
        self._cache = cache
        self.mode = mode
        self.outputs = shared_outputs(loaded.config, entry)
        self.geometry: Geometry = tiled_grid(volume.geometry, entry.spacing_mm, entry.window)
        self.lattice = Lattice(self.geometry.shape, entry.window)
        self._experts = ExpertViews(loaded, volume, entry.spacing_mm, cache.experts)
        self._tiles = self.lattice.tiles
        self.store = cache.open(self._identity(), len(self._tiles))

    def _identity(self) -> Identity:
        config = self.loaded.config
        has_weights = config.amalgamation != "none"
        channels = {
            "gold": config.width,
            "dense": config.dense_width,
            "logits": len(self.outputs),
            "weights": len(config.experts) + 1 if has_weights else 1,
        }
        return Identity(
            self._volume.digest(),
            self.loaded.digest,
            self.mode,
            self._entry.spacing_mm,
            self._entry.window,
            self.geometry.shape,
            channels,
            self._volume.name,
            self.loaded.experts.token_centres if self._has_experts else {},
            str(precision(self.loaded.device)).removeprefix("torch."),
        )

    @property
    def _has_experts(self) -> bool:
        """Whether any expert may be asked."""
        return self.mode != "distilled" and bool(self.loaded.student.coarse)

    @cached_property
    def image(self) -> NDArray[np.float32]:
        """The normalised intensities on the grid, shape (Z, Y, X)."""
        data = self._volume.channels[0]
        return student_image(data, self._volume.geometry, self.geometry)

    @cached_property
    def knowing(self) -> list[bool]:
        """Which experts know this kind of volume; see `napari_ka2er.model.routing`."""
        return knowing_experts(self.loaded.config, fingerprint(self._volume))

    @property
    def token_lattice(self) -> Geometry:
        """Where the gold tokens and the expert weights lie."""
        return token_geometry(self.geometry, STEP)

    def channels_of(self, task: str) -> slice:
        """Return which of the stored logits are a task's labels."""
        outputs = self.loaded.config.outputs(task)
        first = self.outputs.index(outputs[0])
        return slice(first, first + len(outputs))

    def stored_channel(self, output: int) -> int | None:
        """Return where an output's logits are stored; None if its task has another grid."""
        return self.outputs.index(output) if output in self.outputs else None

    @property
    def everything(self) -> Region:
        """The region that is the whole grid."""
        z, y, x = (slice(0, n) for n in self.geometry.shape)
        return z, y, x

    def missing(self, region: Region, centre: ArrayLike | None = None) -> list[Tile]:
        """Return the tiles of a region that are not filled, nearest to `centre` first."""
        filled = self.store.filled
        return [tile for tile in self.lattice.touching(region, centre) if not filled[tile.number]]

    def fill(
        self,
        region: Region | None = None,
        *,
        centre: ArrayLike | None = None,
        max_windows: int | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> int:
        """Encode the tiles of a region that are not filled yet.

        Parameters
        ----------
        region : tuple of slice, optional
            Grid voxels; None is the whole grid.
        centre : array_like, shape (3,), optional
            Grid index near which to begin.
        max_windows : int, optional
            Stop after this many.
        progress, cancelled : callable, optional
            Told the share that is done and what is being done; asked before each window, those of
            experts too.

        Returns
        -------
        int
            The number of windows that were encoded.

        Raises
        ------
        CancelledError
            If `cancelled` says so; the tiles filled so far are kept.
        """
        tiles = self.missing(self.everything if region is None else region, centre)[:max_windows]
        for done, tile in enumerate(tiles):
            if cancelled is not None and cancelled():
                raise CancelledError("stopped between windows")
            if progress is not None:
                progress(done / len(tiles), f"window {done + 1} of {len(tiles)}")
            told = part_of(progress, done / len(tiles), 1 / len(tiles))
            self.store.write(tile, self._values(self._encode(tile, told, cancelled)))
            self._make_room(self._cache.keep_small)
        if tiles:
            self._make_room(self._cache.shrink)
        if progress is not None:
            progress(1.0, "encoded")
        return len(tiles)

    def _make_room(self, shrink: Callable[[Collection[str]], None]) -> None:
        """Keep the cache under its limit; called whenever it has grown."""
        if self.store.filled.all():  # no expert is asked again
            self._experts.forget()
        shrink({self.store.folder.name, *self._experts.in_use})

    def _values(self, encoded: Encoded) -> dict[str, NDArray[np.float16]]:
        tensors = {
            "gold": encoded.gold,
            "dense": encoded.dense,
            "logits": encoded.logits[:, self.outputs],
            "weights": encoded.weights,
        }
        limit = float(np.finfo(np.float16).max)
        return {
            name: tensor[0].float().clamp(-limit, limit).half().cpu().numpy()
            for name, tensor in tensors.items()
        }

    @torch.inference_mode()
    def _encode(
        self, tile: Tile, progress: Progress | None, cancelled: Cancelled | None
    ) -> Encoded:
        student, device = self.loaded.student, self.loaded.device
        window = torch.from_numpy(np.ascontiguousarray(self.image[tile.window]))
        image = window[None, None].to(device)
        place = region_geometry(self.geometry, tile.window)
        with autocast(device):
            features = self._experts.look(place, self._wanted(image), progress, cancelled)
            return student.encode(image, features)

    def _wanted(self, image: Tensor) -> list[bool]:
        """Say which experts are to look at a window."""
        student = self.loaded.student
        n_experts = len(self.loaded.config.experts)
        if not self._has_experts:
            return [False] * n_experts
        if self.mode == "full":
            return [True] * n_experts
        weights = student.route(image)[0].float().flatten(1).mean(dim=1)
        threshold = self.loaded.config.sparse_threshold
        return choose_experts(weights.cpu().numpy(), threshold, self.knowing)
