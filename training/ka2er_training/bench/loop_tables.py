"""The loop's tables; what is not finished is missing, not zero."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.bench.loop_entries import (
    ACCEPTED,
    ARMS,
    DISPUTED,
    NO_CHANGE,
    ONLY,
    OURS,
    PARTIAL,
    SCRATCH,
    WHOLE,
)
from ka2er_training.bench.stats import bootstrap, compare
from ka2er_training.bench.tables import MISSING, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ka2er_training.bench.loop_results import LoopResults

# What counts as good when clicks are counted, besides the settings' own, and after how many clicks
# Dice is told.
GOALS = (0.8, 0.85)
CLICKS = (0, 5, 10)
INTERVALS = (
    "Mean over the labels within a case and over the hold-out cases [95 % bootstrap interval over "
    "cases], number of cases. One case has no interval."
)


def dice_cell(values: Mapping[str, float]) -> str:
    """Return a mean with its interval and number of cases."""
    if not values:
        return MISSING
    interval = bootstrap(list(values.values()))
    return f"{interval}, n={interval.n}"


def change_cell(after: Mapping[str, float], before: Mapping[str, float]) -> str:
    """Return a paired mean difference with its interval."""
    if not after or not before:
        return MISSING
    difference = compare(after, before).difference
    if np.isnan(difference.low):
        return f"{difference.mean:+.3f}"
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def round_table(results: LoopResults, tasks: Sequence[str]) -> Table:
    """Return Dice per task after every round of the loop."""
    rows = []
    for number, arm in results.curve():
        told = results.results("state", arm=arm, round=number)
        decided = ", ".join(_decision(one) for one in told)
        rows.append(
            (str(number), *(dice_cell(results.dice(t, arm, number)) for t in tasks), decided)
        )
    note = f"Of the student that is current after the round. {INTERVALS}"
    return Table(
        "Dice on the hold-out, round by round", ("round", *tasks, "gate"), tuple(rows), note
    )


def _decision(result: Mapping[str, Any]) -> str:
    if "promoted" not in result:
        return "start"
    return "promoted" if result["promoted"] else f"refused: {result['reason']}"


def arm_table(results: LoopResults, tasks: Sequence[str]) -> Table:
    """Return Dice per task of the four arms after the last round, and the change from the start."""
    last = max((entry.round for entry in results.entries), default=0)
    rows = []
    for arm in ARMS:
        number = 0 if arm == NO_CHANGE else last
        for what in ("Dice", "change"):
            cells = []
            for task in tasks:
                after = results.dice(task, arm, number)
                before = results.dice(task, NO_CHANGE, 0)
                cells.append(dice_cell(after) if what == "Dice" else change_cell(after, before))
            if what == "Dice" or arm != NO_CHANGE:
                rows.append((arm, what, *cells))
    note = (
        f"After round {last}. Changes are paired by case, against no change. *{SCRATCH}*: experts "
        "and student with the start's budget on the start's cases and all corrections. "
        f"*{ONLY}*: the rounds' own corrections alone, and the gate is not asked. *{OURS}*: the "
        f"loop as it is. {INTERVALS}"
    )
    return Table("Four arms", ("arm", "", *tasks), tuple(rows), note)


def work_table(results: LoopResults) -> Table:
    """Return what the annotator did in every round, and clicks on the hold-out."""
    rows = []
    last = max((entry.round for entry in results.entries), default=0)
    for number in range(1, last + 1):
        found = results.results("annotation", arm=OURS, round=number)
        cases = [case for result in found for case in result["cases"]]
        if cases:
            rows.append((str(number), *_work(cases)))
    dice = ("Dice as the student left it", "after clicks", "after painting")
    spent = ("clicks", "strokes", "minutes per case", "seconds to 0.90")
    head = ("round", "cases", *dice, *spent)
    note = (
        "Per new case, before the round's training; seconds are simulated (`effort.py`), and to "
        "0.90 means: until every label had it, median over the cases that got there and their "
        "number."
    )
    return Table("The annotator's work", head, tuple(rows), note)


def _work(cases: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    def mean(key: str) -> float:
        return float(np.mean([case[key] for case in cases]))

    reached = [c["seconds_until"]["0.90"] for c in cases]
    reached = [seconds for seconds in reached if seconds is not None]
    until = f"{np.median(reached):.0f} ({len(reached)} of {len(cases)})" if reached else "none"
    return (
        str(len(cases)),
        *(f"{mean(f'dice_{when}'):.3f}" for when in ("automatic", "clicked", "painted")),
        f"{mean('n_clicks'):.1f}",
        f"{mean('n_strokes'):.1f}",
        f"{mean('seconds') / 60:.1f}",
        until,
    )


def click_table(results: LoopResults) -> Table:
    """Return the clicks that a label of the hold-out takes, and what they reach, round by round."""
    goals = (*(goal for goal in GOALS if goal < results.good_dice), results.good_dice)
    start = [results.clicks(NO_CHANGE, 0, goal) for goal in goals]
    rows = []
    for number, arm in results.curve():
        values = [results.clicks(arm, number, goal) for goal in goals]
        if values[0]:
            after = (results.clicked(arm, number, n) for n in CLICKS)
            dice = (f"{np.mean(list(one.values())):.3f}" for one in after)
            counts = (_clicks(*pair, arm) for pair in zip(values, start, strict=True))
            rows.append((str(number), str(len(values[0])), *dice, *counts))
    head = (
        "after round", "labels", *(f"Dice after {n} clicks" for n in CLICKS),
        *(f"clicks to {goal:.2f} (change)" for goal in goals),
    )  # fmt: skip
    note = (
        "Of the corrected task, clicks only; a label that is not good after the last click counts "
        "as one more. Changes are paired, against the start."
    )
    return Table("Clicks on the hold-out", head, tuple(rows), note)


def _clicks(values: Mapping[str, float], start: Mapping[str, float], arm: str) -> str:
    mean = f"{np.mean(list(values.values())):.2f}"
    return mean if arm == NO_CHANGE else f"{mean} ({change_cell(values, start)})"


def time_table(results: LoopResults) -> Table:
    """Return what a round takes, beside the start and training from scratch."""
    last = max((entry.round for entry in results.entries), default=0)
    whole = [results.seconds(arm, n) for arm, n in ((NO_CHANGE, 0), (SCRATCH, last))]
    rows = []
    for arm, number in (
        (NO_CHANGE, 0), (SCRATCH, last), *((OURS, n) for n in range(1, last + 1)),
    ):  # fmt: skip
        cpu, wall = (results.seconds(arm, number, kind) for kind in ("cpu_s", "seconds"))
        if cpu is None or wall is None:
            continue
        shares = (f"{100 * cpu / one:.0f} %" if one else MISSING for one in whole)
        name = {NO_CHANGE: "start", SCRATCH: arm}.get(arm, f"round {number}")
        rows.append((name, f"{cpu:.0f}", f"{wall:.0f}", *shares, _where(results, arm, number)))
    head = ("", "CPU s", "wall s", "share of the start", "share of from scratch", "where (CPU s)")
    note = (
        "A round is everything from the packages to the report, the gate's evaluations too; the "
        "start and from scratch are the trainings alone. Wall time was shared with other work."
    )
    return Table("What a round takes", head, tuple(rows), note)


def _where(results: LoopResults, arm: str, number: int) -> str:
    """Return the stages that took most."""
    stages: Counter[str] = Counter()
    found = results.results("state", arm=arm, round=number)
    for result in found:
        stages.update({k: v["cpu_s"] / len(found) for k, v in result["stages"].items()})
    return ", ".join(f"{name} {seconds:.0f}" for name, seconds in stages.most_common(5))


def control_table(results: LoopResults) -> Table:
    """Return how many damaged packages were refused."""
    rows = []
    for damage in dict.fromkeys(e.arm for e in results.entries if e.table == "control"):
        found = results.results("control", arm=damage)
        if not found:
            continue
        refused = sum(result["refused"] for result in found)
        reasons = Counter(result["reason"] for result in found if result["refused"])
        common = reasons.most_common(1)[0][0] if reasons else ""
        tests = Counter(result.get("refused_by") or "-" for result in found if result["refused"])
        by = ", ".join(f"{test}: {n}" for test, n in tests.most_common())
        rows.append((damage, f"{refused} of {len(found)}", by, common))
    copies = results.results("copy")
    if copies:
        refused = sum(result["refused"] for result in copies)
        by, why = (f"check: {refused}", copies[0]["problems"][0]) if refused else ("", "")
        rows.append(("copy of a hold-out case", f"{refused} of {len(copies)}", by, why))
    head = ("package", "refused", "by which test", "most frequent reason")
    note = (
        "The good package of round 1 with damaged labels, and a round as long as the others. Tests "
        "in the order in which a package meets them: *check*, *labels* (do they belong to their "
        f"images?), *expert gate*, *gate*.  *{ACCEPTED.lstrip(', ')}*: without the second one."
    )
    return Table("Negative controls", head, tuple(rows), note)


def effort_table(results: LoopResults, task: str) -> Table:
    """Return gain per minute of annotation: all slices, some slices, and the order of cases."""
    start = results.dice(task, NO_CHANGE, 0)
    rows = []
    arms = {  # whose annotation, whose Dice
        "all slices, cases at random": (OURS, WHOLE),
        "some slices, the same cases": (PARTIAL, PARTIAL),
        "all slices, cases by disagreement": (DISPUTED, DISPUTED),
    }
    for name, (worker, arm) in arms.items():
        work = results.results("annotation", arm=worker, round=1)
        after = results.dice(task, arm, 1)
        if not work or not after or not start:
            continue
        minutes = sum(case["seconds"] for one in work for case in one["cases"]) / 60 / len(work)
        gain = compare(after, start).difference.mean
        change = change_cell(after, start)
        rows.append((name, f"{minutes:.1f}", change, f"{gain / minutes:+.4f}"))
    head = ("corrections", "minutes", f"change of {task}", "Dice per minute")
    note = (
        "One round from the start, the same number of cases. Some slices: without clicks, painted "
        "only. Dice of the candidates, whether the gate let them through or not."
    )
    return Table("Dice gained per time of annotation", head, tuple(rows), note)
