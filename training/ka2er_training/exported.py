"""What an exported student's folder is, for `ka2er info`; nothing in it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ka2er_training.workspace import read_json
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def describe_export(folder: Path) -> dict[str, Any] | None:
    """Return what a MONAI bundle or a folder with ONNX graphs says; None if it is neither.

    Raises
    ------
    UserError
        If it should be one but says nothing that can be understood.
    """
    if (folder / "configs" / "metadata.json").is_file():
        return {"monai_bundle": str(folder), **_bundle(folder / "configs"), **_files(folder)}
    if (folder / "onnx.json").is_file():
        return {"onnx": str(folder), **_object(folder / "onnx.json"), **_files(folder)}
    return None


def _bundle(configs: Path) -> dict[str, Any]:
    """Return what a bundle of anybody's says; one of ours also names student, task and mode."""
    text = _object(configs / "metadata.json")
    known = ("name", "version", "task", "description", "required_packages_version", "eval_metrics")
    found = {key: text[key] for key in known if key in text}
    ours = text.get("ka2er")
    found["exported_by_ka2er"] = ours if isinstance(ours, dict) else "no"
    try:
        outputs = text["network_data_format"]["outputs"]
        found["outputs"] = {name: dict(one["channel_def"]) for name, one in outputs.items()}
    except (KeyError, TypeError, AttributeError, ValueError):
        found["outputs"] = "not described"
    return found


def _object(path: Path) -> dict[str, Any]:
    text = read_json(path)
    if not isinstance(text, dict):
        raise UserError(f"a JSON object in {path}", f"a {type(text).__name__}")
    return text


def _files(folder: Path) -> dict[str, Any]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {"bytes": {p.relative_to(folder).as_posix(): p.stat().st_size for p in paths}}
