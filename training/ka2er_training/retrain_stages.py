"""The stages of a round, each a function of the round that returns plain data.

Every stage may be called again after it was broken off: it finds its own half-done work.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.evaluate import summarise
from ka2er_training.evaluate_workspace import part_of
from ka2er_training.expert_retraining import candidate_folder, retrain_expert
from ka2er_training.gate_distilled import look_without_experts, with_look
from ka2er_training.ingest import ingest
from ka2er_training.ingest_plan import plan_ingest
from ka2er_training.registry import student_folder, tasks_of
from ka2er_training.retrain_estimates import affected, estimate
from ka2er_training.round_outcome import stop_of
from ka2er_training.round_state import round_folder
from ka2er_training.round_student import make_student
from ka2er_training.scoring import forget_masks
from ka2er_training.scratch_experts import expert_from_scratch
from ka2er_training.trying import try_expert, try_student
from ka2er_training.workspace import read_json, write_json
from napari_ka2er.core.io.atomic import remove
from napari_ka2er.core.package import read_package
from napari_ka2er.core.student_card import read_student_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from ka2er_training.round_state import RoundState
    from ka2er_training.trying import Decision
    from ka2er_training.workspace import Workspace

    Progress = Callable[[float, str], None]

logger = logging.getLogger(__name__)

_KEPT = "kept its old weights: "


@dataclass(frozen=True, slots=True)
class RoundWork:
    """A round and how to work on it.

    Parameters
    ----------
    workspace : Workspace
        Where.
    state : RoundState
        Which round, and what is done of it.
    device : str
        ``"cpu"``, ``"cuda"`` …
    progress, cancelled : callable, optional
        Of the stage.
    executor : str
        ``"local"`` or ``"slurm"``: train in jobs; empty: in this process.
    """

    workspace: Workspace
    state: RoundState
    device: str = "cpu"
    progress: Progress | None = None
    cancelled: Callable[[], bool] | None = None
    executor: str = ""

    @property
    def folder(self) -> Path:
        """The round's folder."""
        return round_folder(self.workspace, self.state.number)

    @property
    def hooks(self) -> dict[str, Any]:
        """Progress and cancellation, as most functions take them."""
        return {"progress": self.progress, "cancelled": self.cancelled}

    def part(self, i: int, n: int) -> dict[str, Any]:
        """Return the hooks of the i-th of n equal parts of a stage."""
        told = self.progress
        if told is None:
            return self.hooks
        return {**self.hooks, "progress": lambda share, what: told((i + share) / n, what)}


def take_packages(work: RoundWork) -> dict[str, Any]:
    """Ingest the packages; where each case goes is decided once, and kept."""
    kept = work.folder / "ingest.json"
    if not kept.is_file():
        packages = [read_package(Path(p["path"])) for p in work.state.packages]
        number, to_holdout = work.state.number, work.state.options.to_holdout
        plan = plan_ingest(work.workspace, packages, number, to_holdout=to_holdout)
        write_json(kept, plan)
    taken = ingest(work.workspace, read_json(kept), **work.hooks)
    for note in taken["notes"]:
        logger.warning("%s", note)
    return taken


def plan_round(work: RoundWork) -> dict[str, Any]:
    """Decide what is trained, and estimate how long that takes."""
    counts = work.state.result("ingest")["cases"]
    tasks = affected(counts)
    names = student_tasks(work) if work.state.options.from_scratch and tasks else tasks
    experts = [t for t in names if (work.workspace.expert_folder(t) / "expert.json").is_file()]
    told = estimate(work.workspace, work.state.options, counts)
    return {"tasks": tasks, "experts": experts, "estimate": told}


def train_experts(work: RoundWork) -> dict[str, Any]:
    """Retrain the experts of the corrected tasks (all of them, from scratch)."""
    tasks = work.state.result("plan")["experts"]
    if work.executor:
        from ka2er_training.round_jobs import experts_in_jobs

        return {"experts": experts_in_jobs(work, tasks)}
    anew = work.state.options.from_scratch
    train = expert_from_scratch if anew else retrain_expert
    where = (work.workspace.folder, work.state.number)
    results = {
        task: train(*where, task, work.device, **work.part(i, len(tasks)))
        for i, task in enumerate(tasks)
    }
    return {"experts": results}


