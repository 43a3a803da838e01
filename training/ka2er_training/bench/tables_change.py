"""Tables of few labels, longer training and domain shift."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ka2er_training.bench.amalgamation import OTHER_SERIES
from ka2er_training.bench.stats import bootstrap, bootstrap_means
from ka2er_training.bench.tables import (
    MISSING,
    Results,
    Table,
    cell_text,
    measured,
    signed,
    with_unmeasured,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def few_table(results: Results) -> Table:
    """Return Dice with few labelled cases per task."""
    tasks, columns = results.names("few", "task"), results.names("few", "column")
    rows, open_ = list[tuple[str, ...]](), list[str]()
    for n_labels in columns:
        found, unmeasured = measured(_few_rows(results, n_labels))
        rows += [(system, n_labels, *cells) for system, *cells in found]
        open_ += [f"{system} ({n_labels})" for system in unmeasured]
    note = (
        "The other training images are given without labels; systems with soft targets use them. "
        "The experts behind the soft targets were trained with all labels, as in knowledge "
        "amalgamation: their labels stay where the experts were trained."
    )
    head = ("system", "labelled cases per task", *tasks)
    return Table("Few labels", head, tuple(rows), with_unmeasured(note, open_))


def _few_rows(results: Results, n_labels: str) -> list[tuple[str, ...]]:
    """Return a line per system, without the number of labelled cases."""
    wanted = {"table": "few", "column": n_labels}
    return [
        (
            system,
            *(
                cell_text(results.values(**wanted, system=system, task=task))
                for task in results.names("few", "task")
            ),
        )
        for system in results.names("few", "system")
    ]


def long_table(results: Results) -> Table:
    """Return Dice after the plan's steps and after more, of the seeds that have both."""
    tasks = results.names("long", "task")
    lengths = [("main", "as above", "")]
    lengths += [("long", steps, steps) for steps in results.names("long", "column")]
    rows = []
    for system in results.names("long", "system"):
        for table, steps, where in lengths:
            if system not in results.names(table, "system"):
                continue  # one that is trained longer only
            found = [_long_values(results, table, system, task, where) for task in tasks]
            rows.append((system, steps, *(cell_text(seeds) for seeds in found)))
    note = (
        "What layers gain that merely learn faster, and not by what the experts know, must shrink "
        "with longer training."
    )
    return Table("Longer training", ("system", "steps", *tasks), tuple(rows), note)


def _long_values(
    results: Results, table: str, system: str, task: str, column: str
) -> list[dict[str, float]]:
    seeds = sorted({entry.seed for entry in results.entries if entry.table == "long"})
    wanted = {"system": system, "task": task, "column": column}
    return [v for seed in seeds for v in results.values(table, seed=seed, **wanted)]


def shift_table(results: Results) -> Table:
    """Return the fall of Dice from the unshifted volumes, per shift, mean over the tasks' cases."""
    columns = results.names("shift", "column")
    rows = [
        (system, *(_fall(results, system, column) for column in columns))
        for system in results.names("shift", "system")
    ]
    rows, unmeasured = measured(rows)
    note = (
        "Difference to the same system's unshifted Dice, cases of all tasks together, [95 % "
        "interval]. Synthetic shifts are paired by case; another series has other patients, and "
        "its difference is between means, of which both are uncertain."
    )
    note = with_unmeasured(note, unmeasured)
    return Table("Domain shift", ("system", *columns), tuple(rows), note)


def _fall(results: Results, system: str, column: str) -> str:
    pairs = list(_before_and_after(results, system, column))
    if column == OTHER_SERIES:
        groups = [(list(before.values()), list(after.values())) for before, after in pairs]
        found = bootstrap_means(groups) if groups else bootstrap([])
    else:
        # A case without labels has a Dice only where something was invented in it.
        found = bootstrap([a[c] - b[c] for b, a in pairs for c in sorted(b.keys() & a.keys())])
    return f"{signed(found)}, n={found.n}" if found.n else MISSING


def _before_and_after(
    results: Results, system: str, column: str
) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Yield each task's values by case, unshifted and shifted, where both were measured."""
    for task in results.names("shift", "task"):
        shifted = results.values("shift", system=system, task=task, column=column)
        seeds = {entry.seed for entry in results.find("shift", system=system, task=task)}
        plain = [
            found
            for seed in seeds
            for found in results.values("main", system=system, task=task, seed=seed)
        ]
        if shifted and plain:
            yield plain[0], shifted[0]
