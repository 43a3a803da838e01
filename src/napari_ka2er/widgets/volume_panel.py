"""The panel to choose a volume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from qtpy.compat import isalive
from qtpy.QtCore import QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFileDialog, QMenu, QPushButton

from napari_ka2er._reader import LayerData
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import SUFFIXES
from napari_ka2er.core.volume import REVERSE
from napari_ka2er.widgets.layers import PLACE_EVENTS, Source, source_of
from napari_ka2er.widgets.parts import Panel, combo, emphasise, note, row, small

_TIP = "The image layer to segment. It is read, never changed."
_TIMES = "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}"  # three numbers stay in one line
_MOVED_MS = 150
_SAMPLES = {
    "ct_chest": "CT: chest",
    "icbm_t1": "MR: T1 brain",
    "phantom": "CT: chest phantom",
}


class VolumePanel(Panel):
    """Lets people open and choose the image layer to segment; it is read, never changed.

    Parameters
    ----------
    controller : AnnotateController
        Tells of failures.
    viewer : napari.viewer.Viewer
        Whose layers they are.

    Signals
    -------
    chosen()
        Another layer, or none, is chosen.
    """

    chosen = Signal()

    def __init__(self, controller: Any, viewer: Any) -> None:
        super().__init__(controller)
        self._viewer = viewer
        self._images: list[Image] = []
        self._source: Source | UserError | None = None  # of the chosen layer, once it was asked for
        self._moved_timer = QTimer(self, singleShot=True, interval=_MOVED_MS)
        self._moved_timer.timeout.connect(self._choose)
        self.volume, self.description = combo("volume", _TIP), note("volume_description")
        entries = {
            "A file…": self._choose_file,
            "A folder of DICOM or OME-Zarr…": self._choose_folder,
        }
        tip = "Open a NIfTI, NRRD, MetaImage, TIFF or DICOM file, a DICOM folder or an OME-Zarr."
        self.open = _menu_button("Open…", "open_volume", tip, entries)
        samples = {title: partial(self._open_sample, key) for key, title in _SAMPLES.items()}
        tip = "Open one of the volumes that come with the plugin."
        self.sample = _menu_button("Sample", "open_sample", tip, samples)
        self.add(self.volume, row(self.description, self.open, self.sample))
        self.volume.currentIndexChanged.connect(self._choose)
        for event in ("inserted", "removed", "reordered"):
            getattr(viewer.layers.events, event).connect(self._list_images)
        self._list_images()

    @property
    def layer(self) -> Image | None:
        """The chosen image layer."""
        index = self.volume.currentIndex()
        return self._images[index] if 0 <= index < len(self._images) else None

    @property
    def source(self) -> Source | None:
        """What is known of the chosen volume, or None if it cannot be used."""
        found = self._looked_at()
        return None if isinstance(found, UserError) else found

    def _looked_at(self) -> Source | UserError | None:
        """Return what is known of the chosen volume, or why it is none; looked at once."""
        if self._source is None and self.layer is not None:
            try:
                self._source = source_of(self.layer)
            except UserError as error:
                self._source = error
        return self._source

    def obstacle(self) -> str:
        """Return why no session can begin on this volume, or nothing."""
        if self.layer is None:
            return "open a volume first"
        return "" if self.source is not None else "choose a layer that is one 3D image"

    def summary(self) -> str:
        """Return the layer's name."""
        return "" if self.layer is None else str(self.layer.name)

    def refresh(self) -> None:
        """Show in bold what comes first."""
        emphasise(self.open, self.layer is None)
        emphasise(self.sample, self.layer is None)

    def read(self, path: Path) -> None:
        """Read a file or folder into new layers, a moment later; the first of them is chosen.

        Not with the viewer's own `open`: napari knows files by their suffix, and slices of DICOM
        often have none.
        """
        self._controller.read_layers(path, partial(self._add_layers, path.name))

    def _add_layers(self, name: str, found: list[LayerData]) -> None:
        if isalive(self):  # the panel may be closed by now
            made = [Layer.create(data, attributes, kind) for data, attributes, kind in found]
            for layer in made:
                self._viewer.add_layer(layer)
            self._choose_of(made)
            self._controller.told.emit(f"{name} is open.")

    def _open_sample(self, key: str) -> None:
        self._choose_of(self._viewer.open_sample("napari-ka2er", key))

    def _choose_of(self, layers: list[Layer]) -> None:
        """Choose the first volume among layers: who opens one wants to work on it."""
        places = [place for place, layer in enumerate(self._images) if layer in layers]
        if places:
            self.volume.setCurrentIndex(places[0])

    def _choose_file(self) -> None:
        kinds = f"Volumes (*{' *'.join(SUFFIXES)});;All files (*)"
        path, _ = QFileDialog.getOpenFileName(self, "Open a volume", "", kinds)
        if path:
            self.read(Path(path))

    def _choose_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Open a folder of DICOM or an OME-Zarr")
        if path:
            self.read(Path(path))

    def _list_images(self, event: Any = None) -> None:
        if not isalive(self):  # napari's signals know nothing of Qt's deletions
            return
        before = self.layer
        self._images = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        self._images = [layer for layer in self._images if not self._is_ours(layer)]
        self.volume.blockSignals(True)
        self.volume.clear()
        for layer in self._images:
            self.volume.addItem(layer.name)
            layer.events.name.connect(self._rename)  # connecting again does nothing
            for event in PLACE_EVENTS:
                getattr(layer.events, event).connect(self._move)
        places = [row for row, layer in enumerate(self._images) if layer is before]
        self.volume.setCurrentIndex(places[0] if places else len(self._images) - 1)
        self.volume.blockSignals(False)
        self._choose()

    def _is_ours(self, layer: Image) -> bool:
        """Return whether we made a layer: a map, or an oblique volume along its own axes."""
        view = self._controller.view
        is_straight = view is not None and getattr(view, "image", None) is layer
        return is_straight or "map" in layer.metadata.get("napari_ka2er", {})

    def _rename(self, event: Any = None) -> None:
        if isalive(self):
            for index, layer in enumerate(self._images):
                self.volume.setItemText(index, layer.name)

    def _move(self, event: Any = None) -> None:
        """Look at the volume anew, once it stays where it is: it may be dragged."""
        if isalive(self) and event.source is self.layer:
            self._source = None
            self._moved_timer.start()

    def _choose(self, index: int = 0) -> None:
        self._source = None
        found = self._looked_at()
        text = describe(found) if isinstance(found, Source) else str(found or "")
        text = text or "Nothing is open yet."
        self.description.setText(text.replace(" × ", _TIMES).replace(" mm", "\N{NO-BREAK SPACE}mm"))
        name = "" if self.layer is None else f"{self.layer.name}\n\n"
        self.volume.setToolTip(name + _TIP)  # the list may be too narrow for the name
        self.refresh()
        self.chosen.emit()


