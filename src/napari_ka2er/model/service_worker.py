"""What the process of a `PredictorService` runs: ``python -m napari_ka2er.model.service_worker``.

The main thread listens, so that a cancel or the parent's end is heard at once; another one loads
the student and carries out one call after the other.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.model.answers import ModelError
from napari_ka2er.model.service_process import own_channel
from napari_ka2er.model.service_wire import LOADING, Call, Cancel, Done, Failed, Report
from napari_ka2er.model.service_work import Talk, Work

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from napari_ka2er.model.service_wire import Channel

NICE = 5  # the window is more urgent
_WATCH_S = 0.5


class Desk:
    """Takes calls, has them carried out in order, and sends what comes of them."""

    def __init__(self, channel: Channel, work: Work) -> None:
        self._channel = channel
        self._work = work
        self._cancelled: set[int] = set()
        self._pool = ThreadPoolExecutor(max_workers=1)

    def serve(self) -> None:
        """Listen until the other end is gone."""
        self._begin(Call(LOADING, "load", {}))
        while (message := self._channel.receive()) is not None:
            match message:
                case Cancel(number):
                    self._cancelled.add(number)
                case Call():
                    self._begin(message)

    def _begin(self, call: Call) -> None:
        future = self._pool.submit(self._carry_out, call)
        future.add_done_callback(partial(self._answer, call))

    def _carry_out(self, call: Call) -> Done:
        begun = time.perf_counter()
        talk = Talk(
            lambda share, what: self._channel.send(Report(share, what)),
            lambda: call.number in self._cancelled,
        )
        value = getattr(self._work, call.name)(talk, **call.arguments)
        return Done(value, time.perf_counter() - begun)

    def _answer(self, call: Call, future: Future[Done]) -> None:
        self._cancelled.discard(call.number)
        error = future.exception()
        self._channel.send(future.result() if error is None else Failed(_portable(error)))
        if error is not None and call.number == LOADING:
            os._exit(1)  # without a student there is nothing to do


def _portable(error: BaseException) -> Exception:
    """Return what can be raised in another process, whatever it was."""
    if isinstance(error, UserError):
        return UserError(error.wanted, error.got, error.remedy)
    if isinstance(error, CancelledError):
        return CancelledError(str(error))
    details = "".join(traceback.format_exception(error))
    sys.stderr.write(details)
    return ModelError(f"{type(error).__name__}: {error}", details)


def _end_without(parent: int) -> None:
    """End with the parent also where a process that it forked keeps the pipe open."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(0)


def main(arguments: Sequence[str]) -> None:
    """Serve the process that started this one; the argument holds its settings."""
    faulthandler.enable()  # a crash leaves a traceback in the log
    if hasattr(os, "nice"):
        os.nice(NICE)
    settings = json.loads(arguments[0])
    channel = own_channel()
    if os.name == "posix":
        threading.Thread(target=_end_without, args=(settings["parent"],), daemon=True).start()
    Desk(channel, Work(settings)).serve()
    os._exit(0)  # at once, whatever the other thread does


if __name__ == "__main__":
    main(sys.argv[1:])
