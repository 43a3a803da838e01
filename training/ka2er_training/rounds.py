"""One round of retraining as plain data: what came in, what was done, and what came of it.

`ka2er retrain` fills a `Round` and keeps it as ``round.json``; `ka2er_training.round_report` makes
the page from it, without the models.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ka2er_training.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1


@dataclass(frozen=True, slots=True)
class PackageIn:
    """A package that came in.

    Parameters
    ----------
    name, digest, task : str
        Its folder's name, the digest of its manifest, and its task.
    cases : int
        Corrected cases in it.
    training, held, holdout : int
        How many of them are trained on, are kept from training for the gate, and corrected a
        case of the hold-out.
    refused : tuple of str
        Why cases (or all) were left out, one line each.
    reviewed_share : float or None
        Mean share of a volume's voxels that somebody looked at.
    clicks : int
        Prompts of all kinds.
    seconds : float or None
        Time that people spent on it.
    reviewers : tuple of str
        Who they were.
    student : str
        Version that they corrected.
    """

    name: str
    digest: str
    task: str
    cases: int
    training: int = 0
    held: int = 0
    holdout: int = 0
    refused: tuple[str, ...] = ()
    reviewed_share: float | None = None
    clicks: int = 0
    seconds: float | None = None
    reviewers: tuple[str, ...] = ()
    student: str = ""


@dataclass(frozen=True, slots=True)
class Training:
    """Something that was trained.

    Parameters
    ----------
    name : str
        ``"expert hippocampus"``, ``"student: trunk"`` …
    steps : int
        Steps of the optimiser.
    settings : dict
        What people want to know, as plain data: learning rate, shares, seed …
    scalars : str
        Path of its ``scalars.jsonl`` (lines with ``step`` and numbers), or empty.
    """

    name: str
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)
    scalars: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage of the round cost.

    Parameters
    ----------
    name : str
        ``"ingest"``, ``"experts"`` …
    seconds, cpu_s : float
        Wall time, and processor time of all its processes.
    joules : float or None
        Energy measured while it ran (`ka2er_training.energy`); None: the report estimates it from
        `cpu_s` and says so.
    """

    name: str
    seconds: float
    cpu_s: float
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG for the page.

    Parameters
    ----------
    caption : str
        What it shows.
    path : str
        The file; it goes into the page, which does not need it afterwards.
    """

    caption: str
    path: str


@dataclass(frozen=True, slots=True)
class Round:
    """One round of ``ka2er retrain``.

    Parameters
    ----------
    number : int
        1 for the first.
    started, finished : str
        ISO 8601 with the zone.
    before : str
        The version that was current.
    after : str
        The version that the round made.
    decision : str
        ``"promoted"``, ``"refused"`` or ``"dry run"``.
    reason : str
        One line; the verdict's, usually.
    packages, trained, stages, pictures : tuple
        See there.
    labels : dict of str to list of dict
        Per task, of each case that was looked at, how well its labels fit its image, as
        `ka2er_training.belonging_rule.Fit` tells it.
    experts : dict of str to list of Verdict
        Per retrained expert the gate's tries: the new one, then its interpolations.
    tries : tuple of Verdict
        The gate's tries for the student: the new one, then interpolations.
    scores : list of dict
        Per task and label ``task, label, before, after, change`` (`Bounds.to_json`), as
        `ka2er_training.changes.label_changes` returns them.
    weights_before, weights_after : dict of str to dict of str to float
        The expert map: per task, each expert's mean weight on hold-out cases (and ``"null"``), as
        `ka2er_training.expert_map.mean_weights` returns them.
    code, seeds : dict
        Version of the program, and seeds.
    notes : tuple of str
        Anything else people should know.
    """

    number: int
    started: str
    finished: str
    before: str
    after: str
    decision: str
    reason: str
    packages: tuple[PackageIn, ...] = ()
    trained: tuple[Training, ...] = ()
    stages: tuple[Stage, ...] = ()
    labels: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    experts: dict[str, list[Verdict]] = field(default_factory=dict)
    tries: tuple[Verdict, ...] = ()
    scores: list[dict[str, Any]] = field(default_factory=list)
    weights_before: dict[str, dict[str, float]] = field(default_factory=dict)
    weights_after: dict[str, dict[str, float]] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    code: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The verdict about `after`; None if the gate was not reached."""
        passed = [verdict for verdict in self.tries if verdict.promoted]
        return next(iter([*passed, *self.tries]), None)

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes back."""
        experts = {name: [v.to_json() for v in tries] for name, tries in self.experts.items()}
        tries = [verdict.to_json() for verdict in self.tries]
        return {"format": FORMAT, **asdict(self), "experts": experts, "tries": tries}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Round:
        """Build a round from what `to_json` returned, also after a trip through JSON."""
        kept = {key: value for key, value in data.items() if key != "format"}
        kinds = {"trained": Training, "stages": Stage, "pictures": Picture}
        for key, kind in kinds.items():
            kept[key] = tuple(kind(**item) for item in kept[key])
        lists = ("refused", "reviewers")
        kept["packages"] = tuple(
            PackageIn(**{**item, **{key: tuple(item[key]) for key in lists}})
            for item in kept["packages"]
        )
        kept["tries"] = tuple(Verdict.from_json(item) for item in kept["tries"])
        kept["experts"] = {
            name: [Verdict.from_json(item) for item in tries]
            for name, tries in kept["experts"].items()
        }
        return cls(**{**kept, "notes": tuple(kept["notes"])})
