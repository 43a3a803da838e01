"""What is installed, what is shipped and what is declared agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, requires
from itertools import chain
from pathlib import Path

import pytest
from npe2 import PluginManifest
from npe2.manifest.utils import import_python_name
from packaging.requirements import Requirement

import napari_ka2er
from napari_ka2er.core import io

TOP = Path(__file__).parents[1]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"napari_ka2er", "ka2er_training"}
# Where the optional packages of the extra `train` may be imported.
TRAIN_ONLY = ("training/ka2er_training/", "src/napari_ka2er/model/expert_")
MIB = 2**20


@pytest.fixture(scope="module")
def installed() -> PluginManifest:
    return PluginManifest.from_distribution("napari-ka2er")


def test_the_installed_manifest_is_the_one_at_the_top(installed):
    top = PluginManifest.from_file(TOP / "napari.yaml")
    assert installed.contributions == top.contributions, "stale: run `pip install -e .` again"


def test_every_command_can_be_imported(installed):
    assert installed.contributions.commands
    for command in installed.contributions.commands:
        assert callable(import_python_name(command.python_name)), command.id


def test_every_contribution_names_a_command_that_exists(installed):
    parts = installed.contributions
    known = {command.id for command in parts.commands}
    for kind in ("widgets", "readers", "writers", "sample_data"):
        used = {item.command for item in getattr(parts, kind) or ()}
        assert used <= known, kind


def test_the_manifest_names_every_format_that_is_read_and_written(installed):
    [reader] = installed.contributions.readers
    assert set(reader.filename_patterns) == {f"*{suffix}" for suffix in io.SUFFIXES}
    for writer in installed.contributions.writers:
        assert set(writer.filename_extensions) == set(io.WRITTEN_SUFFIXES), writer.command


def names_of(requirements: list[str]) -> set[str]:
    return {Requirement(text).name.lower().replace("_", "-") for text in requirements}


def imports_of(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, those for type checkers left out."""
    found = set()
    stack: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
        stack.extend(ast.iter_child_nodes(node))
    return found - OURS - set(sys.stdlib_module_names)


@cache
def distributions_used() -> dict[str, set[str]]:
    """Return each third-party distribution that the code imports, with the files that do."""
    owners = packages_distributions()
    used: dict[str, set[str]] = {}
    for root in ("src", "training"):
        for path in sorted((TOP / root).rglob("*.py")):
            for package in imports_of(path):
                # A few packages are claimed by several distributions (qtpy's bindings, namespaces).
                for owner in owners.get(package, [package]):
                    name = owner.lower().replace("_", "-")
                    used.setdefault(name, set()).add(path.relative_to(TOP).as_posix())
    return used


def test_every_import_is_declared():
    core = names_of(PROJECT["dependencies"])
    extras = PROJECT["optional-dependencies"]
    train = names_of(extras["train"])
    # Widgets run inside napari, so what napari requires is there.
    inside_napari = names_of(extras["all"]) | names_of(requires("napari") or [])
    undeclared = {}
    for name, files in distributions_used().items():
        if name in core:
            continue
        allowed = {f for f in files if name in train and f.startswith(TRAIN_ONLY)}
        allowed |= {f for f in files if name in inside_napari and "/widgets/" in f}
        if files - allowed:
            undeclared[name] = files - allowed
    assert not undeclared


def test_every_declared_dependency_is_imported():
    assert not names_of(PROJECT["dependencies"]) - set(distributions_used())


def test_a_qt_binding_is_only_in_the_extra_all():
    binding = re.compile(r"pyside|pyqt", re.IGNORECASE)
    extras = PROJECT["optional-dependencies"]
    assert not [r for r in PROJECT["dependencies"] if binding.search(r)]
    assert [name for name, part in extras.items() if any(map(binding.search, part))] == ["all"]


def test_the_constraints_are_versions_that_the_project_admits():
    lines = (TOP / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert (pinned["torch"], pinned["torchvision"]) == ("2.14.1", "0.29.1")
    texts = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    for requirement in map(Requirement, texts):
        name = requirement.name.lower().replace("_", "-")
        if name != "napari-ka2er":
            assert requirement.specifier.contains(pinned[name]), f"{requirement}: {pinned[name]}"


def test_the_versions_agree():
    version = PROJECT["version"]
    assert napari_ka2er.__version__ == version, "stale: run `pip install -e .` again"
    assert f"\n## {version}" in (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in (TOP / "CITATION.cff").read_text(encoding="utf-8")


def test_what_ships_is_small_and_holds_no_pickle():
    files = [path for path in (TOP / "sample_data").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40 * MIB
    for path in files:
        assert path.stat().st_size < 10 * MIB, path
        assert path.suffix not in {".pkl", ".pth", ".pt", ".npy", ".npz"}, path


def test_the_readme_starts_with_the_two_commands():
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    first_block = readme.split("```")[1]
    assert "make demo" in first_block
    assert "make test" in first_block


@pytest.mark.parametrize("target", ["demo", "test", "test-slow", "lint", "docs", "gl"])
def test_make_knows_the_target(target):
    run = subprocess.run(
        ["make", "--dry-run", target], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
