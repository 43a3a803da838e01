"""Tables of what experts cost, and of how they were trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.bench.tables import Results, Table, plain_rows

if TYPE_CHECKING:
    from collections.abc import Iterator


def cost_table(results: Results) -> Table:
    """Return CPU seconds of an automatic pass by mode and number of experts."""
    head = ("task", "volume (Z, Y, X)", "mode", "K = 1, 2 … CPU-s", "wall s")
    note = (
        "Medians; one whole volume, nothing cached, experts loaded. The expert of the volume's "
        "own task is the first. Experts' own passes: nnU-Net's prediction, no mirroring."
    )
    return Table("What K experts cost", head, plain_rows(results, "cost", _cost_rows), note)


def _cost_rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    shape = "x".join(map(str, result["shape"]))
    for mode in dict.fromkeys(row["mode"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["mode"] == mode]
        cpu, wall = (", ".join(f"{row[key]:.1f}" for row in rows) for key in ("cpu_s", "seconds"))
        yield shape, mode, cpu, wall


def expert_table(results: Results) -> Table:
    """Return how each expert was trained and whether its training had converged."""
    cells = {
        need.digest: need
        for entry in results.entries
        for need in entry.cell.needs
        if need.kind == "expert" and results.store.is_finished(need)
    }
    rows = []
    for cell in cells.values():
        result, record = results.store.result(cell), results.store.record(cell)
        losses = result["curve"]["train_losses"]
        n = max(1, len(losses) // 5)
        rows.append(
            (
                cell.name,
                str(result["n_cases"]),
                str(cell.settings["epochs"]),
                f"{np.mean(losses[-2 * n : -n]):.3f} → {np.mean(losses[-n:]):.3f}",
                "yes" if result["converged"] else "no",
                f"{record['cpu_s']:.0f}",
            )
        )
    head = ("expert", "cases", "epochs", "loss, last two fifths", "flat", "CPU-s")
    note = (
        "Flat: the mean loss of the last fifth of the epochs is within 0.02 of the fifth before. "
        "The learning rate falls to nothing, which flattens any curve; converged therefore also "
        "means that half the schedule, or twice, leads to the same test Dice (first table)."
    )
    return Table("Experts", head, tuple(rows), note)
