"""The panel to choose a volume."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from napari.layers import Image
from qtpy.compat import isalive
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFileDialog, QMenu, QPushButton

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import SUFFIXES
from napari_ka2er.core.volume import REVERSE
from napari_ka2er.widgets.layers import Source, source_of
from napari_ka2er.widgets.parts import Panel, button, combo, emphasise, note, row, small

_TIP = "The image layer to segment. It is read, never changed."
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
        self.volume, self.description = combo("volume", _TIP), note("volume_description")
        self.open = small(button("Open…", self._open, "open_volume"))
        self.open.setToolTip("Open a NIfTI, NRRD, MetaImage, TIFF or DICOM file.")
        self.sample = self._sample_button()
        self.add(self.volume, row(self.description, self.open, self.sample))
        self.volume.currentIndexChanged.connect(self._choose)
        for event in ("inserted", "removed", "reordered"):
            getattr(viewer.layers.events, event).connect(self._list_images)
        self._list_images()

    def _sample_button(self) -> QPushButton:
        made = QPushButton("Sample")
        made.setObjectName("open_sample")
        made.setToolTip("Open one of the volumes that come with the plugin.")
        menu = QMenu(made)
        for key, title in _SAMPLES.items():
            menu.addAction(title, partial(self._viewer.open_sample, "napari-ka2er", key))
        made.setMenu(menu)
        return small(made)

    @property
    def layer(self) -> Image | None:
        """The chosen image layer."""
        index = self.volume.currentIndex()
        return self._images[index] if 0 <= index < len(self._images) else None

    @property
    def source(self) -> Source | None:
        """What is known of the chosen volume, or None if it cannot be used."""
        try:
            return None if self.layer is None else source_of(self.layer)
        except UserError:
            return None

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

    def _open(self) -> None:
        kinds = f"Volumes (*{' *'.join(SUFFIXES)});;All files (*)"
        path, _ = QFileDialog.getOpenFileName(self, "Open a volume", "", kinds)
        if path:
            self._viewer.open(path, plugin="napari-ka2er")

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

    def _choose(self, index: int = 0) -> None:
        text = "Nothing is open yet."
        try:
            if self.layer is not None:
                text = describe(source_of(self.layer))
        except UserError as error:
            text = str(error)
        self.description.setText(text)
        name = "" if self.layer is None else f"{self.layer.name}\n\n"
        self.volume.setToolTip(name + _TIP)  # the list may be too narrow for the name
        self.refresh()
        self.chosen.emit()


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
