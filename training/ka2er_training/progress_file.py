"""Tell another program, such as the napari widget, how far a command is."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_ka2er.core.io.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Progress = Callable[[float, str], None]

_INTERVAL_S = 0.5


@contextmanager
def progress_in(path: Path | None, also: Progress) -> Iterator[Progress]:
    """Yield a function that tells `also` and keeps the newest state in a file.

    Parameters
    ----------
    path : Path or None
        JSON with ``share`` (0 to 1) and ``what``, written under a temporary name and renamed, at
        most twice a second; None writes nothing.
    also : callable
        Told every time.
    """
    written = 0.0

    def tell(share: float, what: str) -> None:
        nonlocal written
        also(share, what)
        if path is not None and (time.monotonic() - written >= _INTERVAL_S or share >= 1):
            written = time.monotonic()
            with replacing(path) as partial:
                partial.write_text(json.dumps({"share": round(share, 4), "what": what}), "utf-8")

    yield tell
