"""The model's process, kept from one job and one session to the next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.errors import CancelledError

if TYPE_CHECKING:
    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.service import PredictorService
    from napari_ka2er.widgets.runner import IsCancelled, Report


@dataclass(frozen=True, slots=True)
class Choice:
    """What to work with: a student's folder, one of its tasks, a mode and a device."""

    student: Path
    task: str
    mode: str
    device: str = "auto"


class Services:
    """Hands out the model's process for a student, with a volume; starts it when it is needed.

    A process that died, because memory ran out for example, is replaced by the next job.  `ready`
    is for one worker thread, `close` for any.

    Parameters
    ----------
    launch : callable, optional
        Starts a process for a choice.
    """

    def __init__(self, launch: Callable[[Choice], PredictorService] | None = None) -> None:
        self._launch = launch or _launch
        self._lock = threading.Lock()
        self._service: PredictorService | None = None
        self._for: tuple[Any, ...] = ()
        self._volume: Volume | None = None
        self._is_closed = False

    def begin(self, choice: Choice) -> PredictorService:
        """Return the process for a choice; it may still be loading the student."""
        wanted = (choice.student, choice.mode, choice.device)
        with self._lock:
            if self._is_closed:
                raise CancelledError("the window was closed")
            service = self._service
            if service is None or self._for != wanted or not is_alive(service):
                self._drop()
                service = self._service = self._launch(choice)
                self._for = wanted
            return service

    def ready(
        self, choice: Choice, volume: Volume, report: Report, is_cancelled: IsCancelled
    ) -> PredictorService:
        """Return the process once it has loaded the student and a volume."""
        service = self.begin(choice)
        service.wait_ready(report, is_cancelled)
        if self._volume is not volume:
            service.set_volume(volume)
            self._volume = volume
        return service

    def close(self) -> None:
        """End the process; whoever waits for it is told so."""
        with self._lock:
            self._is_closed = True
            self._drop()

    def _drop(self) -> None:
        if self._service is not None:
            self._service.close()
        self._service = self._volume = None


def is_alive(service: PredictorService) -> bool:
    """Return whether a process still runs."""
    return bool(service.is_alive)


def _launch(choice: Choice) -> PredictorService:
    from napari_ka2er.model.service import PredictorService

    return PredictorService(choice.student, choice.mode, choice.device, None)
