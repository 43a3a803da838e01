"""A student on disk: a folder with student.json, student.safetensors and the experts.

Nothing here unpickles, so a student from a stranger cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.student_card import FORMAT, FORMAT_VERSION, read_student_json
from napari_ka2er.model.config import Amalgamation, StudentConfig
from napari_ka2er.model.device import place
from napari_ka2er.model.loaded import Experts, LoadedStudent
from napari_ka2er.model.student import Student

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Index tables that SwinUNETR computes from its sizes; they would add to every file for nothing.
_DERIVED = "relative_position_index"
# What PyTorch and MONAI raise where sizes do not go together.
_UNBUILDABLE = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AssertionError)
_CARD_KEYS = ("version", "created", "lineage", "data", "metrics", "notes")


def save_student(
    folder: Path,
    student: Student,
    card: Mapping[str, Any],
    *,
    half: bool = False,
    experts: Mapping[str, Path] | None = None,
) -> None:
    """Write a student's folder; an older one at the same place is replaced as a whole.

    Parameters
    ----------
    folder : Path
        Where to.
    student : Student
        The model.
    card : mapping
        See `LoadedStudent.card`; other keys are refused.
    half : bool
        Store weights as float16.
    experts : mapping of str to Path, optional
        Folders of converted experts to copy.

    Raises
    ------
    UserError
        If the card has unknown keys, or the folder cannot be written.
    """
    unknown = set(card) - set(_CARD_KEYS)
    if unknown:
        raise UserError(f"a card with {', '.join(_CARD_KEYS)}", f"{', '.join(sorted(unknown))}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = _new_sibling(folder)
        try:
            _write(building, student, card, half)
            for name, source in (experts or {}).items():
                shutil.copytree(source, building / "experts" / name)
            _replace(building, folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise UserError(f"a place to write the student {folder}", f"{error}") from error


def _new_sibling(folder: Path) -> Path:
    return folder.parent / tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)


def _write(folder: Path, student: Student, card: Mapping[str, Any], half: bool) -> None:
    tensors = {
        name: _stored(tensor, half)
        for name, tensor in student.state_dict().items()
        if not name.endswith(_DERIVED)
    }
    weights = folder / "student.safetensors"
    save_file(tensors, weights)
    weights.chmod(0o644)  # safetensors makes files, mkdtemp folders, that only their owner can read
    folder.chmod(0o755)
    text = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "weights": {
            "sha256": sha256_of(weights),
            "dtype": "float16" if half else "float32",
            "parameters": sum(p.numel() for p in student.parameters()),
        },
        "config": student.config.to_json(),
        "card": dict(card),
    }
    (folder / "student.json").write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")


def _stored(tensor: torch.Tensor, half: bool) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    is_weight = tensor.is_floating_point()
    # A clone: safetensors refuses tensors that share memory.
    return (tensor.half() if half and is_weight else tensor).contiguous().clone()


def _replace(building: Path, folder: Path) -> None:
    """Put the new folder in the old one's place; a folder cannot be replaced in one step."""
    if not folder.exists():
        os.replace(building, folder)
        return
    aside = _new_sibling(folder)
    os.replace(folder, aside / "old")
    os.replace(building, folder)
    shutil.rmtree(aside, ignore_errors=True)


def load_student(folder: Path, device: str | torch.device = "cpu") -> LoadedStudent:
    """Load a student's folder.

    Raises
    ------
    UserError
        If it is not one, is of a newer format, no student can be built from its configuration, or
        its weights are damaged or do not fit.
    """
    text = read_student_json(folder)
    if not isinstance(text["card"], dict):
        raise UserError(
            f"a card of names and values in {folder / 'student.json'}", "something else"
        )
    config = StudentConfig.from_json(text["config"])
    path = folder / "student.safetensors"
    stored = _read_weights(path)
    digest = sha256_of(path)
    if digest != text["weights"]["sha256"]:
        raise UserError(
            f"the weights that {folder / 'student.json'} names", "others", "fetch it again"
        )
    student = _build(config, folder)
    _load_strictly(student, stored, path)
    target = torch.device(device)
    place(student, target).eval().requires_grad_(False)
    digests = {entry.name: entry.digest for entry in config.experts}
    identity = hashlib.sha256(f"{digest}{json.dumps(text['config'], sort_keys=True)}".encode())
    experts = Experts(folder, digests, target)
    return LoadedStudent(student, text["card"], experts, identity.hexdigest(), target)


def _build(config: StudentConfig, folder: Path) -> Student:
    wanted = f"a configuration that a student can be built from in {folder / 'student.json'}"
    for setting in fields(config):
        value = getattr(config, setting.name)
        if not _is_usable(value, setting.default):
            raise UserError(wanted, f"{setting.name} {value!r}"[:200])
    try:
        return Student(config)
    except UserError:
        raise
    except _UNBUILDABLE as error:
        raise UserError(wanted, f"one where {error}"[:300]) from error


def _is_usable(value: Any, usual: Any) -> bool:
    """Return whether a setting's value is of the same kind as its usual one, sizes at least 1."""
    if isinstance(usual, bool):
        return isinstance(value, bool)
    if isinstance(usual, int):
        return type(value) is int and value >= 1
    if isinstance(usual, float):
        return type(value) in (int, float)
    return not isinstance(usual, str) or value in get_args(Amalgamation)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UserError(f"weights in {path}", "no such file")
    with path.open("rb") as file:
        start = file.read(9)
    # Safetensors begin with the length of a JSON object, whose lowest byte may be a pickle's mark.
    is_safe = start[8:] == b"{"
    if not is_safe and (start[:1] == b"\x80" or start[:2] == b"PK"):
        raise UserError(
            f"safetensors in {path}", "a pickle, which could run code; it was not opened"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"safetensors in {path}", f"a damaged file ({error})") from error


def _load_strictly(student: Student, stored: dict[str, torch.Tensor], path: Path) -> None:
    own = student.state_dict()
    derived = {name: tensor for name, tensor in own.items() if name.endswith(_DERIVED)}
    given = {n: t.to(own[n].dtype) if n in own else t for n, t in stored.items()} | derived
    try:
        student.load_state_dict(given, strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(
            f"the weights of this student in {path}", f"others ({reason[:200]})"
        ) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
