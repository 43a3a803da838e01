"""Sample data contributions: the volumes that ship with the project."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from napari_ka2er._reader import LayerData, layers_of
from napari_ka2er.core.io import read_volume
from napari_ka2er.model.catalogue import sample_folder

if TYPE_CHECKING:
    from pathlib import Path


def icbm_t1() -> list[LayerData]:
    """Return the T1 of the average brain as one image layer."""
    return [sample_layer("icbm_t1")]


def ct_chest() -> list[LayerData]:
    """Return the CT of a chest as one image layer."""
    return [sample_layer("ct_chest")]


def phantom() -> list[LayerData]:
    """Return the synthetic CT as one image layer."""
    return [sample_layer("phantom")]


def sample_layer(name: str) -> LayerData:
    """Return a shipped volume as napari takes it: values, attributes and kind of layer."""
    path = sample_volume(name)
    card = next(c for c in sample_cards() if c["name"] == name)
    [(data, attributes, kind)] = layers_of(read_volume(path), path)
    attributes["name"] = card["title"]
    if card["modality"] == "CT":  # lung and soft tissue; napari would choose the whole range
        attributes["contrast_limits"] = (-1000.0, 400.0)
    return data, attributes, kind


def sample_volume(name: str) -> Path:
    """Return the file of a shipped volume."""
    return sample_folder() / "volumes" / f"{name}.nii.gz"


def sample_cards() -> list[dict[str, str]]:
    """Return what ``volumes.json`` says of each shipped volume."""
    text = (sample_folder() / "volumes" / "volumes.json").read_text(encoding="utf-8")
    cards: list[dict[str, str]] = json.loads(text)
    return cards
