"""One round: packages in, experts retrained, student re-amalgamated, gate, promoted or kept."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from ka2er_training.ingest_plan import counts_of, held_notes, plan_ingest
from ka2er_training.ledger import settle_all
from ka2er_training.package_check import check_for_workspace
from ka2er_training.registry import current, settle_experts, tasks_of
from ka2er_training.retrain_estimates import affected, estimate
from ka2er_training.round_outcome import summary
from ka2er_training.round_preset import with_preset
from ka2er_training.round_state import (
    LOCK,
    NOTHING,
    RoundOptions,
    RoundState,
    new_round,
    now,
    unfinished,
)
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.package import read_package

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ka2er_training.retrain_stages import RoundWork

    Progress = Callable[[float, str], None]

logger = logging.getLogger(__name__)

# Which share of the whole each stage is, for one progress bar.
SHARES = {
    "ingest": 0.02,
    "plan": 0.01,
    "labels": 0.03,
    "experts": 0.24,
    "expert_gate": 0.07,
    "student": 0.45,
    "gate": 0.14,
    "decide": 0.01,
    "report": 0.03,
}
_TRAINING = ("experts", "expert_gate", "student", "gate")  # not once a stage has ended the round


def retrain(
    folder: Path,
    packages: Sequence[Path],
    options: RoundOptions | None = None,
    *,
    resume: bool = False,
    device: str = "cpu",
    executor: str = "",
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Take packages, retrain, and let the gate decide; see docs/retraining.md.

    The current student stays as it is until the gate has passed the new one.

    Parameters
    ----------
    folder : Path
        The workspace.
    packages : sequence of Path
        At least one; with `resume` none, or the same.
    options : RoundOptions, optional
        Lengths and kinds; with `resume` those of the broken round count.
    resume : bool
        Go on with the round that was broken off.
    device : str
        Where to train.
    executor : str
        ``"local"`` or ``"slurm"``: experts and student are trained in jobs, as ``[executor]`` says.
    progress, cancelled : callable, optional
        Told the share done and a line of text; asked often whether to stop.

    Returns
    -------
    dict
        Plain data: ``round``, ``status`` (``"promoted"``, ``"refused"``, ``"nothing to train"``),
        ``reason``, ``refused_by`` (as `ka2er_training.round_outcome.refused_by` says), ``before``,
        ``version`` (None if no student was made), ``report``, ``seconds``, ``stages``, ``notes``.

    Raises
    ------
    UserError
        If an option is unusable, a package cannot be taken, there is no student, the gate could
        only refuse, another retraining is at work, or one was broken off and `resume` is False.
    CancelledError
        If `cancelled` said so; the round can be resumed.
    """
    from ka2er_training.retrain_stages import RoundWork

    workspace = Workspace.open(folder)
    with workspace.lock(LOCK):
        state = _begin(workspace, packages, options or RoundOptions(), resume)
        _run(RoundWork(workspace, state, device, progress, cancelled, executor))
    return summary(workspace, state)


def dry_run(folder: Path, packages: Sequence[Path], options: RoundOptions) -> dict[str, Any]:
    """Return what `retrain` would do and how long that would take; nothing changes.

    Raises
    ------
    UserError
        If an option is unusable, a package cannot be taken, there is no student, or the gate could
        only refuse.
    """
    workspace = Workspace.open(folder)
    before = _require_student(workspace)
    options = with_preset(workspace, options)
    plan = _checked(workspace, packages, options, before)
    counts = counts_of(plan)
    told = estimate(workspace, options, counts)
    notes = held_notes(workspace, plan)
    tasks = affected(counts)
    return {"before": before, "cases": counts, "tasks": tasks, "notes": notes, "estimate": told}


def _begin(
    workspace: Workspace, packages: Sequence[Path], options: RoundOptions, resume: bool
) -> RoundState:
    """Return the round to work on: the broken one, or a new one of checked packages."""
    broken = unfinished(workspace)
    if resume:
        return _resumed(workspace, broken, packages)
    if broken is not None:
        got = f"round {broken.number}, which was broken off"
        raise UserError("no unfinished round", got, "give --resume, or --abandon to give it up")
    before = _require_student(workspace)
    options = with_preset(workspace, options)
    _checked(workspace, packages, options, before)
    settle_experts(workspace)
    digests = [{"path": str(p.absolute()), "digest": read_package(p).digest} for p in packages]
    return new_round(workspace, options, digests, before)


def _resumed(
    workspace: Workspace, broken: RoundState | None, packages: Sequence[Path]
) -> RoundState:
    if broken is None:
        raise UserError(f"a broken round in {workspace.folder}", "none", "leave out --resume")
    known = {package["digest"] for package in broken.packages}
    if other := [path for path in packages if read_package(path).digest not in known]:
        raise UserError(f"the packages of round {broken.number}", f"{other[0]}", "give none")
    settle_all(workspace)
    settle_experts(workspace)
    _require_same_student(workspace, broken)
    logger.info("going on with round %d", broken.number)
    return broken


