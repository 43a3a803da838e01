"""Reader contribution: medical volumes become layers that lie where the patient lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er._transforms import placed
from napari_ka2er.core.io import is_label_map, is_readable, read_volume, require_one_channel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_ka2er.core.volume import Volume

LayerData = tuple[Any, dict[str, Any], str]
_RGB = ("red", "green", "blue")
# Folders of nnU-Net and the Medical Segmentation Decathlon: nothing in a file says it holds labels.
_LABEL_FOLDERS = ("labelsTr", "labelsTs")


def get_reader(path: str | Sequence[str]) -> Callable[..., list[LayerData]] | None:
    """Return a function that reads this path, or None if another plugin has to.

    Lists of paths (napari's "open as stack") are left to others: a stack has no place in the world.
    """
    if not isinstance(path, str) or not is_readable(Path(path)):
        return None
    return _read


def layers_of(volume: Volume, source: Path) -> list[LayerData]:
    """Return a volume as napari takes it: one labels layer, or one image layer per channel.

    Colour volumes become one RGB layer.  The volume's header travels in
    ``metadata["napari_ka2er"]["header"]``, so that labels can be saved with the very same one.

    Raises
    ------
    UserError
        If the file holds labels in several channels.
    """
    shared = {
        **placed(volume.affine),
        "units": ("mm", "mm", "mm"),
        "axis_labels": ("z", "y", "x"),
        "metadata": {"napari_ka2er": {"source": str(source), "header": volume.header}},
    }
    if _holds_labels(volume, source):
        require_one_channel(volume, source.name)
        values = np.array(volume.data)  # a copy to paint on: a volume's own values are read-only
        return [(values, {**shared, "name": volume.name, **_colors(volume)}, "labels")]
    if volume.channel_names[:3] == _RGB and volume.data.dtype == np.uint8:
        colors = np.moveaxis(volume.data, 0, -1)
        return [(colors, {**shared, "name": volume.name, "rgb": True}, "image")]
    names = [f"{volume.name} {channel}" for channel in volume.channel_names]
    if volume.n_channels == 1:
        names = [volume.name]
    pairs = zip(volume.channels, names, strict=True)
    return [(data, {**shared, "name": name}, "image") for data, name in pairs]


def _read(path: str, **_: Any) -> list[LayerData]:
    """Read one path; npe2 may pass more arguments."""
    return layers_of(read_volume(Path(path)), Path(path))


def _holds_labels(volume: Volume, source: Path) -> bool:
    """Return whether the file says it holds labels, or lies where labels lie."""
    is_integer = np.issubdtype(volume.data.dtype, np.integer) and volume.n_channels == 1
    return is_label_map(volume) or (is_integer and source.parent.name in _LABEL_FOLDERS)


def _colors(volume: Volume) -> dict[str, Any]:
    """Return the colours and names that the file holds, as arguments of a labels layer."""
    labels = volume.header.get("labels")
    if not labels:
        return {}
    colormap = {value: color for value, _, color in labels}
    features = {"index": [v for v, _, _ in labels], "name": [name for _, name, _ in labels]}
    return {"colormap": {**colormap, None: "gray", 0: "transparent"}, "features": features}
