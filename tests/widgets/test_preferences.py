"""Preferences: napari's page where there is one, the same defaults where there is none."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from napari_ka2er.model.cache import LIMIT_VARIABLE
from napari_ka2er.widgets import preferences
from napari_ka2er.widgets.preferences import DEVICES, MODES, Preferences, read_preferences

MANIFEST = Path(__file__).parents[2] / "napari.yaml"


@pytest.fixture
def properties():
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    return manifest["contributions"]["configurations"][preferences.SECTION]["properties"]


def test_the_page_and_the_defaults_agree(properties):
    assert {name: entry["default"] for name, entry in properties.items()} == asdict(Preferences())
    assert tuple(properties["device"]["enum"]) == DEVICES
    assert tuple(properties["mode"]["enum"]) == MODES
    assert preferences.CACHE_VARIABLE == LIMIT_VARIABLE


def test_what_the_user_set_is_taken(monkeypatch):
    import napari.settings

    page = SimpleNamespace(annotate=SimpleNamespace(device="cpu", autosave_seconds=5))
    monkeypatch.setattr(napari.settings, "get_plugin_settings", lambda name: page, raising=False)
    assert read_preferences() == Preferences(device="cpu", autosave_seconds=5)


def test_below_napari_0_9_the_defaults_are_taken(monkeypatch):
    import napari.settings

    monkeypatch.delattr(napari.settings, "get_plugin_settings", raising=False)
    assert read_preferences() == Preferences()


def test_without_the_plugin_s_page_the_defaults_are_taken(monkeypatch):
    import napari.settings

    def missing(name):
        raise KeyError(name)

    monkeypatch.setattr(napari.settings, "get_plugin_settings", missing, raising=False)
    assert read_preferences() == Preferences()