def _require_same_student(workspace: Workspace, broken: RoundState) -> None:
    """Refuse to train for hours towards a student that could not be promoted in the end.

    After the gate there is nothing left to train, and the decision says what became of it.
    """
    now_current = current(workspace)
    if now_current == broken.before or "gate" in broken.stages:
        return
    wanted = f"{broken.before}, from which round {broken.number} goes on, as the current student"
    remedy = f"ka2er promote {workspace.folder} {broken.before}, or give the round up: --abandon"
    raise UserError(wanted, f"{now_current}", remedy)


def _require_student(workspace: Workspace) -> str:
    version = current(workspace)
    if version is None:
        raise UserError(f"a student in {workspace.folder}", "none", "make one: ka2er amalgamate")
    return version


def _checked(
    workspace: Workspace, packages: Sequence[Path], options: RoundOptions, before: str
) -> list[dict[str, Any]]:
    """Return where the packages' cases would go; whatever forbids the round is said before it."""
    options.check()
    _check(workspace, packages, options)
    given = [read_package(path) for path in packages]
    plan = plan_ingest(workspace, given, 0, to_holdout=options.to_holdout)
    _require_judgeable(workspace, counts_of(plan), before)
    return plan


def _require_judgeable(
    workspace: Workspace, counts: dict[str, dict[str, int]], before: str
) -> None:
    """Refuse a round that the gate could only refuse, after hours of training.

    Where nothing is trained there is no gate, and a package may bring the hold-out that lacks.
    """
    tasks, known = affected(counts), tasks_of(workspace, before)
    if not tasks:
        return
    if new := [name for name in tasks if name not in known]:
        wanted = f"packages of tasks that {before} knows ({', '.join(known)})"
        remedy = f"make a student with it: ka2er amalgamate {workspace.folder}, then ka2er promote"
        raise UserError(wanted, new[0], remedy)
    held = {name for name, splits in counts.items() if "holdout" in splits}
    held |= {name for name in workspace.tasks if workspace.holdout_cases(name)}
    if bare := [name for name in known if name in workspace.tasks and name not in held]:
        remedy = (
            "the gate would refuse any student; give a package of new patients of that task, "
            "reviewed whole, with --to-holdout: some of them become its hold-out"
        )
        raise UserError(f"a hold-out case of every task of {before}", f"none of {bare[0]}", remedy)


def _check(workspace: Workspace, packages: Sequence[Path], options: RoundOptions) -> None:
    """Refuse packages that the workspace cannot take, with all reasons."""
    if not packages:
        raise UserError("at least one package", "none")
    found = 0
    for path in packages:
        problems = check_for_workspace(workspace, path, to_holdout=options.to_holdout)
        for problem in problems:
            logger.error("%s: %s", path, problem)
        found += len(problems)
    if found:
        raise UserError(
            "packages that the workspace can take",
            f"{found} problem{'s' * (found > 1)}, listed above",
        )


def _run(work: RoundWork) -> None:
    """Do the stages that are not done."""
    from ka2er_training import retrain_stages as stages
    from ka2er_training.belonging_stage import check_labels
    from ka2er_training.retrain_decision import decide
    from ka2er_training.round_record import write_report

    state = work.state
    works = {
        "ingest": stages.take_packages,
        "plan": stages.plan_round,
        "labels": check_labels,
        "experts": stages.train_experts,
        "expert_gate": stages.judge_experts,
        "student": stages.train_student,
        "gate": stages.judge_student,
        "decide": decide,
        "report": write_report,
    }
    done = 0.0
    for name, do in works.items():
        if work.cancelled and work.cancelled():
            raise CancelledError
        if _is_due(work, name):
            _stage(work, name, do, done)
        done += SHARES[name]
    state.status = state.outcome("decide").get("status", NOTHING)
    state.finished = now()
    stages.clear(work)
    state.save(work.workspace)


def _is_due(work: RoundWork, name: str) -> bool:
    """Return whether a stage has anything to do in this round."""
    from ka2er_training.retrain_stages import stopped

    if stopped(work):
        return name not in _TRAINING
    return name not in (*_TRAINING, "decide") or bool(work.state.result("plan")["tasks"])


def _stage(
    work: RoundWork, name: str, do: Callable[[RoundWork], dict[str, Any]], done: float
) -> None:
    """Do one stage, with its share of the progress bar."""
    told = work.progress
    if told:
        told(done, name.replace("_", " "))
        share = SHARES[name]
        work = dataclasses.replace(
            work, progress=lambda part, what: told(done + share * part, f"{name}: {what}")
        )
    if name not in work.state.stages:
        logger.info("round %d: %s", work.state.number, name.replace("_", " "))
    work.state.run(work.workspace, name, lambda: do(work))
