"""Imports run one way: core <- model <- widgets, and core, model <- training."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
GUI = {"napari", "qtpy", "magicgui", "superqt", "vispy", "PySide6", "PyQt5", "PyQt6"}
HEAVY = {"torch", "monai", "nnunetv2"}
# Folder -> what nothing in it may import, not even inside a function.
FORBIDDEN = {
    "src/napari_ka2er/core": GUI
    | HEAVY
    | {"napari_ka2er.model", "napari_ka2er.widgets", "ka2er_training"},
    "src/napari_ka2er/model": GUI | {"napari_ka2er.widgets", "ka2er_training"},
    "src/napari_ka2er/widgets": {"ka2er_training", "PySide6", "PyQt5", "PyQt6"},
    "training/ka2er_training": {"napari_ka2er.widgets", "PySide6", "PyQt5", "PyQt6"},
}


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def upward(source: str, banned: set[str]) -> set[str]:
    return {
        name
        for name in banned
        for seen in imported(ast.parse(source))
        if seen == name or seen.startswith(name + ".")
    }


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_nothing_imports_upwards(folder):
    files = sorted((TOP / folder).rglob("*.py"))
    if not files and folder.endswith("widgets"):
        pytest.skip("there are no widgets yet")
    assert files, f"{folder} is empty"
    found = {
        (path.relative_to(TOP).as_posix(), name)
        for path in files
        for name in upward(path.read_text(encoding="utf-8"), FORBIDDEN[folder])
    }
    assert not found


def test_an_upward_import_is_seen_in_every_form():
    banned = {"torch", "napari_ka2er.model"}
    assert upward("import torch.nn as nn", banned) == {"torch"}
    assert upward("def f():\n    from torch import nn", banned) == {"torch"}
    assert upward("from napari_ka2er import model", banned) == {"napari_ka2er.model"}
    assert upward("from napari_ka2er.model.student import Student", banned) == {
        "napari_ka2er.model"
    }
    assert not upward("import torchio, napari_ka2er.modelling", banned)


def modules_in(folder: str, package: str) -> list[str]:
    root = TOP / folder
    return [
        ".".join((package, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        for path in sorted(root.rglob("*.py"))
        if path.name != "__main__.py"
    ]


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after running the code."""
    code += "\nimport sys; sys.stdout.write(' '.join({m.partition('.')[0] for m in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_core_loads_neither_torch_nor_a_window():
    modules = modules_in("src/napari_ka2er/core", "napari_ka2er.core")
    assert not (GUI | HEAVY) & loaded_by("import " + ", ".join(modules))


def test_the_model_and_the_training_load_no_window():
    modules = modules_in("src/napari_ka2er/model", "napari_ka2er.model")
    modules += modules_in("training/ka2er_training", "ka2er_training")
    if find_spec("nnunetv2") is None:
        pytest.skip("needs nnunetv2, of the extra `train`")
    assert not GUI & loaded_by("import " + ", ".join(modules))


def test_help_loads_no_torch():
    code = "from ka2er_training.cli import build_parser; build_parser().format_help()"
    assert not (GUI | HEAVY) & loaded_by(code)


def test_what_napari_imports_at_start_loads_no_torch():
    modules = modules_in("src/napari_ka2er/widgets", "napari_ka2er.widgets")
    modules += [
        f"napari_ka2er.{path.stem}" for path in (TOP / "src" / "napari_ka2er").glob("_[a-z]*.py")
    ]
    assert not HEAVY & loaded_by("import " + ", ".join(modules))


def test_without_the_extras_everything_but_training_can_be_imported():
    """A plain install has no nnU-Net and no window: the student still runs, in distilled mode."""
    missing = ("nnunetv2", "submitit", "tensorboard", "napari", "PySide6", "nilearn")
    modules = modules_in("src/napari_ka2er/core", "napari_ka2er.core")
    modules += modules_in("src/napari_ka2er/model", "napari_ka2er.model")
    modules += modules_in("training/ka2er_training/commands", "ka2er_training.commands")
    needed = [name for name in modules if not name.endswith((".expert_plan", ".expert_predictor"))]
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in missing)
    loaded = loaded_by(f"import sys; {blocked}; import {', '.join(needed)}")
    assert "torch" in loaded