def judge_experts(work: RoundWork) -> dict[str, Any]:
    """Let every retrained expert pass its own gate; one that does not is left as it was.

    ``stopped`` says why the round ends here: an expert that has lost by its corrections, beyond
    doubt and further than it may, says that their labels are wrong, and a student would learn the
    same from them.
    """
    tasks = list(work.state.result("experts")["experts"])
    chosen, verdicts, reasons, lost = {}, {}, {}, list[str]()
    for i, task in enumerate(tasks):
        new = candidate_folder(work.workspace, work.state.number, task)
        if work.state.options.from_scratch:  # compared as a whole, by the student's gate
            chosen[task] = str(new)
            continue
        tried = try_expert(
            work.workspace, task, new, work.folder / "expert_gate" / task,
            device=work.device, **work.part(i, len(tasks)),
        )  # fmt: skip
        verdicts[task] = [verdict.to_json() for verdict in tried.tries]
        reasons[task] = tried.reason
        lost += [f"expert {t.task} lost: {t.change} Dice" for t in tried.tries[0].tasks if t.lost]
        if tried.promoted:
            chosen[task] = str(tried.folder)
        else:
            logger.info("expert %s %s%s", task, _KEPT, tried.reason)
    why = f"{'; '.join(lost)}: are the labels of these packages right?" if lost else ""
    if why:
        logger.warning("%s", why)
    why = "" if work.state.options.keep_going else why
    return {"new": chosen, "verdicts": verdicts, "reasons": reasons, "stopped": why}


def stopped(work: RoundWork) -> str:
    """Return why a round ended before its student, or nothing."""
    return stop_of(work.state)[1]


def experts_of(work: RoundWork) -> dict[str, str]:
    """Return the folder of each of the student's experts: new where it passed its gate."""
    new = work.state.result("expert_gate")["new"]
    names = student_experts(work)
    return {name: new.get(name, str(work.workspace.expert_folder(name))) for name in names}


def train_student(work: RoundWork) -> dict[str, Any]:
    """Re-amalgamate."""
    if work.executor:
        from ka2er_training.round_jobs import student_in_job

        return student_in_job(work, experts_of(work))
    return make_student(
        work.workspace.folder, work.state.number, work.state.before, experts_of(work), work.device,
        **work.hooks,
    )  # fmt: skip


def judge_student(work: RoundWork) -> dict[str, Any]:
    """Evaluate old and new on the hold-out and on held corrections, and judge."""
    candidate = Path(work.state.result("student")["folder"])
    corrected = set(work.state.result("plan")["tasks"])
    old = student_folder(work.workspace, work.state.before)
    run: dict[str, Any] = {"device": work.device, "cancelled": work.cancelled}
    tried = try_student(
        work.workspace, candidate, corrected, work.folder / "gate", current=old,
        mode=work.state.options.mode, progress=part_of(work.progress, 0.0, 0.9), **run,
    )  # fmt: skip
    result = _gate_result(tried)
    answer = work.workspace.settings.gate.distilled
    if not tried.promoted or answer == "skip" or work.state.options.mode == "distilled":
        return result
    told = part_of(work.progress, 0.9, 0.1)
    verdict = look_without_experts(work.workspace, old, tried.folder, progress=told, **run)
    return with_look(result, verdict, answer, _gate_result(tried.refused(candidate)))


def _gate_result(tried: Decision) -> dict[str, Any]:
    return {
        "promoted": tried.promoted,
        "reason": tried.reason,
        "verdicts": [verdict.to_json() for verdict in tried.tries],
        "folder": str(tried.folder),
        "masks": [(tried.after if tried.promoted else tried.before).identity],
        "metrics": [found.to_json() for found in summarise(tried.after.holdout)],
    }


def clear(work: RoundWork) -> None:
    """Remove what only the round itself needed: checkpoints, and what the version has copies of.

    Masks go too, but those of the student that is current now, which the next report shows again.
    """
    if kept := work.state.outcome("gate").get("masks"):
        forget_masks(work.workspace, kept)
    for name in ("experts_work", "expert_gate", "scratch", "student", "gate"):
        remove(work.folder / name)
    for part in ("trunk", "polish", "clicks"):
        remove(work.folder / part / "checkpoint.pt")


def student_tasks(work: RoundWork) -> list[str]:
    """Return the tasks of the student that the round goes on from."""
    return tasks_of(work.workspace, work.state.before)


def student_experts(work: RoundWork) -> list[str]:
    """Return the names of its experts."""
    config = read_student_json(student_folder(work.workspace, work.state.before))["config"]
    return [str(entry["name"]) for entry in config["experts"]]
