"""Begin a student with what another one has learned: more tasks or experts, not from nothing."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from napari_ka2er.model.config import StudentConfig
    from napari_ka2er.model.student import Student

logger = logging.getLogger(__name__)

# One entry of these belongs to an expert: its number is part of the name.
_OF_EXPERT = re.compile(
    r"(.*\b(?:projections|hallucinators|standardise|scores|heads)\.)(\d+)(\..*)"
)
# One row of these belongs to an output, of those an expert.
_OUTPUT_ROWS = ("foundation.net.out.", "class_tokens.", "shortcut.gain")
_EXPERT_ROWS = ("expert_embedding",)
_AMALGAMATION = ("coarse.", "fine.", "shortcut.")


@dataclass(frozen=True, slots=True)
class Kept:
    """What a new student has in common with an older one.

    Parameters
    ----------
    outputs, experts : dict of int to int
        Number in the new student → number in the older one.
    amalgamation : bool
        Whether all experts of the older one are there, so that the layers behind them fit.
    """

    outputs: dict[int, int]
    experts: dict[int, int]
    amalgamation: bool


def take_over(student: Student, parent: Student) -> Kept:
    """Give a new student the weights of an older one wherever they mean the same.

    Foundation, decoder and prompts always; a label's own where a task of the same name has it; the
    amalgamation where all experts of the older one are there, itself and theirs.  An expert counts
    as there if it is the very same network.  What is left stays as it is: new experts, tasks and
    labels, and, among other experts, the whole amalgamation.

    Parameters
    ----------
    student : Student
        Changed in place; untrained, its statistics calibrated.
    parent : Student
        Not changed.

    Returns
    -------
    Kept
        What they have in common.

    Raises
    ------
    UserError
        If the two are of different sizes.
    """
    kept = in_common(student.config, parent.config)
    old = parent.state_dict()
    with torch.no_grad():
        for name, value in student.state_dict().items():
            if kept.amalgamation or not name.startswith(_AMALGAMATION):
                _take(name, value, old, kept)
    n = len(kept.experts)
    how = f"and its amalgamation of {n} experts" if kept.amalgamation else "but no amalgamation"
    logger.info(
        "begins with another student's weights, %d of its outputs, %s", len(kept.outputs), how
    )
    return kept


def in_common(config: StudentConfig, parent: StudentConfig) -> Kept:
    """Return what two students have in common.

    Raises
    ------
    UserError
        If they are of different sizes.
    """
    sizes = [
        (
            c.feature_size,
            c.width,
            c.dense_width,
            c.merge_width,
            c.heads,
            c.attention_window,
            c.use_v2,
        )
        for c in (config, parent)
    ]
    if sizes[0] != sizes[1]:
        wanted = f"--from a student of feature size {config.feature_size}, as the preset's"
        raise UserError(wanted, f"{parent.feature_size}, or other widths", "choose its --preset")
    names = _outputs(parent)
    outputs = {i: names[label] for label, i in _outputs(config).items() if label in names}
    numbers = {(e.digest, tuple(e.channels.items())): j for j, e in enumerate(parent.experts)}
    keys = [(e.digest, tuple(e.channels.items())) for e in config.experts]
    experts = {k: numbers[key] for k, key in enumerate(keys) if key in numbers}
    is_alike = config.amalgamation == parent.amalgamation
    return Kept(outputs, experts, is_alike and len(experts) == len(parent.experts) > 0)


def _outputs(config: StudentConfig) -> dict[tuple[str, str], int]:
    """Return the number of each output, by task and label."""
    names = [(e.task.name, label.name) for e in config.tasks for label in e.task.labels]
    return {name: i for i, name in enumerate(names)}


def _take(name: str, value: Tensor, old: Mapping[str, Tensor], kept: Kept) -> None:
    """Fill a tensor of the new student from the old one's, as far as it is there."""
    of_expert = _OF_EXPERT.fullmatch(name) if name.startswith(_AMALGAMATION) else None
    if of_expert:
        before, number, after = of_expert.groups()
        if int(number) in kept.experts:
            value.copy_(old[f"{before}{kept.experts[int(number)]}{after}"])
    elif name.startswith(_OUTPUT_ROWS):
        _take_rows(value, old[name], kept.outputs)
        if name.startswith("class_tokens."):
            value[-1] = old[name][-1]  # "any structure"
    elif name.endswith(_EXPERT_ROWS):
        _take_rows(value, old[name], kept.experts)
    else:
        value.copy_(old[name])


def _take_rows(value: Tensor, old: Tensor, rows: Mapping[int, int]) -> None:
    for new, row in rows.items():
        value[new] = old[row]
