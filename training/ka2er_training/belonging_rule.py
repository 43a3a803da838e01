"""What follows from how well labels fit: which cases are suspicious, and which packages refused."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Verdict = Literal["belongs", "unclear", "strange", "undecided"]

MIN_OTHERS = 4  # fewer others' labels are no comparison
# A mask that agrees with no labels at all tells nothing.  Masks of inverted hippocampus images, to
# which a student is blind, agree up to 0.40 with the best of 22 others' labels.
MIN_AGREEMENT = 0.4
CLOSE = 0.9  # labels that agree so well are nearly right, whosever they are
MARGIN = 0.02  # labels of organs that are alike in everybody fit better or worse by less
BELONGS = 1 / 8  # the chance of a stranger's labels to be called the own ones
# Mean ranks below which a package is refused; labels of strangers have 0.5 or less on average.
# One case alone must be clear, as chance gives it much; five and more not.
CHANCE, CHANCE_OF_NONE, CHANCE_PER_CASE = 0.6, 0.15, 0.1


@dataclass(frozen=True, slots=True)
class Fit:
    """How well labels fit a mask of their image.

    Parameters
    ----------
    case : str
        Its name.
    own : float
        Agreement of the own labels, in [0, 1].
    others : mapping of str to float
        Agreement of other cases' labels, moved to where they fit best.
    moved : float or None
        Agreement of the own labels moved onto the mask; None if either is empty, or not all of
        the case was reviewed.
    is_empty, is_seen : bool
        Whether the own labels are empty; whether at least half of the mask was reviewed.
    """

    case: str
    own: float
    others: Mapping[str, float]
    moved: float | None = None
    is_empty: bool = False
    is_seen: bool = True

    @property
    def best_other(self) -> tuple[str, float]:
        """The other case whose labels fit best, and how well; an empty name if there is none."""
        return max(self.others.items(), key=lambda item: item[1], default=("", 0.0))

    @property
    def rank(self) -> float:
        """The share of other labels that fit worse; NaN without any."""
        if not self.others:
            return float("nan")
        return float(np.mean([value < self.own for value in self.others.values()]))

    @property
    def is_displaced(self) -> bool:
        """Whether moving the own labels doubles what they agree by, or halves what they do not.

        The latter more than any others' labels would, and these must fit at least as well as the
        own do where they are, or else labels one voxel off an excellent mask would be displaced.
        """
        best = self.best_other[1]
        if self.moved is None or best < self.own:
            return False
        return self.moved > 2 * self.own or (self.moved >= best and self._halves(self.moved))

    @property
    def is_swapped(self) -> bool:
        """Whether another case's labels disagree half as much, or less."""
        return self._halves(self.best_other[1])

    @property
    def verdict(self) -> Verdict:
        """What this tells.

        ``"undecided"``: nothing, as the mask agrees with no labels, or there are fewer than four
        others (empty labels: none), or nothing was drawn and less than half of the mask reviewed.
        ``"strange"``: half of the others fit better, by 0.02 or more; or one of them, or moving the
        own labels, halves the disagreement; or the latter doubles the agreement.  But never if they
        agree by 0.9, as labels of an organ that is the same in everybody may.  ``"belongs"``: at
        most one in eight fits as well, which labels of a random other case do one time in eight.
        Else ``"unclear"``.
        """
        enough = 1 if self.is_empty else MIN_OTHERS
        best = max(self.own, self.best_other[1], self.moved or 0.0)
        if len(self.others) < enough or best < MIN_AGREEMENT:
            return "undecided"
        if self.is_empty and not self.is_seen:
            return "undecided"
        if self.is_displaced or self.is_swapped or self._is_beaten():
            return "strange"
        as_good = sum(value >= self.own for value in self.others.values())
        return "belongs" if (as_good + 1) / (len(self.others) + 1) <= BELONGS else "unclear"

    def why(self) -> str:
        """Return in words why the labels are strange."""
        name, best = self.best_other
        if self.is_empty:
            return f"no labels where the student finds what fits those of {name} ({best:.2f})"
        if self.is_displaced:
            return f"they fit {self.moved:.2f} if they are moved, and {self.own:.2f} where they are"
        if self.is_swapped:
            return f"those of {name} fit {best:.2f}, its own {self.own:.2f}"
        share = (
            f"{sum(v >= self.own for v in self.others.values())} of {len(self.others)} other cases'"
        )
        return f"{share} labels fit as well as its own ({self.own:.2f}), up to {best:.2f}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data, with the verdict; `from_json` takes it back."""
        return {**asdict(self), "others": dict(self.others), "verdict": self.verdict}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fit:
        """Build a fit from what `to_json` returned."""
        return cls(**{key: value for key, value in data.items() if key != "verdict"})

    def _is_beaten(self) -> bool:
        """Whether half of the others fit better, and by more than like shapes do by chance."""
        median = float(np.median(list(self.others.values())))
        return self.own < CLOSE and self.rank <= 0.5 and median >= self.own + MARGIN

    def _halves(self, agreement: float) -> bool:
        return 1 - agreement <= (1 - self.own) / 2 and self.own < CLOSE


def refusal(fits: Sequence[Fit]) -> str:
    """Return why labels are refused as a whole, or nothing.

    They are if more of the decided cases are strange than belong, and besides the mean rank of all
    decided cases is below 0.6 (0.25 of one case, 0.35 of two, 0.45 of three, 0.55 of four), or
    more than half of them are displaced or swapped.  If fewer than half of the cases are decided,
    the student tells nothing about these images, and nothing is refused.

    What that means by simulation, with fifteen others, for packages of 1, 2, 4, 8 and 16 cases.
    Strangers' labels whose ranks are spread evenly: refused in 25, 25, 61, 80 and 90 %.  They lie
    lower, and more are refused, as the others are moved to where they fit best.  Right labels on
    hard images, of which others fit better one time in four (beta distributed, 2.2 and 0.7):
    refused in 4, 2, 4, 4 and 1 %; if one time in ten (4 and 0.45): in at most 0.4 %.

    Parameters
    ----------
    fits : sequence of Fit
        Of the cases of one task in a round; none gives no refusal.
    """
    decided = [fit for fit in fits if fit.verdict != "undecided"]
    if not decided or 2 * len(decided) < len(fits):
        return ""
    strange = [fit for fit in decided if fit.verdict == "strange"]
    if len(strange) <= sum(fit.verdict == "belongs" for fit in decided):
        return ""
    chance = min(CHANCE, CHANCE_OF_NONE + CHANCE_PER_CASE * len(decided))
    is_clear = 2 * sum(fit.is_displaced or fit.is_swapped for fit in decided) > len(decided)
    if is_clear or np.mean([fit.rank for fit in decided]) < chance:
        return _reason(strange, len(decided))
    return ""


def _reason(strange: Sequence[Fit], n: int) -> str:
    """Return what is wrong with most of the strange cases."""
    of = f"{len(strange)} of {n} cases"
    if 2 * sum(fit.is_empty for fit in strange) > len(strange):
        return f"{of} have no labels where the student finds what earlier cases have"
    if 2 * sum(fit.is_displaced for fit in strange) > len(strange):
        return f"the labels of {of} fit much better if they are moved: are they displaced?"
    what = "fit their images no better than other cases' labels"
    return f"the labels of {of} {what}: are they in the right files, and in place?"