def _menu_button(
    text: str, name: str, tip: str, entries: Mapping[str, Callable[[], object]]
) -> QPushButton:
    """Return a button that opens a menu; each entry does something."""
    made = QPushButton(text)
    made.setObjectName(name)
    made.setToolTip(tip)
    made.setStyleSheet("QPushButton { padding: 3px 15px 3px 5px; }")  # else the arrow touches it
    menu = QMenu(made)
    for title, act in entries.items():
        menu.addAction(title, act)
    made.setMenu(menu)
    return small(made)


def describe(source: Source) -> str:
    """Return a volume's size, spacing and orientation in words."""
    from nibabel.orientations import aff2axcodes  # not at start: it imports much

    shape = " × ".join(str(n) for n in source.data.shape)
    spacing = " × ".join(f"{s:.3g}" for s in np.linalg.norm(source.affine[:3, :3], axis=0))
    axes = "".join(aff2axcodes(REVERSE @ source.affine @ REVERSE))[::-1]
    turn = _tilt_degrees(source.affine)
    tilt = f", tilted by {turn:.0f}°" if turn >= 0.5 else ""
    return f"{shape} voxels of {spacing} mm (Z × Y × X), axes {axes}{tilt}"


def _tilt_degrees(affine: Any) -> float:
    """Return the largest angle between an axis of the volume and the next axis of the scanner."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(np.abs(axes).max(axis=0), 0, 1)).max()))
