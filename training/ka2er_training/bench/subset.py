"""The same student with fewer experts, to see what each one costs."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from napari_ka2er.model.loaded import Experts
from napari_ka2er.model.student import Student

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from napari_ka2er.model.loaded import LoadedStudent

# Parts of the student that there are one of per expert, numbered in the experts' order.
_NUMBERED = re.compile(
    r"^((?:coarse|fine)\.\d+\.(?:standardise|projections|hallucinators|scores)|shortcut\.heads)"
    r"\.(\d+)\.(.*)$"
)
_EMBEDDING = "expert_embedding"


def with_experts(loaded: LoadedStudent, names: Sequence[str]) -> LoadedStudent:
    """Return a student with some of its experts, in the order of `names`, and its trained weights.

    It is for measuring time: what such a student was never trained for, it may do badly.
    """
    order = {entry.name: k for k, entry in enumerate(loaded.config.experts)}
    chosen = [order[name] for name in names]
    entries = tuple(loaded.config.experts[k] for k in chosen)
    student = Student(dataclasses.replace(loaded.config, experts=entries))
    student.load_state_dict(_kept(loaded.student.state_dict(), chosen))
    student.to(loaded.device).eval().requires_grad_(False)
    digests = {entry.name: entry.digest for entry in entries}
    experts = Experts(loaded.experts.folder.parent, digests, loaded.device)
    digest = f"{loaded.digest}-{'-'.join(map(str, chosen))}"
    return dataclasses.replace(loaded, student=student, experts=experts, digest=digest)


def _kept(state: Mapping[str, Tensor], chosen: Sequence[int]) -> dict[str, Tensor]:
    """Return the weights of the chosen experts under their new numbers, and all that is shared."""
    numbers = {old: new for new, old in enumerate(chosen)}
    kept: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = _NUMBERED.match(name)
        if match is None:
            kept[name] = tensor[list(chosen)] if name.endswith(_EMBEDDING) else tensor
        elif int(match[2]) in numbers:
            kept[f"{match[1]}.{numbers[int(match[2])]}.{match[3]}"] = tensor
    return kept
