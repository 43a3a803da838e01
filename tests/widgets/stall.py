"""How long the window's thread did not come back to its event loop, and what for."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtCore import Qt, QTimer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INTERVAL_MS = 5


@dataclass(frozen=True, slots=True)
class Stall:
    """One gap between two turns of the event loop.

    `work_ms` is what the thread itself computed in it; the rest of `wall_ms` it waited, for the
    interpreter that another thread holds, for the disk, or for a busy machine.  `napari_ms` is the
    part of the work in which napari sliced a layer, drew its canvas, built or removed a layer's
    controls and visuals, or Python's collector walked all objects of the process.
    """

    phase: str
    wall_ms: float
    work_ms: float
    napari_ms: float = 0.0

    @property
    def own_ms(self) -> float:
        """What is left for the plugin."""
        return self.work_ms - self.napari_ms


class NapariTime:
    """Adds up the thread's seconds in napari's slicing, drawing, adding and removing, and in `gc`.

    Nested parts count once.  Nothing is counted before `watch`.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._since = 0.0

    def watch(self, viewer: Any) -> None:
        """Time a window's drawing and layers, and the collector, from now on."""
        draw = viewer.window._qt_viewer.canvas._scene_canvas.events.draw
        draw.connect(self._enter, position="first")
        draw.connect(self._leave, position="last")
        model = getattr(viewer, "__wrapped__", viewer)
        for name in ("insert", "remove"):
            setattr(model.layers, name, self._timed(getattr(model.layers, name)))
        Layer.refresh = self._timed(Layer.refresh)  # a process is measured once
        gc.callbacks.append(self._collected)

    def _timed(self, act: Callable[..., object]) -> Callable[..., object]:
        def timed(*args: object, **kwargs: object) -> object:
            self._enter()
            try:
                return act(*args, **kwargs)
            finally:
                self._leave()

        return timed

    def _enter(self, event: object = None) -> None:
        if not self._depth:
            self._since = time.thread_time()
        self._depth += 1

    def _leave(self, event: object = None) -> None:
        self._depth -= 1
        if not self._depth:
            self.seconds += time.thread_time() - self._since

    def _collected(self, phase: str, info: Mapping[str, int]) -> None:
        if threading.current_thread() is threading.main_thread():
            (self._enter if phase == "start" else self._leave)()


@dataclass
class StallMeter:
    """Measures with a timer of 5 ms in the window's thread.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose window.
    least_ms : float
        Shorter gaps are not kept.
    """

    viewer: Any
    least_ms: float = 15.0
    stalls: list[Stall] = field(default_factory=list)
    phase: str = ""

    def __post_init__(self) -> None:
        self._napari = NapariTime()
        self._napari.watch(self.viewer)
        self._timer = QTimer(interval=INTERVAL_MS, timerType=Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._last = self._now()

    def begin(self, phase: str) -> None:
        """Start measuring a phase; what came since the last turn is not counted."""
        self.phase = phase
        self._last = self._now()
        self._timer.start()

    def stop(self) -> None:
        """Stop measuring."""
        self._timer.stop()

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.thread_time(), self._napari.seconds

    def _tick(self) -> None:
        now = self._now()
        wall, work, napari = (1000 * (b - a) for a, b in zip(self._last, now, strict=True))
        if wall >= self.least_ms:
            self.stalls.append(Stall(self.phase, wall, work, napari))
        self._last = now


def table(stalls: list[Stall]) -> str:
    """Return the longest gap of each phase, a line each: whole, and without napari's part."""
    rows = []
    for phase in dict.fromkeys(stall.phase for stall in stalls):
        of_phase = [stall for stall in stalls if stall.phase == phase]
        whole = max(stall.work_ms for stall in of_phase)
        own = max(stall.own_ms for stall in of_phase)
        rows.append(f"{phase:<12} {whole:6.0f} ms, beside napari's work {own:6.0f} ms")
    return "\n".join(rows)
