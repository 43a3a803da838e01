"""The student's uncertainty and the expert map as image layers, and the way through the slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.utils.colormaps import Colormap

from napari_ka2er.core.task import COLORS

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    from numpy.typing import NDArray

    from napari_ka2er.widgets.results import ExpertMap, Uncertainty

# Clear, magenta, bright magenta: what hides the image is what should be looked at.  No label is
# like it; the first of every task is orange, on which red and yellow are hardly seen.
UNSURE = [(1.0, 0.0, 1.0, 0.0), (1.0, 0.0, 1.0, 0.5), (1.0, 0.5, 1.0, 0.95)]
APART = 3  # slices nearer to each other than this are looked at together


class Maps:
    """Shows maps of one session in a viewer; a newer map replaces the one before.

    Parameters
    ----------
    viewer : napari.viewer.Viewer or napari.components.ViewerModel
        Where.
    name : str
        The volume's name.
    transforms : mapping
        Where our layers lie, as arguments of a layer.
    """

    def __init__(self, viewer: Any, name: str, transforms: dict[str, Any]) -> None:
        self._viewer, self._name, self._transforms = viewer, name, transforms
        self.layers: list[Image] = []
        self.uncertainty: Uncertainty | None = None

    def show_uncertainty(self, found: Uncertainty) -> None:
        """Show how unsure the student is: clear where it is sure, else magenta.

        Maps of the other kind are hidden, as two above each other cannot be read.
        """
        self.uncertainty = found
        self._hide("expert")
        self._show("uncertainty", found.values, Colormap(UNSURE, name="ka2er uncertainty"))

    def show_experts(self, found: ExpertMap) -> None:
        """Show how much each expert was trusted, each in a colour of its own."""
        self._remove("expert", {f"expert {name}" for name in found.names})
        self._hide("uncertainty")
        for number, (name, values) in enumerate(zip(found.names, found.values, strict=True)):
            color = [part / 255 for part in bytes.fromhex(COLORS[number % len(COLORS)][1:])]
            fade = [(*color, 0.0), (*color, 0.8)]
            colormap = Colormap(fade, name=f"ka2er expert {number + 1}")
            self._show(f"expert {name}", values, colormap)

    def close(self) -> None:
        """Take the layers away."""
        self._remove("")

    def _hide(self, kind: str) -> None:
        for layer in self.layers:
            if _kind(layer).startswith(kind):
                layer.visible = False

    def _show(self, what: str, values: NDArray[Any], colormap: Colormap) -> None:
        """Let a layer that is there show the new values, or add one."""
        shown = [x for x in self.layers if _kind(x) == what and x in self._viewer.layers]
        if shown:
            shown[0].data, shown[0].visible = values, True
        else:
            self._add(what, values, colormap)

    def _add(self, what: str, values: NDArray[Any], colormap: Colormap) -> None:
        layer = Image(
            values,
            name=f"{what} in {self._name}",
            colormap=colormap,
            contrast_limits=(0.0, 1.0),
            blending="translucent",
            metadata={"napari_ka2er": {"map": what}},
            **self._transforms,
        )
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = active  # the tool in use stays
        self.layers.append(layer)

    def _remove(self, kind: str, but: Collection[str] = ()) -> None:
        for layer in list(self.layers):
            if _kind(layer).startswith(kind) and _kind(layer) not in but:
                self.layers.remove(layer)
                if layer in self._viewer.layers:
                    self._viewer.layers.remove(layer)


def _kind(layer: Image) -> str:
    kind: str = layer.metadata["napari_ka2er"]["map"]
    return kind


def next_slice(scores: NDArray[np.float64], reviewed: frozenset[int], seen: set[int]) -> int | None:
    """Return the most uncertain slice that is neither reviewed nor near one in `seen`.

    Parameters
    ----------
    scores : ndarray, shape (N,)
        Mean uncertainty of each slice.
    reviewed : set of int
        Slices that somebody vouched for.
    seen : set of int
        Slices that were gone to before.

    Returns
    -------
    int or None
        None if no slice is left.
    """
    left = [
        index
        for index in range(len(scores))
        if index not in reviewed and all(abs(index - other) >= APART for other in seen)
    ]
    return max(left, key=lambda index: float(scores[index])) if left else None
