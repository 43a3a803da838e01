"""What a broken training of an expert goes on from, and whether it still may."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.workspace import read_json, write_json
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ka2er_training.nnunet import Job

INPUTS = "inputs.json"  # beside the checkpoints
_FINAL = "checkpoint_final.pth"
_CHECKPOINTS = (_FINAL, "checkpoint_latest.pth", "checkpoint_best.pth")
# Of a preset: a longer schedule goes on from a shorter one; when checkpoints are written is free.
_FREE = ("epochs", "save_every")
_SHOWN = 3  # cases that a message names


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of the highest epoch, of equal ones the final; None if there is none.

    The final one is not always the youngest: while a finished training is extended, it is that of
    the shorter schedule.
    """
    found = [folder / name for name in _CHECKPOINTS if (folder / name).is_file()]
    if len(found) < 2:
        return found[0] if found else None
    epochs = [epoch_of(path) for path in found]
    if None in epochs:  # then the order in which they were written has to do
        return max(found, key=lambda path: path.stat().st_mtime_ns)
    return max(zip(found, epochs, strict=True), key=lambda pair: pair[1] or 0)[0]


def make_final(checkpoint: Path) -> None:
    """Let the checkpoint of a training's last epoch be its final one.

    nnU-Net writes the final one after the last epoch's; a process killed between the two has left
    nothing to train and nothing to convert.
    """
    final = checkpoint.with_name(_FINAL)
    if checkpoint != final:
        with replacing(final) as partial:
            shutil.copyfile(checkpoint, partial)


def epoch_of(checkpoint: Path) -> int | None:
    """Return how many epochs a checkpoint has seen, or None if only its code could tell.

    The file is mapped, so that no weights are read; NumPy's numbers, which nnU-Net's log holds, are
    all that is built besides PyTorch's own.
    """
    import numpy as np
    import torch

    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    harmless: list[Any] = [np.dtype, np.float64(0).__reduce__()[0], *kinds]
    try:
        with torch.serialization.safe_globals(harmless):
            data = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return int(data["current_epoch"])
    except (pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, LookupError):
        return None


def inputs_of(job: Job) -> dict[str, Any]:
    """Return all that a training depends on, but its length; plain data, as JSON gives it back.

    Of the dataset only what is trained on: hold-out cases and a licence may change meanwhile.
    """
    dataset = Path(job.workspace, "datasets", job.dataset)
    told, cases = (read_json(dataset / name) for name in ("dataset.json", "cases.json"))
    training = [case for case in cases["cases"] if case["split"] == "training"]
    preset = {name: value for name, value in asdict(job.preset).items() if name not in _FREE}
    return {
        "cases": {case["id"]: f"{case['image']} {case['label']}" for case in training},
        "labels": told["labels"],
        "channels": told["channel_names"],
        "nnunetv2": version("nnunetv2"),
        "loss": job.loss,
        "spacing_mm": list(job.spacing_mm) if job.spacing_mm else None,
        **preset,
    }


def write_inputs(folder: Path, job: Job) -> None:
    """Note in a new fold what its training depends on."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / INPUTS, inputs_of(job))


def check_inputs(folder: Path, job: Job) -> None:
    """Refuse to go on with a training that began with other data or settings.

    A fold without a note is one of an older version, and is taken as it is.

    Raises
    ------
    UserError
        With what changed.
    """
    if not (folder / INPUTS).is_file():
        return
    if changed := changes(read_json(folder / INPUTS), inputs_of(job)):
        raise UserError(
            "the data and settings that the training began with, to resume it",
            f"others: {'; '.join(changed)}",
            "train without --resume",
        )


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two results of `inputs_of`, in words."""
    names = [name for name in {**before, **now} if name != "cases"]
    settings = [
        f"{name} {now.get(name)}, was {before.get(name)}"
        for name in names
        if before.get(name) != now.get(name)
    ]
    return [*_case_changes(before["cases"], now["cases"]), *settings]


def _case_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    found = {
        "gone": sorted(set(before) - set(now)),
        "new": sorted(set(now) - set(before)),
        "changed": sorted(name for name in set(now) & set(before) if now[name] != before[name]),
    }
    return [f"{_some(names)} {what}" for what, names in found.items() if names]


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    return f"{'case' if len(names) == 1 else 'cases'} {', '.join(names[:_SHOWN])}{more}"
