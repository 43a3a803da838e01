"""Where a student comes from: what goes into its card, so that anyone can follow it back."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ka2er_training.verdicts import Verdict

_PATIENCE_S = 10


def lineage_of(
    parent: str | None,
    experts: Mapping[str, str],
    *,
    packages: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    seeds: Mapping[str, int] | None = None,
    verdict: Verdict | None = None,
    number: int | None = None,
) -> dict[str, Any]:
    """Return a student's lineage for its card, as plain data, with this program's version.

    Parameters
    ----------
    parent : str or None
        Version that it was trained on from; None from scratch.
    experts : mapping of str to str
        Per task, the expert's digest.
    packages : sequence of str
        Digests of the packages that came in.
    settings : mapping, optional
        What it was trained by: steps, rates, shares.
    seeds : mapping of str to int, optional
        Of everything random.
    verdict : Verdict, optional
        The gate's.
    number : int, optional
        Of the round.
    """
    return {
        "parent": parent,
        "experts": dict(experts),
        "packages": list(packages),
        "round": number,
        "settings": dict(settings or {}),
        "seeds": dict(seeds or {}),
        "code": code_version(),
        "verdict": None if verdict is None else verdict.to_json(),
    }


def code_version() -> dict[str, Any]:
    """Return the package's version and, in a checkout, the commit and whether files were changed.

    Outside a checkout, or without git, ``commit`` and ``changed`` are None.
    """
    found: dict[str, Any] = {"version": version("napari-ka2er"), "commit": None, "changed": None}
    folder = Path(__file__).resolve().parent
    commit = _git(folder, "rev-parse", "HEAD")
    # A folder inside somebody else's repository, as site-packages may be, is no checkout of ours.
    if commit and _git(folder, "ls-files", Path(__file__).name):
        found["commit"] = commit
        found["changed"] = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    return found


def _git(folder: Path, *arguments: str) -> str:
    """Return what git says, or nothing."""
    git = shutil.which("git")
    if git is None:
        return ""
    try:
        command = [git, "-C", str(folder), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
