"""Whether a new student still works where no expert can run.

The gate judges the mode in which a round's student is meant to work.  Who has no nnU-Net installed
runs the same student in distilled mode, which a round can spoil without anyone seeing it.  The look
is cheap, as no expert runs.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ka2er_training.evaluate_workspace import part_of
from ka2er_training.gate import judge
from ka2er_training.scoring import rows_of, student_system

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ka2er_training.evaluate import Row
    from ka2er_training.verdicts import Verdict
    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.config import Mode

logger = logging.getLogger(__name__)

MODE: Mode = "distilled"


def look_without_experts(
    workspace: Workspace,
    old: Path,
    new: Path,
    *,
    device: str = "cpu",
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Verdict:
    """Evaluate two students in distilled mode on the hold-out of every task, and judge harm.

    Parameters
    ----------
    workspace : Workspace
        Its evaluations are kept case by case, so that a broken look goes on.
    old, new : Path
        Folders of the students.
    device, progress, cancelled
        As in `try_student`.

    Returns
    -------
    Verdict
        About harm alone: the corrections' own gain is the gate's affair.

    Raises
    ------
    CancelledError
        If `cancelled` says so.
    """
    systems = [student_system(folder, MODE, device) for folder in (old, new)]
    tasks = [name for name in systems[0].tasks if name in workspace.tasks]
    found: list[list[Row]] = [[], []]
    places = [(i, task) for i in range(2) for task in tasks]
    for n, (i, task) in enumerate(places):
        part = part_of(progress, n / len(places), 1 / len(places))
        found[i] += rows_of(workspace, systems[i], task, progress=part, cancelled=cancelled)
    return judge(found[0], found[1], (), workspace.settings.gate, tasks=tasks)


def with_look(
    result: dict[str, Any], verdict: Verdict, answer: str, refused: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a promoting gate's result after the look: a note, or (if asked for) a refusal.

    Parameters
    ----------
    result : dict
        Of `retrain_stages.judge_student`.
    verdict : Verdict
        Of `look_without_experts`.
    answer : str
        ``"warn"`` or ``"refuse"``.
    refused : mapping
        The result of a refused round, of which ``folder``, ``metrics`` and ``masks`` are taken: it
        keeps the round's student itself, not an interpolation, and shows the current one's masks.
    """
    result = {**result, "distilled": verdict.to_json()}
    if verdict.promoted:
        return result
    reason = f"without experts (distilled mode): {verdict.reason}"
    logger.warning("%s", reason)
    if answer != "refuse":
        return {**result, "notes": [reason]}
    *others, passed = result["verdicts"]
    said = {"promoted": False, "reason": reason}
    verdicts = [*others, {**passed, **said}]
    kept = {name: refused[name] for name in ("folder", "metrics", "masks")}
    return {**result, **said, **kept, "verdicts": verdicts}
