"""Which cases are tested: by patient, by hash, once and for all.

The rule looks at one patient at a time, so that adding cases never moves another one across.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ka2er_training.bench.settings import TaskSettings

SALT = "ka2er-bench-1"


@dataclass(frozen=True, slots=True)
class Split:
    """Case names of one task, each list in the order of the patients' hashes.

    Parameters
    ----------
    train, test : tuple of str
        No patient is in both.
    shifted : tuple of str
        Cases of another series (scanner, protocol), in neither.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    shifted: tuple[str, ...] = ()


def patient_of(name: str, settings: TaskSettings) -> str:
    """Return the patient of a case.

    Parameters
    ----------
    name : str
        The case's name.
    settings : TaskSettings
        ``patients = "pairs"``: cases 2k-1 and 2k are one patient's (see docs/benchmarks);
        ``"case"``: every case is a patient.  `same_patient` adds what is known by other means.
    """
    own = _rule(name, settings)
    for group in settings.same_patient:
        known = [_rule(member, settings) for member in group]
        if own in known:
            return min(known)
    return own


def _rule(name: str, settings: TaskSettings) -> str:
    """Return the patient by the task's rule alone."""
    if settings.patients == "case":
        return name
    number = re.search(r"(\d+)$", name)
    if number is None:
        raise UserError("case names that end in a number where patients are pairs", repr(name))
    return f"{name[: number.start()]}pair_{(int(number[1]) + 1) // 2:03d}"


def fraction(task: str, patient: str) -> float:
    """Return a number in [0, 1) that depends on nothing but these names."""
    digest = hashlib.sha256(f"{SALT}/{task}/{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_cases(names: Iterable[str], settings: TaskSettings, fold: int = 0) -> Split:
    """Return the split of a task's cases.

    Parameters
    ----------
    names : iterable of str
        All cases of the data set.
    settings : TaskSettings
        Shares, series and known patients.
    fold : int
        Which of `settings.folds` is tested, counted round; ignored without folds.

    Raises
    ------
    UserError
        If nothing would be left to train or to test on.
    """
    kept = sorted(set(names) - set(settings.dropped))
    of_series = [n for n in kept if re.match(settings.series, n)]
    shifted = [n for n in kept if settings.shifted_series and re.match(settings.shifted_series, n)]
    ordered = sorted(of_series, key=lambda n: (fraction(settings.name, patient_of(n, settings)), n))
    patients = list(dict.fromkeys(patient_of(n, settings) for n in ordered))
    tested = _tested(patients, settings, fold)
    train = tuple(n for n in ordered if patient_of(n, settings) not in tested)
    test = tuple(n for n in ordered if patient_of(n, settings) in tested)
    if not train or not test:
        raise UserError(
            f"cases of {settings.name} to train and to test on", f"{len(train)} and {len(test)}"
        )
    return Split(
        train[: settings.max_train], test[: settings.max_test], tuple(shifted[: settings.max_test])
    )


def _tested(patients: Sequence[str], settings: TaskSettings, fold: int) -> set[str]:
    if settings.folds:
        return {patient_of(settings.folds[fold % len(settings.folds)], settings)}
    return {p for p in patients if fraction(settings.name, p) < settings.test_share}
