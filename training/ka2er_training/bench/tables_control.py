"""Tables that say what a gain is due to: the negative control, and longer training of experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ka2er_training.bench.stats import Comparison, compare
from ka2er_training.bench.systems import (
    CONTROL,
    EXPERTS,
    HALF_EXPERTS,
    JOINT,
    KA2ER,
    LAYERS,
    TWICE_EXPERTS,
)
from ka2er_training.bench.tables import Results, Table, signed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ka2er_training.bench.systems import System

PAIRS = (
    (CONTROL, LAYERS),
    (LAYERS, JOINT),
    (KA2ER[0], LAYERS),
    (EXPERTS, HALF_EXPERTS),
    (TWICE_EXPERTS, EXPERTS),
)


def control_table(results: Results) -> Table:
    """Return, paired by case, what untrained experts, the layers, knowledge and schedules bring."""
    rows = [
        (first.name, second.name, task, signed(found.difference), str(found.difference.n))
        for first, second in PAIRS
        for task, found in paired(results, first, second)
    ]
    head = ("system", "against", "task", "difference in Dice", "cases")
    note = "Paired by case, first seed only: the simpler systems have no other."
    return Table("What brings the gain", head, tuple(rows), note)


def paired(results: Results, first: System, second: System) -> Iterator[tuple[str, Comparison]]:
    """Yield the tasks on which both systems were measured with the first seed, and how they differ.

    Parameters
    ----------
    results : Results
        What was measured.
    first, second : System
        The difference is the first minus the second.
    """
    seeds = [entry.seed for entry in results.entries if entry.table == "main"]
    for task in results.names("main", "task"):
        pair = [
            results.values("main", system=system.name, task=task, seed=min(seeds))
            for system in (first, second)
        ]
        if all(pair):
            yield task, compare(pair[0][0], pair[1][0])
