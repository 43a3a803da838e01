"""A student ready to run, and the experts beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.expert_files import read_entry
from napari_ka2er.model.experts import Expert

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from napari_ka2er.model.config import StudentConfig
    from napari_ka2er.model.student import Student


class Experts:
    """The experts beside a student, each loaded when it is first asked for.

    Parameters
    ----------
    folder : Path
        The student's folder; experts lie in ``experts/<name>``.
    digests : mapping of str to str
        Per expert, in the student's order, the digest it was amalgamated with.
    device : torch.device
        Where they run.
    loaded : mapping of str to Expert, optional
        Those that are there already.
    """

    def __init__(
        self,
        folder: Path,
        digests: Mapping[str, str],
        device: torch.device,
        loaded: Mapping[str, Expert] | None = None,
    ) -> None:
        self.folder = folder / "experts"
        self._digests = dict(digests)
        self._device = device
        self._loaded = dict(loaded or {})

    def __iter__(self) -> Iterator[str]:
        return iter(self._digests)

    def __len__(self) -> int:
        return len(self._digests)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of experts that are not in the folder."""
        return tuple(n for n in self._digests if not (self.folder / n / "expert.json").is_file())

    @property
    def token_centres(self) -> dict[str, list[list[float]]]:
        """Per expert and stage, where its tokens look; without experts that are missing.

        No weights are loaded for it.
        """
        found = {name: expert.entry for name, expert in self._loaded.items()}
        for name in self._digests:
            if name not in found and name not in self.missing:
                found[name] = read_entry(self.folder / name)
        return {name: entry["token_centres"] for name, entry in found.items()}

    def __getitem__(self, name: str) -> Expert:
        """Return an expert.

        Raises
        ------
        UserError
            If its files are missing, or are not those the student was amalgamated with.
        """
        if name not in self._loaded:
            if name in self.missing:
                raise UserError(
                    f"the expert {name} in {self.folder}", "none", "or use --mode distilled"
                )
            expert = Expert.load(self.folder / name, device=str(self._device))
            if expert.digest != self._digests[name]:
                raise UserError(
                    f"the expert {name} with digest {self._digests[name][:12]}",
                    f"{expert.digest[:12]}",
                    "take the expert that the student was amalgamated with",
                )
            self._loaded[name] = expert
        return self._loaded[name]


@dataclass(slots=True, eq=False)
class LoadedStudent:
    """A student ready to run.

    Parameters
    ----------
    student : Student
        In evaluation mode, float32, on `device`.
    card : dict
        What student.json tells about it beside its configuration: ``version``, ``created``,
        ``lineage``, ``data`` (sources and licences), ``metrics``, ``notes``.
    experts : Experts
        By name, loaded lazily.
    digest : str
        Of weights and configuration; names its cached features.
    device : torch.device
        Where it runs.
    """

    student: Student
    card: dict[str, Any]
    experts: Experts
    digest: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def config(self) -> StudentConfig:
        """The numbers the student is built from."""
        return self.student.config
