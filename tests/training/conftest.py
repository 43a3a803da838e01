"""Small data sets on disk, in the layouts that `ka2er task add` reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.sources import read_source
from ka2er_training.workspace import Workspace
from napari_ka2er.core.io import write_labels, write_volume
from napari_ka2er.core.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AFFINE = np.diag([2.0, 1.0, 1.5, 1.0])


def phantom(seed: int) -> tuple[Volume, np.ndarray]:
    """A bright ball (1) beside a dim one (2) in noise, (18, 26, 30) voxels of 2 x 1 x 1.5 mm.

    Both move with the seed, so that no two images are the same.
    """
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[:18, :26, :30]
    shift = rng.uniform(-2, 2, 3)
    labels = np.zeros((18, 26, 30), np.uint8)
    for value, column in ((1, 9), (2, 20)):
        offsets_mm = 2 * (z - 9 - shift[0]), y - 13 - shift[1], 1.5 * (x - column - shift[2])
        labels[sum(offset**2 for offset in offsets_mm) < 6.5**2] = value
    image = np.choose(labels, (0.0, 100.0, 50.0)) + rng.normal(0, 5, labels.shape)
    return Volume(image.astype(np.float32), AFFINE), labels


def write_raw(folder: Path, n_cases: int = 5, n_channels: int = 1, first: int = 0) -> Path:
    """Write an nnU-Net raw dataset with the cases p0_a, p1_a … or from another number on."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(first, first + n_cases):
        volume, labels = phantom(number)
        for channel in range(n_channels):
            write_volume(folder / "imagesTr" / f"p{number}_a_{channel:04d}.nii.gz", volume)
        write_labels(folder / "labelsTr" / f"p{number}_a.nii.gz", labels, volume)
    description = {
        "name": "balls",
        "channel_names": {str(channel): "MR" for channel in range(n_channels)},
        "labels": {"background": 0, "bright": 1, "dim": 2},
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
        "licence": "CC0",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """An nnU-Net raw dataset of five balls."""
    return write_raw(tmp_path / "raw")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return Workspace.create(tmp_path / "work")


@pytest.fixture
def edit_description(raw: Path) -> Callable[..., None]:
    """Change keys of the dataset's dataset.json; None removes one."""

    def edit(**changes: object) -> None:
        data = {**json.loads((raw / "dataset.json").read_text("utf-8")), **changes}
        kept = {key: value for key, value in data.items() if value is not None}
        (raw / "dataset.json").write_text(json.dumps(kept))

    return edit


@pytest.fixture(scope="session")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the task balls; shared, so tests that change it copy it."""
    folder = tmp_path_factory.mktemp("balls")
    workspace = Workspace.create(folder / "work")
    add_task(workspace, read_source(write_raw(folder / "raw")), TaskOptions(spacing_mm=(2, 2, 2)))
    return Workspace.open(workspace.folder)
