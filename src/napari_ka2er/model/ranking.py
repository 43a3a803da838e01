"""Which of the student's tasks a volume is for, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.fingerprints import MODALITIES, falling, likeness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_ka2er.model.config import TaskEntry

TAKEN_FROM = 0.5

# Mean probability inside what was found from which it counts fully: how sharp probabilities are
# depends on the training, but an untrained student's lie around 0.55.
_CERTAIN = 0.7
# A quarter more than in any training volume fits fully, 2.25 times as much not at all.
_SIZE_MARGIN, _SIZE_FALL = 1.25, 1.0


@dataclass(frozen=True, slots=True)
class TaskFit:
    """How well a task fits a volume.

    Parameters
    ----------
    task : str
        Its name.
    score : float
        In [0, 1].
    reason : str
        One line for people.
    taken : bool
        Whether the task is carried out when none is named.
    """

    task: str
    score: float
    reason: str
    taken: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the student found when it tried a task.

    Parameters
    ----------
    volume_ml : float
        Size of everything found.
    confidence : float
        Mean probability of the winning label inside it; 0 where nothing was found.
    null_weight : float
        Mean weight of the null expert inside it, in [0, 1].
    """

    volume_ml: float
    confidence: float
    null_weight: float


def prior_fit(entry: TaskEntry, volume: dict[str, Any]) -> tuple[float, str]:
    """Return how well a volume's fingerprint fits a task, in [0, 1], and why.

    A task without a fingerprint of its own fits anything but images that DICOM calls otherwise.
    """
    own = {"MRI": "MR", "PET": "PT"}.get(entry.task.modality, entry.task.modality)
    modality = volume.get("modality", own)
    if own in MODALITIES and modality != own:
        return 0.0, f"a {modality} image, but it was trained on {own}"
    return likeness(entry.intensity, volume)


def guess(known: Mapping[str, dict[str, Any]], volume: dict[str, Any]) -> list[TaskFit]:
    """Return how well tasks fit a volume by their fingerprints alone, best first; takes no student.

    Tasks without a fingerprint are left out: nothing can be said of them before they are tried.

    Parameters
    ----------
    known : mapping
        Task -> what `task_fingerprint` returned, or an empty dict.
    volume : dict
        What `fingerprint` returned.
    """
    found = {name: likeness(own, volume) for name, own in known.items() if own}
    fits = [
        TaskFit(name, score, reason, score >= TAKEN_FROM) for name, (score, reason) in found.items()
    ]
    return sorted(fits, key=lambda fit: -fit.score)


def judge(
    task: str,
    prior: tuple[float, str],
    evidence: Evidence | None,
    most_ml: float | None = None,
) -> TaskFit:
    """Return the verdict on a task.

    Parameters
    ----------
    task : str
        Its name.
    prior : tuple
        What `prior_fit` returned.
    evidence : Evidence or None
        What the student found; None where the prior already speaks against the task.
    most_ml : float, optional
        Size of all labels in the training volume that has most of them.  A student paints a
        foreign image all over, and is confident: eight litres of brain in a chest.
    """
    score, reason = prior
    if evidence is None:
        return TaskFit(task, score, reason, taken=False)
    if evidence.volume_ml == 0:
        return TaskFit(task, 0.0, f"{reason}; found nothing", taken=False)
    certainty = falling(_CERTAIN - evidence.confidence, 0, _CERTAIN - 0.5)
    score *= certainty * (1 - evidence.null_weight / 2)
    if most_ml:
        size = falling(evidence.volume_ml / most_ml, _SIZE_MARGIN, _SIZE_FALL)
        score *= size
        reason += f"; more than in training (at most {_size(most_ml)})" if size < 1 else ""
    found = f"found {_size(evidence.volume_ml)} with mean confidence {evidence.confidence:.2f}"
    null = f"null expert {evidence.null_weight:.2f}"
    return TaskFit(task, score, f"{reason}; {found}, {null}", score >= TAKEN_FROM)


def taken_or_refuse(fits: Sequence[TaskFit], name: str) -> list[TaskFit]:
    """Return the tasks that were taken.

    Raises
    ------
    UserError
        If none was.
    """
    taken = [fit for fit in fits if fit.taken]
    if not taken:
        reasons = " | ".join(f"{fit.task}: {fit.reason}" for fit in fits)
        wanted = f"a volume that fits one of the student's {len(fits)} tasks"
        raise UserError(wanted, f"{name} ({reasons})", "name a task with --task to insist")
    return taken


def _size(ml: float) -> str:
    return f"{ml:.0f} ml" if ml >= 100 else f"{ml:.3g} ml"
