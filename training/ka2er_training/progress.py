"""Show progress on a terminal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def progress_bar() -> Iterator[Callable[[float, str], None]]:
    """Yield a function of the done share (0 to 1) and what is being done; log lines stay readable.

    Without a terminal nothing is shown.
    """
    layout = "{percentage:3.0f}% {bar} {elapsed}<{remaining} {desc}"
    with tqdm(total=1.0, bar_format=layout, disable=None) as bar, logging_redirect_tqdm():

        def show(share: float, what: str) -> None:
            bar.set_description_str(what, refresh=False)
            bar.update(share - bar.n)

        yield show
