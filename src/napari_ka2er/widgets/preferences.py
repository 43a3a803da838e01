"""What the user set on napari's Preferences page, or the defaults where there is no such page."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

CACHE_VARIABLE = "KA2ER_CACHE_GIB"  # as napari_ka2er.model.cache reads it
PLUGIN, SECTION = "napari-ka2er", "annotate"
DEVICES = ("auto", "cpu", "cuda", "mps")
MODES = ("sparse", "full", "distilled")


@dataclass(frozen=True, slots=True)
class Preferences:
    """The settings of the section *Annotate* in ``napari.yaml``, with their defaults.

    Parameters
    ----------
    device : str
        Where the student runs: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    mode : str
        The mode that is chosen at first: ``"sparse"``, ``"full"`` or ``"distilled"``.
    cache_gib : int
        Room for cached features on disk.
    autosave_seconds : int
        How often the mask itself is saved; every action is on disk at once in any case.
    """

    device: str = "auto"
    mode: str = "sparse"
    cache_gib: int = 8
    autosave_seconds: int = 60


def read_preferences() -> Preferences:
    """Return what the user set; below napari 0.9, and where nothing was set, the defaults."""
    section = _section()
    known = {field.name: getattr(section, field.name, None) for field in fields(Preferences)}
    return Preferences(**{name: value for name, value in known.items() if value is not None})


def _section() -> Any:
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # napari < 0.9
        return None
    try:
        return getattr(get_plugin_settings(PLUGIN), SECTION, None)
    except (KeyError, AttributeError):  # the plugin is not installed, only its code is there
        return None
