"""The cell in which a simulated annotator corrects the student's masks and exports a package."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.annotator import Annotator
from ka2er_training.bench.measuring import case_of_dataset
from ka2er_training.effort import Budget, Effort, WorkClock
from ka2er_training.registry import current, student_folder
from ka2er_training.workspace import Workspace
from napari_ka2er.core.correction import Correction, correction_of, export_package
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.sessions import create_session
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ka2er_training.bench.cells import Cell, Store
    from ka2er_training.bench.means import Means
    from ka2er_training.effort import Work
    from ka2er_training.evaluate import LabelledCase
    from napari_ka2er.core.objects import PromptRequest
    from napari_ka2er.core.session import Session
    from napari_ka2er.model.prompting import PromptResult

AXIS = 0  # slices are looked at along Z
PACKAGE = "package"
_BEGIN_S = 1_700_000_000.0  # simulated work has a time of its own


@dataclass(frozen=True, slots=True)
class Desk:
    """What the annotator works with.

    Parameters
    ----------
    predictor : Predictor
        The student.
    version : str
        Its name in the workspace.
    budget : Budget
        What may be spent on a case.
    slices : int
        Slices to review; 0: all of them.
    """

    predictor: Predictor
    version: str
    budget: Budget
    slices: int


def state_workspace(cell: Cell, store: Store) -> Workspace:
    """Return the workspace of a cell of kind start or round."""
    return Workspace.open(store.folder_of(cell) / "workspace")


def annotation_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Correct new cases through sessions, write the package, return what it took.

    A case of which no slice became right within the budget has cost its time and is not exported.
    """
    settings, folder = cell.settings, store.folder_of(cell)
    workspace = state_workspace(cell.needs[0], store)
    loaded = load_student(student_folder(workspace), means.device)
    task = workspace.record(settings["task"]).task
    for part in ("sessions", PACKAGE):
        shutil.rmtree(folder / part, ignore_errors=True)
    budget = Budget(n_clicks=settings["n_clicks"], n_strokes=settings["n_strokes"])
    corrections, rows = list[Correction](), list[dict[str, Any]]()
    chosen = names_of(cell, store)
    with tempfile.TemporaryDirectory() as cache:
        predictor = Predictor(loaded, settings["mode"], Path(cache))
        desk = Desk(predictor, str(current(workspace)), budget, settings["slices"])
        for i, name in enumerate(chosen):
            if means.progress is not None:
                means.progress(i / len(chosen), f"correcting {name}")
            case = case_of_dataset(means.data / settings["folder"], name, task)
            patient = settings["patients"][name]
            correction, row = correct_case(case, desk, folder / "sessions" / name, patient)
            rows.append(row)
            if not correction.reviewed.is_empty():  # else no slice became right in the budget
                corrections.append(correction)
    export_package(folder / PACKAGE / f"Dataset900_{task.name}", corrections)
    return {"cases": rows, "effort": asdict(Effort()), "student": desk.version}


def names_of(cell: Cell, store: Store) -> Sequence[str]:
    """Return the cases to correct: those that are named, or those that an order cell has chosen."""
    orders = cell.needed("order")
    names: Sequence[str] = store.result(orders[0])["chosen"] if orders else cell.settings["cases"]
    return names


def package_of(cell: Cell, store: Store) -> Path:
    """Return the package of an annotation cell."""
    (package,) = (store.folder_of(cell) / PACKAGE).iterdir()
    return package


def correct_case(
    case: LabelledCase, desk: Desk, folder: Path, patient: str = ""
) -> tuple[Correction, dict[str, Any]]:
    """Let the annotator correct the student's mask of a case in a session of its own.

    Parameters
    ----------
    case : LabelledCase
        The truth is what the annotator knows.
    desk : Desk
        Student and budget.
    folder : Path
        The session's; its log is what a user's would be.
    patient : str
        Whose case it is.

    Returns
    -------
    Correction, dict
        What the session exports, and what it took.
    """
    volume, truth = read_volume(case.image), read_labels(case.labels)[0]
    desk.predictor.set_volume(volume)
    automatic = desk.predictor.segment(case.task.name).labels
    clock = WorkClock(_BEGIN_S)
    session = create_session(folder, volume, case.task, source=case.image, clock=clock)
    session.set_student(desk.version, desk.predictor.mode)
    everywhere = tuple(slice(0, n) for n in volume.shape)
    session.write(everywhere, automatic, "automatic")
    annotator = Annotator(session, truth, clock, desk.budget)
    annotator.click(lambda request: _answer(desk, case, request))
    n_click_notes = len(annotator.work.course)
    annotator.paint(AXIS, slices_to_review(session, desk.slices))
    return correction_of(session, "simulated", patient, case.name), {
        "case": case.name,
        **course_of(annotator.work, n_click_notes),
        "seconds": round(clock.now_s - _BEGIN_S, 2),
        "reviewed_share": float(session.state.reviewed.mask(volume.shape).mean()),
    }


def course_of(work: Work, n_click_notes: int) -> dict[str, Any]:
    """Return what an annotator's work amounts to.

    Parameters
    ----------
    work : Work
        What was done; its course has a note before the first deed, and one after each.
    n_click_notes : int
        How many of the notes are the first one and the clicks'.
    """
    means = [float(np.mean(list(scores.values()))) for _, scores in work.course]
    return {
        "n_clicks": work.n_clicks,
        "n_undone": work.n_undone,
        "n_strokes": work.n_strokes,
        "dice_automatic": means[0],
        "dice_clicked": means[n_click_notes - 1],
        "dice_painted": means[-1],
        "course": [
            [round(s, 2), round(m, 4)] for (s, _), m in zip(work.course, means, strict=True)
        ],
        "seconds_until": {f"{goal:.2f}": work.until(goal) for goal in (0.8, 0.85, 0.9)},
    }


def slices_to_review(session: Session, n_slices: int) -> list[int]:
    """Return the slices that the annotator looks at.

    All of them for 0; else so many, evenly over the middle four fifths of what the mask spans: an
    annotator sees the mask, not the truth.
    """
    n_all = session.volume.shape[AXIS]
    if not n_slices or n_slices >= n_all:
        return list(range(n_all))
    other = tuple(axis for axis in range(3) if axis != AXIS)
    return spread(np.flatnonzero(session.mask.any(axis=other)), n_slices, n_all)


def spread(occupied: NDArray[np.intp], n_slices: int, n_all: int) -> list[int]:
    """Return slices evenly over the middle of the occupied ones, or of all if there are none."""
    low, high = (occupied[0], occupied[-1]) if len(occupied) else (0, n_all - 1)
    tenth = 0.1 * (high - low)
    places = np.linspace(low + tenth, high - tenth, n_slices)
    return sorted({round(place) for place in places})


def _answer(desk: Desk, case: LabelledCase, request: PromptRequest) -> PromptResult:
    return desk.predictor.prompt(
        case.task.name, request.object.label, request.prompts, request.previous()
    )
