"""What goes wrong because of the input, told in one line."""

from __future__ import annotations

from typing import Any


class UserError(ValueError):
    """Input that cannot be used.

    The message is one line for the person at the keyboard: what was wanted, what was got, and what
    to do about it.  The command line prints it and ends with exit status 2; the widget shows it as
    one notification.

    Parameters
    ----------
    wanted : str
        What the code can work with.
    got : str
        What it was given.
    remedy : str, optional
        What to do.
    result : optional
        Plain data that `--json` prints all the same: what is wrong, or what was done before.
    """

    def __init__(self, wanted: str, got: str, remedy: str = "", *, result: Any = None) -> None:
        message = f"wanted {wanted}, got {got}" + (f"; {remedy}" if remedy else "")
        super().__init__(" ".join(message.split()))
        self.wanted, self.got, self.remedy, self.result = wanted, got, remedy, result

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str, str], dict[str, Any]]:
        """Let the parts travel to another process, not the message made of them."""
        return type(self), (self.wanted, self.got, self.remedy), {"result": self.result}


class CancelledError(RuntimeError):
    """Long work was stopped on request; nothing half-written is left."""
