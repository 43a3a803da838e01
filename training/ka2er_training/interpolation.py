"""Students and experts between an old and a new one (WiSE-FT, Wortsman et al. 2022).

A retrained student often forgets a little; a point on the line between old and new weights keeps
most of what it gained and forgets less.  What is on that line:

- Weights of the student: linear.
- Experts that differ: linear too, and written under their new digest.  The student's amalgamation
  was trained on the features of its own experts; for a short retraining these change in
  proportion to the weights (to first order), so that student and experts must move together.
- Frozen statistics of experts' channels: equal ones stay as they are, others are linear, by the
  same argument; a mean of positive deviations is positive.
- Where experts' tokens look: linear, as it is measured by derivatives.
- Whole numbers and truth values: the new one's; half an index means nothing.

The gate judges what comes out like any other student; nothing here is trusted to be good.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_ka2er.core.errors import UserError
from napari_ka2er.model import expert_files
from napari_ka2er.model.checkpoint import load_student, save_student
from napari_ka2er.model.config import StudentConfig
from napari_ka2er.model.experts import Expert
from napari_ka2er.model.student import Student

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from napari_ka2er.model.loaded import LoadedStudent

_OTHER = "students of the same architecture, tasks and experts, to interpolate between"


def interpolate(old: Path, new: Path, share: float, out: Path) -> Path:
    """Write the student between two students; see the module for what that means.

    Parameters
    ----------
    old, new : Path
        Students' folders.
    share : float
        Of the new one, in (0, 1).
    out : Path
        The folder to write, and what is returned; an older one is replaced.

    Raises
    ------
    UserError
        If they are built differently, or one folder lacks an expert that was retrained.
    ValueError
        If `share` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share between 0 and 1 wanted, got {share}")
    pair = load_student(old), load_student(new)
    config = pair[1].config
    _require_same(*(_shape(one.config) for one in pair))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as workshop:
        experts = Path(workshop)
        digests = {
            entry.name: _expert_between((old, new), pair, entry.name, share, experts)
            for entry in config.experts
        }
        entries = [
            {**entry, "digest": digests[entry["name"]]} for entry in config.to_json()["experts"]
        ]
        student = Student(StudentConfig.from_json({**config.to_json(), "experts": entries}))
        states = pair[0].student.state_dict(), pair[1].student.state_dict()
        student.load_state_dict(blend(*states, share), strict=True)
        folders = {folder.name: folder for folder in experts.iterdir()}
        save_student(out, student, pair[1].card, experts=folders)
    return out


def interpolate_expert(old: Path, new: Path, share: float, out: Path) -> Path:
    """Write the expert between two converted experts, with its own digest.

    Raises
    ------
    UserError
        If they have different plans or tasks.
    """
    pair = Expert.load(old), Expert.load(new)
    _require_same(*(_fixed(one) for one in pair))
    network = pair[1].network
    states = expert_files.tensors_of(pair[0].network), expert_files.tensors_of(network)
    with torch.no_grad():
        for name, tensor in blend(*states, share).items():
            states[1][name].copy_(tensor)
    plans = expert_files.read_json(new / "plans.json")
    digest = expert_files.digest(network, plans, pair[1].plan.name)
    texts = {path.name: json.loads(path.read_text("utf-8")) for path in new.glob("*.json")}
    centres = np.array([one.entry["token_centres"] for one in pair])
    middle = (centres[0] + share * (centres[1] - centres[0])).tolist()
    texts["expert.json"] = {**pair[1].entry, "digest": digest, "token_centres": middle}
    expert_files.write_expert(out, network, texts, half=False)
    return out


def blend(old: Mapping[str, Tensor], new: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return tensors between two sets of the same names and shapes.

    Raises
    ------
    UserError
        If names or shapes differ.
    """
    _require_same(*({name: tuple(t.shape) for name, t in side.items()} for side in (old, new)))
    return {name: _between(old[name], tensor, share) for name, tensor in new.items()}


def _between(old: Tensor, new: Tensor, share: float) -> Tensor:
    if not new.is_floating_point() or torch.equal(old, new):
        return new.clone()
    return torch.lerp(old.float(), new.float(), share).to(new.dtype)


def _expert_between(
    folders: tuple[Path, Path],
    pair: tuple[LoadedStudent, LoadedStudent],
    name: str,
    share: float,
    experts: Path,
) -> str:
    """Put the expert between two students' into a folder; return its digest."""
    digests = [{entry.name: entry.digest for entry in one.config.experts}[name] for one in pair]
    is_missing = [name in one.experts.missing for one in pair]
    places = folders[0] / "experts" / name, folders[1] / "experts" / name
    if digests[0] == digests[1]:
        present = [place for place, gone in zip(places, is_missing, strict=True) if not gone]
        if present:
            shutil.copytree(present[-1], experts / name)
        return digests[1]
    if any(is_missing):
        raise UserError(f"the retrained expert {name} in both students", "a folder without it")
    return Expert.load(interpolate_expert(*places, share, experts / name)).digest


def _shape(config: StudentConfig) -> dict[str, Any]:
    """Return what must be equal: all but experts' digests and what was measured on images."""
    data = config.to_json()
    free = {"experts": {"digest"}, "tasks": {"extent_mm", "intensity"}}
    for key, names in free.items():
        data[key] = [{k: v for k, v in e.items() if k not in names} for e in data[key]]
    return {key: value for key, value in data.items() if key != "sparse_threshold"}


def _fixed(expert: Expert) -> dict[str, Any]:
    """Return what two experts must share: the task, and the plan that they were trained by."""
    name = expert.entry["configuration"]
    plans = expert_files.read_json(expert.folder / "plans.json")
    kept = {"configuration": name, "plan": plans["configurations"][name]}
    return {"task": expert.entry["task"], "experts' channels": expert.stage_channels, **kept}


def _require_same(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    if old == new:
        return
    odd = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    raise UserError(_OTHER, f"others ({', '.join(odd[:3])} differ)")
