"""What a resumed training must have in common with the one that was broken off.

Checkpoints fit any student of the same sizes.  One of other data, experts or seed would be taken
over as it is, and the new student's card would tell a lineage that is not its own.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ka2er_training.distributed import shared_batch
from ka2er_training.workspace import read_json, write_json
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ka2er_training.recipe import Ingredients, Recipe

STAGES = ("trunk", "polish", "clicks")
_FILE = "identity.json"


def identity_of(ingredients: Ingredients, recipe: Recipe) -> dict[str, Any]:
    """Return what decides the numbers of an amalgamation, each part by itself; plain data.

    Volumes count by name and by the size of their files: their content is in the digests by which
    features are cached, and reading it all only to compare takes minutes.  Processes count by the
    windows that they draw in a step together.
    """
    foundation = recipe.foundation
    parent = recipe.parent / "student.safetensors" if recipe.parent else None
    schedules = ("schedule", "polish", "clicks")
    sizes = asdict(recipe.sizes)
    windows = [shared_batch(sizes[name]["batch"]) for name in schedules]
    # When checkpoints are written changes no number, and batches are told below, as windows.
    without = {"checkpoint_every": None, "batch": None}
    sizes.update({name: {**sizes[name], **without} for name in schedules})
    return {
        "tasks": {
            name: [task.to_json(), list(spacing)]
            for name, (task, spacing) in ingredients.tasks.items()
        },
        "experts": [
            [expert.digest, expert.token_centres, expert.entry["mirroring"]]
            for expert in ingredients.experts
        ],
        "volumes": sorted(
            [s.task, s.name, *(p.stat().st_size if p else 0 for p in (s.image, s.label))]
            for s in ingredients.sources
        ),
        "foundation": _digest(foundation) if foundation else None,
        **({"student to begin with": _digest(parent)} if parent else {}),
        "settings": [sizes, asdict(recipe.teaching), recipe.amalgamation],
        "windows per step": windows,
    }


def begin(folder: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
    """Prepare a run's folder: for a new run empty it, for a resumed one see that it is the same.

    Parameters
    ----------
    folder : Path
        Holds a folder per stage, see `STAGES`.
    identity : mapping
        What `identity_of` returned.
    resume : bool
        Go on where a run in this folder stopped.

    Raises
    ------
    UserError
        If that was another run.  One of before there were such files is taken for the same.
    """
    told, wanted = folder / _FILE, {name: _short(part) for name, part in identity.items()}
    if not resume:
        for stage in STAGES:
            shutil.rmtree(folder / stage, ignore_errors=True)
    elif told.is_file() and (known := read_json(told)) != wanted:
        changed = [name for name in wanted if known.get(name) != wanted[name]]
        raise UserError(
            f"the run in {folder} with the same {', '.join(wanted)}",
            f"other {', '.join(changed)} now",
            "leave --resume out to begin anew",
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(told, wanted)


def _short(part: Any) -> str:
    return hashlib.sha256(repr(part).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
