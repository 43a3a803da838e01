"""What a few hold-out cases can tell about a change: pairs, bounds, and the smallest loss seen."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm, t

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ka2er_training.evaluate import Row
    from ka2er_training.settings import GateSettings

SEED = 0
# A loss counts as detectable if it would be told from chance in four rounds of five.
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Pair:
    """One case's mean Dice over the labels, before and after."""

    before: float
    after: float

    @property
    def difference(self) -> float:
        """What the case gained; negative if it lost."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Bounds:
    """The mean of paired differences and how well it is known.

    Parameters
    ----------
    n : int
        Number of cases.
    mean : float
        NaN without cases.
    low, high : float
        Ends of the interval.  With one case both are that case: it has no interval.
    detectable : float or None
        The smallest mean loss that would be told from chance with a power of 80 %; None if there
        is no such loss, with fewer than two cases.
    """

    n: int
    mean: float
    low: float
    high: float
    detectable: float | None

    def __str__(self) -> str:
        if self.n == 0:
            return "-"
        if self.n == 1:
            return f"{self.mean:+.3f} (one case)"
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes back; what is not a number becomes None."""
        data = asdict(self)
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in data.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Bounds:
        """Build bounds from what `to_json` returned."""
        numbers = {k: math.nan if data[k] is None else data[k] for k in ("mean", "low", "high")}
        return cls(n=data["n"], detectable=data["detectable"], **numbers)


def pairs_of(before: Iterable[Row], after: Iterable[Row]) -> dict[str, Pair]:
    """Return each case's mean Dice over its labels, before and after, for one task.

    Empty masks count as in `ka2er_training.evaluate`: missed and invented labels are 0, a label
    that is absent from truth and from both predictions is left out.  If only one of the two
    invents an absent label, the other found rightly that there is nothing, and gets 1 for it:
    a pair needs the same labels on both sides.

    Raises
    ------
    ValueError
        If the two are not of the same cases and labels: a comparison would hide what is missing.
    """
    old, new = _by_label(before), _by_label(after)
    if old.keys() != new.keys():
        odd = sorted(old.keys() ^ new.keys())[0]
        raise ValueError(f"rows of the same cases and labels wanted, {odd} is only on one side")
    found: dict[str, list[tuple[float, float]]] = {}
    for (case, label), dice in old.items():
        other = new[case, label]
        if dice is not None or other is not None:
            both = (1.0 if value is None else value for value in (dice, other))
            found.setdefault(case, []).append((next(both), next(both)))
    means = {case: np.mean(values, axis=0) for case, values in found.items()}
    return {case: Pair(float(m[0]), float(m[1])) for case, m in sorted(means.items())}


def _by_label(rows: Iterable[Row]) -> dict[tuple[str, str], float | None]:
    table: dict[tuple[str, str], float | None] = {}
    for row in rows:
        if (row.case, row.label) in table:
            raise ValueError(f"one row per case and label wanted, {row.case} {row.label} has two")
        table[row.case, row.label] = row.scores.dice
    return table


def bounds(differences: Sequence[float], settings: GateSettings) -> Bounds:
    """Return the mean of paired differences with its expanded percentile bootstrap interval.

    A plain percentile interval of few values is too short; here the quantiles are those that make
    it as long as Student's t would (Hesterberg 2015, The American Statistician 69:371-386).  It
    cannot reach beyond the worst and the best case, which it does reach with two to four; what
    that leaves open is made up for by `allowed_loss`.
    """
    data = np.sort(np.asarray(differences, dtype=np.float64))  # the order of cases must not matter
    if data.size < 2:
        mean = float(data[0]) if data.size else math.nan
        return Bounds(int(data.size), mean, mean, mean, None)
    rng = np.random.default_rng(SEED)
    means = data[rng.integers(0, data.size, (settings.resamples, data.size))].mean(axis=1)
    inflation = math.sqrt(data.size / (data.size - 1))
    quantile = float(t.ppf((1 + settings.confidence) / 2, data.size - 1))
    tail = float(norm.cdf(-inflation * quantile))
    low, high = (float(x) for x in np.quantile(means, [tail, 1 - tail]))
    detectable = (quantile + float(t.ppf(POWER, data.size - 1))) * inflation * float(means.std())
    return Bounds(int(data.size), float(data.mean()), low, high, detectable)


def allowed_loss(n: int, settings: GateSettings) -> float:
    """Return how far the lower bound of n cases may fall: the margin, or less if n is small.

    The worst of n cases lies above the median of all cases with a chance of 2^-n, so that a lower
    bound from n cases is right with 1 - 2^-n at most (one: 50 %, two: 75 %, three: 88 %).  Where
    that is less than the gate asks for, the margin shrinks in proportion: it is halved with one
    case and whole from six on.
    """
    asked = (1 + settings.confidence) / 2
    return settings.margin * min(1.0, (1 - 0.5**n) / asked)


def cases_needed(differences: Sequence[float], settings: GateSettings) -> int | None:
    """Return how many cases with this spread give an interval as narrow as the margin.

    None with fewer than two cases, whose spread is unknown, or with a margin of 0.
    """
    if len(differences) < 2 or settings.margin == 0:
        return None
    spread = float(np.std(differences, ddof=1))
    z = float(norm.ppf((1 + settings.confidence) / 2))
    return max(2, math.ceil((z * spread / settings.margin) ** 2))
