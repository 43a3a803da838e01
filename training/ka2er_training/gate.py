"""The gate: whether a new student, or expert, may take the place of the old one.

A student is promoted only if corrections that no training saw are segmented better than before and
no task may have lost more than the margin.  Three things are added to that plain rule, each
because the rule alone would let something bad pass:

- With fewer than six hold-out cases the margin shrinks, see `gate_stats.allowed_loss`: an interval
  of one to three cases is no wider than the cases themselves.
- A corrected task whose own hold-out got worse beyond doubt is refused although it gains on
  corrections and stays within the margin: corrections and hold-out contradict each other, as they
  do if the corrections are wrong.
- With fewer than `MIN_HELD` corrections held from training, the gain on the task's hold-out
  counts, as one or two cases gain by chance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ka2er_training.gate_stats import (
    Bounds,
    Pair,
    allowed_loss,
    bounds,
    cases_needed,
    pairs_of,
)
from ka2er_training.verdicts import TaskVerdict, Verdict, plain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from ka2er_training.evaluate import Row
    from ka2er_training.settings import GateSettings

MIN_HELD = 3
# With fewer cases all of them get worse by chance too often (one in eight with three).
MIN_CONTRADICTING = 4
_ROUNDING = 1e-9  # a loss of exactly the margin must not depend on how it was added up


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better the corrections of one task that were held from training are found.

    Parameters
    ----------
    pairs : mapping of str to Pair
        Per case, mean Dice over labels before and after; may be empty.
    """

    pairs: Mapping[str, Pair] = field(default_factory=dict)

    @classmethod
    def of(cls, before: Iterable[Row], after: Iterable[Row]) -> Gain:
        """Return the gain from the rows of one task's held cases."""
        return cls(pairs_of(before, after))

    @property
    def mean(self) -> float:
        """The mean gain over cases; NaN without any."""
        return _mean(pair.difference for pair in self.pairs.values())


def judge(
    before: Sequence[Row],
    after: Sequence[Row],
    corrected: Collection[str],
    settings: GateSettings,
    corrections: Mapping[str, Gain] | None = None,
    *,
    tasks: Collection[str] = (),
) -> Verdict:
    """Decide whether what made the rows `after` may replace what made the rows `before`.

    A task without any hold-out case is refused: nobody could see that it was lost.

    Parameters
    ----------
    before, after : sequence of Row
        Of the old and the new student (or expert) on the same hold-out cases.
    corrected : collection of str
        Tasks whose masks were corrected in this round; empty to ask only for harm.
    settings : GateSettings
    corrections : mapping of str to Gain, optional
        Per corrected task, the corrected cases that were held from training.
    tasks : collection of str, optional
        Further tasks that both know, whether or not there are rows of them.

    Raises
    ------
    ValueError
        If the rows are not of the same cases and labels, or a task is lost.
    """
    names = list(dict.fromkeys(row.task for row in before))
    if lost := set(names) - {row.task for row in after}:
        raise ValueError(f"rows of the same tasks wanted, {sorted(lost)} only before")
    gains = corrections or {}
    verdicts = []
    for name in list(dict.fromkeys([*names, *tasks, *sorted(corrected)])):
        sides = ([row for row in rows if row.task == name] for rows in (before, after))
        gain = gains.get(name, Gain()) if name in corrected else None
        verdicts.append(_judge_task(name, pairs_of(*sides), gain, settings))
    return _together(verdicts, settings)


def _together(verdicts: Sequence[TaskVerdict], settings: GateSettings) -> Verdict:
    problems = [problem for verdict in verdicts for problem in verdict.problems]
    reason = "; ".join(problems) if problems else _praise(verdicts, settings)
    margin, confidence = settings.margin, settings.confidence
    return Verdict(not problems, reason, tuple(verdicts), margin, confidence)


def _judge_task(
    name: str, pairs: Mapping[str, Pair], gain: Gain | None, settings: GateSettings
) -> TaskVerdict:
    differences = [pair.difference for pair in pairs.values()]
    change, allowed = bounds(differences, settings), allowed_loss(len(pairs), settings)
    notes = [_power(change, allowed, settings, differences)]
    problems = []
    if not pairs:
        problems.append(f"{name} has no hold-out case: a loss could not be seen")
    elif change.low < -allowed - _ROUNDING:
        problems.append(
            f"{name} may lose more than {allowed:.3f}: lower bound {change.low:+.4f} Dice"
        )
    shown, contradicted = None, False
    if gain is not None:
        shown, where = _gain_that_counts(gain, change)
        notes.append(f"gain counted on {where}")
        if not shown > _ROUNDING:
            problems.append(f"{name} does not gain: {shown:+.4f} Dice on {where}")
        contradicted = change.n >= MIN_CONTRADICTING and change.high < -_ROUNDING
        if contradicted:
            problems.append(f"{name}: its hold-out got worse, which contradicts the corrections")
    return TaskVerdict(
        task=name, before=_mean(p.before for p in pairs.values()),
        after=_mean(p.after for p in pairs.values()), change=change, allowed=allowed,
        corrected=gain is not None, held=len(gain.pairs) if gain else 0, gain=plain(shown),
        problems=tuple(problems), contradicted=contradicted, notes=tuple(notes),
    )  # fmt: skip


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else float("nan")


def _gain_that_counts(gain: Gain, change: Bounds) -> tuple[float, str]:
    """Return the gain of a corrected task, and on which cases it was measured."""
    held = len(gain.pairs)
    if held >= MIN_HELD:
        return gain.mean, f"{held} corrected cases held from training"
    few = f"{held} corrected {'case was' if held == 1 else 'cases were'} held"
    return change.mean, f"the hold-out (only {few} from training, {MIN_HELD} are needed)"


def _gained(verdict: TaskVerdict) -> str:
    told = f"{verdict.task} gains {verdict.gain:+.4f} Dice"
    if verdict.held >= MIN_HELD:
        return told
    return f"{told} on its hold-out ({verdict.held} corrections held, {MIN_HELD} are needed)"


def _power(
    change: Bounds, allowed: float, settings: GateSettings, differences: Sequence[float]
) -> str:
    """Say what the hold-out of a task can tell."""
    if change.n == 0:
        return "no hold-out case: cannot detect anything"
    if change.n == 1:
        return (
            "1 hold-out case: cannot detect anything, as one case tells nothing about others; it "
            f"may itself not lose more than {allowed:.4f}, half the margin"
        )
    seen = f"a mean loss of {change.detectable:.4f} would be seen in 4 rounds of 5"
    text = f"{change.n} hold-out cases: {seen}"
    if allowed < settings.margin:
        text += f"; so few cases may lose at most {allowed:.4f}"
    needed = cases_needed(differences, settings)
    if change.mean - change.low > allowed and needed and needed > change.n:
        text += f"; about {needed} cases of this spread would tell a loss of the margin"
    return text


def _praise(verdicts: Sequence[TaskVerdict], settings: GateSettings) -> str:
    gains = [_gained(v) for v in verdicts if v.gain is not None]
    safe = f"no task's lower bound falls under -{settings.margin:g}"
    return "; ".join([*gains, safe])
