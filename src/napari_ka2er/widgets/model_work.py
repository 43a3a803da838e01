"""What the student does for a session, one thing at a time: segment, answer, fill, explain."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_ka2er.widgets import jobs
from napari_ka2er.widgets.looking import centre_of_view, go_to_slice, slice_axis
from napari_ka2er.widgets.maps import Maps, next_slice
from napari_ka2er.widgets.parts import BUSY
from napari_ka2er.widgets.prompt_queue import Answer
from napari_ka2er.widgets.results import ExpertMap, Filled, Segmented, Uncertainty
from napari_ka2er.widgets.runner import Job, LatestRunner
from napari_ka2er.widgets.services import Services
from napari_ka2er.widgets.session_edits import SessionEdits

FILL_AFTER_MS = 1500  # a window takes about a second: not between the clicks of a series
BETWEEN_FILLS_MS = 20  # so that a click comes first
LONG = ("starting", "segmenting", "map")


class ModelWork(SessionEdits):
    """The model's work for a session; see `SessionBase`.

    Signals
    -------
    progressed(float, str)
        Share done of the work, and what is being done.
    """

    progressed = Signal(float, str)

    def __init__(self, viewer: Any, services: Services, parent: QObject | None = None) -> None:
        super().__init__(viewer, parent)
        self._services = services
        self._work = ""
        self._runner = LatestRunner(self, discard=_discard)
        self._runner.finished.connect(self._take)
        self._runner.failed.connect(self._model_failed)
        self._runner.cancelled.connect(self._stopped)
        self._runner.progressed.connect(self._progress)
        self._maps: Maps | None = None
        self._seen: dict[int, set[int]] = {}  # axis -> uncertain slices that were gone to
        self._goes_on_to_slice = False
        self.is_filling = True
        self.filled_share = 0.0
        self._ask_timer = QTimer(self, singleShot=True, interval=0)
        self._ask_timer.timeout.connect(self._answer_next)
        self._fill_timer = QTimer(self, singleShot=True, interval=FILL_AFTER_MS)
        self._fill_timer.timeout.connect(self._fill_next)

    @property
    def work(self) -> str:
        """What runs: starting, segmenting, answering, map, tool, or nothing."""
        return self._work or ("tool" if self._n_tools else "")

    @property
    def is_long(self) -> bool:
        """Whether something runs that a click must wait for."""
        return self._work in LONG

    # --------------------------------------------------------------- work

    def segment(self) -> None:
        """Let the student segment all labels of the task."""
        with self._reporting():
            self._begin_long("segmenting", jobs.segmenting(self._need().session))

    def segment_label(self) -> None:
        """Let the student segment the chosen label only; other labels stay."""
        with self._reporting():
            started = self._need()
            started.task.label(self.label)
            self._begin_long("segmenting", jobs.segmenting(started.session, self.label))

    def show_uncertainty(self) -> None:
        """Show how unsure the student is of each voxel, as a layer."""
        with self._reporting():
            self._begin_long("map", jobs.doubting(self._need().task.name))

    def show_expert_map(self) -> None:
        """Show how much each expert was trusted, a layer each."""
        with self._reporting():
            self._begin_long("map", jobs.trusting(self._need().task.name))

    def next_uncertain_slice(self) -> None:
        """Go to the slice the student is least sure of that was not looked at yet."""
        if self._maps is None or self._maps.uncertainty is None:
            self.show_uncertainty()
            self._goes_on_to_slice = self._work == "map"
            return
        with self._reporting():
            axis, _ = self.shown_slice()
            scores = self._maps.uncertainty.slices[axis]
            reviewed = self._reviewed(axis, len(scores))
            seen = self._seen.setdefault(axis, set())
            index = next_slice(scores, reviewed, seen)
            if index is None:
                self._tell_all_seen(seen)
                return
            seen.add(index)
            layer = self.view.labels if self.view is not None else None
            if layer is not None:
                go_to_slice(self._viewer.dims, layer, index)
                name = "ZYX"[slice_axis(self._viewer.dims, layer)]
                self.told.emit(f"Slice {index} across {name}: uncertainty {scores[index]:.3f}.")

    def _reviewed(self, axis: int, n_slices: int) -> frozenset[int]:
        """Return the slices across an axis that were reviewed, one by one or with the volume."""
        session = self._need().session
        region, shape = session.state.reviewed, session.volume.shape
        return frozenset(i for i in range(n_slices) if region.has_slice(axis, i, shape))

    def _tell_all_seen(self, seen: set[int]) -> None:
        again = "All uncertain slices were looked at; the next is the first again."
        self.told.emit(again if seen else "Every slice is reviewed.")
        seen.clear()

    def set_filling(self, is_filling: bool) -> None:
        """Encode the volume in the background while nothing else runs, or do not."""
        self.is_filling = is_filling
        if is_filling:
            self._fill_timer.start(0)
        elif self._runner.is_busy and not self._work:
            self._runner.cancel()
        self._note()

    def cancel(self) -> None:
        """Stop the model's work; what was encoded is kept, and prompts that wait are answered.

        If prompts are being answered, those that wait are not answered either.
        """
        queue = self._queue
        if queue is not None and self._work == "answering":
            self._act(lambda _: queue.clear())
        if self._work:
            self._runner.cancel()

    # -------------------------------------------------------------- answers

    def _model(self, work: str, act: jobs.ModelJob) -> None:
        self._submit(work, jobs.modelling(self._need(), self._services, act))

    def _begin_long(self, work: str, act: jobs.ModelJob) -> None:
        """Let the model do what takes long, unless it is at such work: that would be dropped."""
        if self.is_long:
            self.told.emit(f"{BUSY[0].upper()}{BUSY[1:]}.")
        else:
            self._model(work, act)

    def _submit(self, work: str, job: Job) -> None:
        self._fill_timer.stop()
        self._goes_on_to_slice = False
        self._work = work
        self._runner.submit(job)
        self._note()

    def _take(self, result: object) -> None:
        with self._reporting():
            match result:
                case Segmented() if self._desk is not None:
                    self._act(result.commit, lambda done: self.told.emit(str(done)))
                case Answer():
                    self._answered(result)
                case Filled() if self._desk is not None:
                    self._filled(result)
                case Uncertainty() if self._maps is not None:
                    self._maps.show_uncertainty(result)
                    self._seen = {}
                case ExpertMap() if self._maps is not None:
                    self._maps.show_experts(result)
        goes_on = isinstance(result, Uncertainty) and self._goes_on_to_slice
        self._ended()
        if goes_on:
            self.next_uncertain_slice()

    def _answered(self, answer: Answer) -> None:
        queue, result = self._queue, answer.result

        def tell(is_wanted: bool) -> None:
            if is_wanted:
                self.told.emit(f"Answered in {result.seconds:.1f} s.")
            self._ask_timer.start()

        if queue is not None:
            self._act(lambda _: queue.take(answer), tell)

    def _filled(self, filled: Filled) -> None:
        self.filled_share = filled.share
        if filled.n_windows:
            self.progressed.emit(filled.share, "encoded, so that clicks are quick")

    def _progress(self, share: float, what: str) -> None:
        if self._work:
            self.progressed.emit(share, what)

    def _model_failed(self, error: Exception) -> None:
        queue = self._queue
        if self._work == "answering" and queue is not None:
            self._act(lambda _: queue.give_up())
        if not self._work:
            self.is_filling = False  # else it would fail again and again
        self._fail(error)
        self._ended()

    def _stopped(self) -> None:
        if self._work:
            self.told.emit("Stopped. What was encoded is kept.")
        self._ended()

    def _ended(self) -> None:
        if not self._runner.is_busy:
            pause_ms = FILL_AFTER_MS if self._work else BETWEEN_FILLS_MS
            self._work = ""
            self._ask_timer.start()
            if self.is_filling and self.filled_share < 1:
                self._fill_timer.start(pause_ms)
        self._note()

    def _answer_next(self) -> None:
        """Ask for the newest object that waits; the others follow when it is answered."""
        desk, queue = self._desk, self._queue
        if desk is None or queue is None or self.is_long or not queue.is_waiting:
            return
        self._model("answering", jobs.answering(desk, queue, self._need().task))

    def _fill_next(self) -> None:
        """Encode one window more near where the viewer looks, if nothing else is to be done."""
        if self._started is None or self._runner.is_busy or not self.is_filling:
            return
        if self.view is None or self.view.labels is None:
            return
        geometry = self._started.session.volume.geometry
        z, y, x = geometry.to_world(centre_of_view(self._viewer, self.view.labels))
        around = float(z), float(y), float(x)
        self._model("", jobs.filling(self._started.task.name, around))


def _discard(result: object) -> None:
    """Close what nobody gets."""
    if isinstance(result, jobs.Started):
        result.session.close()
