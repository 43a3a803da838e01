"""Copies of workspaces, so that every cell leaves what it starts from as it was."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

_CACHE = "cache"  # in runs/: features, which nobody changes once they are there


def copy_workspace(source: Path, target: Path) -> None:
    """Copy a workspace; features, which nobody changes, are linked instead if they can be."""
    ignored = shutil.ignore_patterns("*.lock")
    shutil.copytree(source, target, ignore=_all_but_cache(source, ignored), dirs_exist_ok=True)
    cache = source / "runs" / _CACHE
    if cache.exists():
        shutil.copytree(cache, target / "runs" / _CACHE, copy_function=_link)


def _all_but_cache(source: Path, ignored: Any) -> Any:
    def ignore(folder: str, names: list[str]) -> set[str]:
        found: set[str] = set(ignored(folder, names))
        return found | ({_CACHE} if Path(folder) == source / "runs" else set())

    return ignore


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copyfile(source, target)
    return target
