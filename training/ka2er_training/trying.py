"""Trying a new student, or expert, at the gate: itself, then what lies between old and new.

Old and new are evaluated on every task's cases, each case for its own task.  An interpolation is
asked first about the tasks that stopped the try before it, then about the corrected ones, and about
no further task once it is refused: what the others would say could not let it through.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ka2er_training.evaluate_workspace import part_of
from ka2er_training.gate import Gain, judge
from ka2er_training.interpolation import interpolate, interpolate_expert
from ka2er_training.registry import student_folder
from ka2er_training.scoring import expert_system, rows_of, student_system
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
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
        On the hold-out of the tasks that it was asked about.
    held : dict of str to list of Row
        Per corrected task, on the corrections that are kept from training.
    identity : str
        Whose, as its evaluations are kept.
    """

    holdout: list[Row]
    held: dict[str, list[Row]]
    identity: str = ""

    def also(self, other: Scored) -> Scored:
        """Return both."""
        holdout = [*self.holdout, *other.holdout]
        return Scored(holdout, {**self.held, **other.held}, other.identity)


@dataclass(frozen=True, slots=True)
class Contest:
    """What the gate needs to try something new.

    Parameters
    ----------
    old, new : Path
        Folders of the one in use and of the new one.
    scorer : callable
        Takes a folder; returns a function of a task that returns the `Scored` on it.
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
    scorer: Callable[[Path], Callable[[str], Scored]]
    between: Callable[[float, Path], Path]
    corrected: Collection[str]
    settings: GateSettings
    tasks: Collection[str]

    def order(self, last: Verdict) -> list[str]:
        """Return all tasks, those first that stopped the last try, then corrected ones."""
        odd = {verdict.task for verdict in last.tasks if verdict.problems}
        return sorted(self.tasks, key=lambda name: (name not in odd, name not in self.corrected))

    def score(self, folder: Path) -> Scored:
        """Return what the one in a folder reaches on every task."""
        ask = self.scorer(folder)
        found = Scored([], {})
        for task in self.tasks:
            found = found.also(ask(task))
        return found


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
    first : Scored or None
        Of the new one itself, where an interpolation passed.
    """

    promoted: bool
    folder: Path
    reason: str
    tries: tuple[Verdict, ...]
    before: Scored
    after: Scored
    first: Scored | None = None

    def refused(self, new: Path) -> Decision:
        """Return the decision if something else stops what has passed: `new` itself, refused."""
        return replace(self, promoted=False, folder=new, after=self.first or self.after)

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
    tries = [_judge(contest, before, first, contest.tasks)]
    if tries[0].promoted:
        return Decision(True, contest.new, tries[0].reason, tuple(tries), before, first)
    why_not = "corrections contradict the hold-out" if tries[0].contradicted else ""
    for share in () if why_not else SHARES:
        try:
            folder = contest.between(share, work / f"share-{share}")
        except UserError as error:
            why_not = f"{error}"
            break
        verdict, after = _interpolated(contest, before, folder, contest.order(tries[-1]))
        tries.append(verdict.with_share(share))
        if verdict.promoted:
            reason = f"{verdict.reason} (an interpolation with {share:g} of the new weights)"
            return Decision(True, folder, reason, tuple(tries), before, after, first)
    tail = f"no interpolation: {why_not}" if why_not else "no interpolation passed either"
    reason = f"{tries[0].reason}; {tail}"
    return Decision(False, contest.new, reason, tuple(tries), before, first)


def _interpolated(
    contest: Contest, before: Scored, folder: Path, order: Sequence[str]
) -> tuple[Verdict, Scored]:
    """Judge an interpolation task by task, until it is refused or all have been asked."""
    ask, found = contest.scorer(folder), Scored([], {})
    for n, task in enumerate(order, start=1):
        found = found.also(ask(task))
        verdict = _judge(contest, before, found, order[:n])
        if not verdict.promoted:
            break
    if left := order[n:]:
        verdict = replace(verdict, reason=f"{verdict.reason} (not asked: {', '.join(left)})")
    return verdict, found


def _judge(contest: Contest, before: Scored, after: Scored, tasks: Collection[str]) -> Verdict:
    """Judge by some of the tasks."""
    # One that the old student does not know cannot be judged; the gate refuses it.
    corrected = [n for n in contest.corrected if n in tasks or n not in contest.tasks]
    both = [name for name in corrected if name in before.held]
    gains = {name: Gain.of(before.held[name], after.held[name]) for name in both}
    rows = [row for row in before.holdout if row.task in tasks]
    return judge(rows, after.holdout, corrected, contest.settings, gains, tasks=tasks)


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

    Evaluations are kept in ``reports``, case by case, so that after a crash the same call goes on
    and the current student is not evaluated again in every round.

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

    def scorer(folder: Path) -> Callable[[str], Scored]:
        system = student_system(folder, mode, device, workspace)
        if lost := [name for name in tasks if name not in system.tasks]:
            raise UserError(f"a student that still knows {', '.join(lost)}", f"{folder} without")
        return partial(_scored, workspace, system, tasks, corrected, **told)

    def between(share: float, out: Path) -> Path:
        return interpolate(old, candidate, share, out)

    gate = workspace.settings.gate
    return try_gate(Contest(old, candidate, scorer, between, corrected, gate, tasks), work)


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

    def scorer(folder: Path) -> Callable[[str], Scored]:
        system = expert_system(folder, device)
        return partial(_scored, workspace, system, [task], [task], **told)

    def between(share: float, out: Path) -> Path:
        return interpolate_expert(known, new, share, out)

    gate = workspace.settings.gate
    return try_gate(Contest(known, new, scorer, between, [task], gate, [task]), work)


def _scored(
    workspace: Workspace,
    system: System,
    tasks: Sequence[str],
    corrected: Collection[str],
    task: str,
    *,
    progress: Progress | None,
    cancelled: Cancelled | None,
) -> Scored:
    """Return what a system reaches on one of the tasks."""
    part = part_of(progress, tasks.index(task) / len(tasks), 1 / len(tasks))
    held = {}
    if task in corrected:  # first, as they are few
        held[task] = rows_of(workspace, system, task, "held", cancelled=cancelled)
    rows = rows_of(workspace, system, task, progress=part, cancelled=cancelled)
    return Scored(rows, held, system.identity)
