"""Trying a new student, or expert, at the gate: itself, then what lies between old and new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ka2er_training.evaluate_workspace import part_of
from ka2er_training.gate import Gain, judge
from ka2er_training.interpolation import interpolate, interpolate_expert
from ka2er_training.registry import student_folder
from ka2er_training.scoring import expert_system, rows_of, student_system
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from ka2er_training.evaluate import Row
    from ka2er_training.scoring import System
    from ka2er_training.settings import GateSettings
    from ka2er_training.verdicts import Verdict
    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.config import Mode

    Progress = Callable[[float, str], None]
    Cancelled = Callable[[], bool]

SHARES = (0.75, 0.5, 0.25)


@dataclass(frozen=True, slots=True)
class Scored:
    """What one student or expert reached.

    Parameters
    ----------
    holdout : list of Row
        On the hold-out of every task.
    held : dict of str to list of Row
        Per corrected task, on the corrections that are kept from training.
    """

    holdout: list[Row]
    held: dict[str, list[Row]]


@dataclass(frozen=True, slots=True)
class Contest:
    """What the gate needs to try something new.

    Parameters
    ----------
    old, new : Path
        Folders of the one in use and of the new one.
    score : callable
        Returns the `Scored` of a folder.
    between : callable
        ``between(share, out)`` writes what lies between the two and returns its folder.
    corrected : collection of str
        Tasks that were corrected.
    settings : GateSettings
        Of the gate.
    tasks : collection of str
        All tasks that the old one knows.
    """

    old: Path
    new: Path
    score: Callable[[Path], Scored]
    between: Callable[[float, Path], Path]
    corrected: Collection[str]
    settings: GateSettings
    tasks: Collection[str]


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of it.

    Parameters
    ----------
    promoted : bool
        Whether one of them passed.
    folder : Path
        The one that passed; the new one if none did.
    reason : str
        One line.
    tries : tuple of Verdict
        In the order in which they were made: the new one, then interpolations.
    before, after : Scored
        Of the old one, and of `folder`.
    """

    promoted: bool
    folder: Path
    reason: str
    tries: tuple[Verdict, ...]
    before: Scored
    after: Scored

    @property
    def verdict(self) -> Verdict:
        """The verdict about `folder`."""
        return self.tries[-1] if self.promoted else self.tries[0]


def try_gate(contest: Contest, work: Path) -> Decision:
    """Try the new one, then interpolations with 0.75, 0.5 and 0.25 of it; the first to pass wins.

    Interpolations are not tried if corrections contradict a hold-out (`Verdict.contradicted`):
    less of something wrong would only be harder to see.  If they cannot be made, as the two are
    built differently, the reason says so.

    Parameters
    ----------
    contest : Contest
        What is tried, and how it is scored.
    work : Path
        Folder for interpolations, ``share-0.75`` and so on.
    """
    before, first = contest.score(contest.old), contest.score(contest.new)
    tries = [_judge(contest, before, first)]
    if tries[0].promoted:
        return Decision(True, contest.new, tries[0].reason, tuple(tries), before, first)
    why_not = "corrections contradict the hold-out" if tries[0].contradicted else ""
    for share in () if why_not else SHARES:
        try:
            folder = contest.between(share, work / f"share-{share}")
        except UserError as error:
            why_not = f"{error}"
            break
        after = contest.score(folder)
        tries.append(_judge(contest, before, after).with_share(share))
        if tries[-1].promoted:
            reason = f"{tries[-1].reason} (an interpolation with {share:g} of the new weights)"
            return Decision(True, folder, reason, tuple(tries), before, after)
    tail = f"no interpolation: {why_not}" if why_not else "no interpolation passed either"
    reason = f"{tries[0].reason}; {tail}"
    return Decision(False, contest.new, reason, tuple(tries), before, first)


def _judge(contest: Contest, before: Scored, after: Scored) -> Verdict:
    gains = {name: Gain.of(before.held[name], after.held[name]) for name in contest.corrected}
    rows = before.holdout, after.holdout
    return judge(*rows, contest.corrected, contest.settings, gains, tasks=contest.tasks)


def try_student(
    workspace: Workspace,
    candidate: Path,
    corrected: Collection[str],
    work: Path,
    *,
    current: Path | None = None,
    mode: Mode = "sparse",
    device: str = "cpu",
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> Decision:
    """Try a student against the current one on the hold-out of every task.

    Evaluations are kept in ``reports``, so that after a crash the same call goes on.

    Parameters
    ----------
    workspace, candidate : Workspace, Path
        Whose hold-out and held corrections; the new student's folder, with its experts.
    corrected : collection of str
        Tasks that were corrected in this round.
    work : Path
        Folder for interpolations, which bring interpolated experts.
    current : Path, optional
        Instead of the workspace's current student.
    mode, device, progress, cancelled
        How students work; told the share that is done; asked before every case.

    Raises `UserError` if the candidate lacks a task, `CancelledError` if `cancelled` says so.
    """
    old = current or student_folder(workspace)
    tasks = [name for name in student_system(old, mode).tasks if name in workspace.tasks]
    told: dict[str, Any] = {"progress": progress, "cancelled": cancelled}

    def score(folder: Path) -> Scored:
        system = student_system(folder, mode, device)
        if lost := [name for name in tasks if name not in system.tasks]:
            raise UserError(f"a student that still knows {', '.join(lost)}", f"{folder} without")
        return _scored(workspace, system, tasks, corrected, **told)

    def between(share: float, out: Path) -> Path:
        return interpolate(old, candidate, share, out)

    gate = workspace.settings.gate
    return try_gate(Contest(old, candidate, score, between, corrected, gate, tasks), work)


def try_expert(
    workspace: Workspace,
    task: str,
    new: Path,
    work: Path,
    *,
    old: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> Decision:
    """Try a retrained expert against the workspace's own (or `old`), on its own task only.

    The other parameters are those of `try_student`.
    """
    known = old or workspace.expert_folder(task)
    told: dict[str, Any] = {"progress": progress, "cancelled": cancelled}

    def score(folder: Path) -> Scored:
        system = expert_system(folder, device)
        return _scored(workspace, system, [task], [task], **told)

    def between(share: float, out: Path) -> Path:
        return interpolate_expert(known, new, share, out)

    gate = workspace.settings.gate
    return try_gate(Contest(known, new, score, between, [task], gate, [task]), work)


def _scored(
    workspace: Workspace,
    system: System,
    tasks: Sequence[str],
    corrected: Collection[str],
    *,
    progress: Progress | None,
    cancelled: Cancelled | None,
) -> Scored:
    wanted = [(name, "holdout") for name in tasks] + [(name, "held") for name in corrected]
    found: Mapping[tuple[str, str], list[Row]] = {
        (name, split): rows_of(
            workspace, system, name, split,
            progress=part_of(progress, i / len(wanted), 1 / len(wanted)), cancelled=cancelled,
        )
        for i, (name, split) in enumerate(wanted)
    }  # fmt: skip
    holdout = [row for name in tasks for row in found[name, "holdout"]]
    return Scored(holdout, {name: found[name, "held"] for name in corrected})
