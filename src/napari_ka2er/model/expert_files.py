"""An expert on disk: expert.json, expert.safetensors, plans.json, dataset.json; never a pickle."""

from __future__ import annotations

import hashlib
import importlib
import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from napari_ka2er.model.expert_plan import Plan

FORMAT_VERSION = 1
_ENTRIES = ("task", "digest", "configuration", "trainer", "mirroring", "token_centres")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    UserError
        If the file is missing or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"a JSON file {path.name}", f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"a JSON object in {path}", f"a {type(data).__name__}")
    return data


def read_entry(folder: Path) -> dict[str, Any]:
    """Read expert.json.

    Raises
    ------
    UserError
        If the folder is not an expert's, of another version, or its entries are of no use.
    """
    path = folder / "expert.json"
    if not path.is_file():
        remedy = "convert a trained nnU-Net v2 model folder with: ka2er expert add"
        raise UserError("an expert's folder with expert.json", f"{folder}", remedy)
    entry = read_json(path)
    if entry.get("format") != FORMAT_VERSION:
        raise UserError(f"format {FORMAT_VERSION} in {path}", f"{entry.get('format')}")
    if missing := [key for key in _ENTRIES if key not in entry]:
        raise UserError(f"{', '.join(missing)} in {path}", "none")
    _check_entry(entry, path)
    return entry


def _check_entry(entry: Mapping[str, Any], path: Path) -> None:
    centres, axes = entry["token_centres"], entry["mirroring"] or []
    are_triples = isinstance(centres, list) and all(_is_numbers(c) and len(c) == 3 for c in centres)
    if not are_triples or not _is_numbers(axes) or not set(axes) <= {0, 1, 2}:
        wanted = f"a triple of numbers per stage as token_centres, and axes as mirroring, in {path}"
        raise UserError(wanted, f"{centres} and {axes}"[:200])
    for key in ("digest", "configuration", "trainer"):
        if not isinstance(entry[key], str):
            raise UserError(f"a text as {key} in {path}", f"{entry[key]}"[:200])


def _is_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, int | float) for value in values)


def open_plan(plans: dict[str, Any], dataset: dict[str, Any], configuration: str) -> Plan:
    """Return nnU-Net's plan of a configuration.

    Raises
    ------
    UserError
        If nnunetv2 is not installed, or the plan cannot be used; see
        `napari_ka2er.model.expert_plan.Plan`.
    """
    try:
        module = importlib.import_module("napari_ka2er.model.expert_plan")
    except ModuleNotFoundError as error:
        remedy = 'pip install ".[train]" in the clone'
        got = f"no module {error.name}"
        raise UserError("nnunetv2, which runs the experts", got, remedy) from error
    plan: Plan = module.Plan(plans, dataset, configuration)
    return plan


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, each once.

    A state dict of nnU-Net holds the encoder twice, as the decoder points to it, and the layers of
    each block twice; safetensors refuses tensors that share memory.
    """
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def digest(network: nn.Module, plans: Mapping[str, Any], configuration: str) -> str:
    """Return the SHA-256 of what decides an expert's features.

    Covers the configuration's name, the plans as JSON with sorted keys, and every tensor's name,
    shape and values as little-endian float32, so that it does not depend on the type they are
    stored in (rounding to float16 makes another expert, with another digest).
    """
    canonical = json.dumps(plans, sort_keys=True, separators=(",", ":"))
    sha = hashlib.sha256(f"{configuration}\n{canonical}\n".encode())
    for name, tensor in sorted(tensors_of(network).items()):
        sha.update(f"{name} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().float().numpy().astype("<f4").data)
    return sha.hexdigest()


def write_expert(
    out: Path, network: nn.Module, texts: Mapping[str, Mapping[str, Any]], *, half: bool
) -> None:
    """Write an expert's folder; it appears whole or not at all.

    Parameters
    ----------
    out : Path
        The folder; an expert that is already there is replaced.
    network : nn.Module
        Its weights are stored.
    texts : mapping
        File name to content, as JSON can hold it.
    half : bool
        Store float16.

    Raises
    ------
    UserError
        If there is already something else, or the system refuses to write; what was there stays.
    """
    if not _is_free(out):
        raise UserError("a new folder or an expert to replace", f"{out}", "choose another")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as building:
            building.mkdir()
            _write(building, network, texts, half)
    except (OSError, SafetensorError) as error:
        remedy = "check permissions and free space"
        raise UserError(f"a place to write the expert {out}", f"{error}", remedy) from error


def _write(
    folder: Path, network: nn.Module, texts: Mapping[str, Mapping[str, Any]], half: bool
) -> None:
    tensors = {
        name: (t.half() if half and t.is_floating_point() else t).contiguous()
        for name, t in tensors_of(network).items()
    }
    weights = folder / "expert.safetensors"
    save_file(tensors, weights)
    weights.chmod(0o644)  # safetensors makes files that only their owner can read
    for name, data in texts.items():
        (folder / name).write_text(json.dumps(data, indent=2), encoding="utf-8")


def _is_free(out: Path) -> bool:
    if not out.exists() or (out / "expert.json").is_file():
        return True
    return out.is_dir() and not any(out.iterdir())


def fill_weights(network: nn.Module, path: Path) -> None:
    """Set a network's weights, as float32, from a file that `write_expert` wrote.

    Raises
    ------
    UserError
        If the file cannot be read or belongs to another network.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"an expert's weights {path}", f"{error}") from error
    own = tensors_of(network)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in stored.items()}:
        wanted = f"weights of the network in {path.parent / 'plans.json'}"
        raise UserError(wanted, f"those of another in {path}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])
