"""The list of packages for the next round: those that are ticked go into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from napari_ka2er.core.correction import MANIFEST
from napari_ka2er.core.hashing import file_digest
from napari_ka2er.core.session_exports import Export

_FOLDER, _DIGEST = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1
_HEIGHT = 54  # pixels: three lines


class PackageList(QListWidget):
    """Packages by name, each ticked or not; the tool tip of each tells its folder."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("packages")
        self.setToolTip("Packages for the next round; untick those to leave out.")
        self.setMaximumHeight(_HEIGHT)

    @property
    def folders(self) -> list[Path]:
        """The folders of all packages in the list."""
        return [Path(item.data(_FOLDER)) for item in self._rows()]

    @property
    def ticked(self) -> list[Path]:
        """The folders of those that go into the next round."""
        return [Path(item.data(_FOLDER)) for item in self._rows() if _is_ticked(item)]

    def take(self, folder: Path) -> None:
        """Add a package, ticked; one that is in the list already is ticked."""
        for item in self._rows():
            if Path(item.data(_FOLDER)) == folder:
                item.setCheckState(Qt.CheckState.Checked)
                break
        else:
            item = self._list(folder, folder.name, Qt.CheckState.Checked)
        item.setData(_DIGEST, _digest(folder))

    def offer(self, exports: Iterable[Export], is_taken: Callable[[str], bool]) -> None:
        """Add what was exported before, unticked; what a round has taken leaves the list.

        Parameters
        ----------
        exports : iterable of Export
            Newest first.
        is_taken : callable
            Tells of a package, by the digest of its manifest, whether it went into a round.
        """
        for row in reversed(range(self.count())):
            digest = self.item(row).data(_DIGEST)
            if digest and is_taken(digest):
                self.takeItem(row)
        for export in exports:
            if export.package not in self.folders and not is_taken(export.digest):
                when = f"{datetime.fromtimestamp(export.time_s):%d %b %H:%M}"
                text = f"{export.package.name}, exported {when}"
                item = self._list(export.package, text, Qt.CheckState.Unchecked)
                item.setData(_DIGEST, export.digest)

    def _list(self, folder: Path, text: str, state: Qt.CheckState) -> QListWidgetItem:
        item = QListWidgetItem(text)
        item.setData(_FOLDER, str(folder))
        item.setToolTip(str(folder))
        item.setCheckState(state)
        self.addItem(item)
        return item

    def _rows(self) -> list[QListWidgetItem]:
        return [self.item(row) for row in range(self.count())]


def _digest(package: Path) -> str:
    """Return the SHA-256 of a package's manifest, or nothing where there is none."""
    try:
        return file_digest(package / MANIFEST)
    except OSError:
        return ""


def _is_ticked(item: QListWidgetItem) -> bool:
    return item.checkState() == Qt.CheckState.Checked
