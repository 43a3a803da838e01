"""How long the window's thread did not come back to its event loop."""

from __future__ import annotations

import time
from dataclasses import dataclass

from qtpy.QtCore import QObject, Qt, QTimer

INTERVAL_MS = 5


@dataclass(frozen=True, slots=True)
class Stall:
    """One gap between two turns of the event loop.

    `work_ms` is what the thread itself computed in it; the rest of `wall_ms` it waited, for the
    interpreter that another thread holds, for the disk, or for a busy machine.
    """

    phase: str
    wall_ms: float
    work_ms: float


class StallMeter(QObject):
    """Measures with a timer of 5 ms in the window's thread.

    Parameters
    ----------
    least_ms : float
        Shorter gaps are not kept.
    """

    def __init__(self, least_ms: float = 15.0) -> None:
        super().__init__()
        self._least_ms = least_ms
        self.stalls: list[Stall] = []
        self.phase = ""
        self._timer = QTimer(self, interval=INTERVAL_MS, timerType=Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._wall = self._work = 0.0

    def begin(self, phase: str) -> None:
        """Start measuring a phase; what came since the last turn is not counted."""
        self.phase = phase
        self._wall, self._work = time.perf_counter(), time.thread_time()
        self._timer.start()

    def stop(self) -> None:
        """Stop measuring."""
        self._timer.stop()

    def longest(self, phase: str | None = None) -> Stall:
        """Return the gap with the most work, of one phase or of all."""
        found = [s for s in self.stalls if phase in (None, s.phase)]
        return max(found, key=lambda s: s.work_ms, default=Stall(phase or "", 0.0, 0.0))

    def table(self) -> str:
        """Return the longest gap of each phase, a line each."""
        phases = dict.fromkeys(stall.phase for stall in self.stalls)
        rows = [self.longest(phase) for phase in phases]
        return "\n".join(f"{s.phase:<12} {s.work_ms:6.0f} ms of {s.wall_ms:6.0f} ms" for s in rows)

    def _tick(self) -> None:
        wall, work = time.perf_counter(), time.thread_time()
        gap_ms = 1000 * (wall - self._wall)
        if gap_ms >= self._least_ms:
            self.stalls.append(Stall(self.phase, gap_ms, 1000 * (work - self._work)))
        self._wall, self._work = wall, work
