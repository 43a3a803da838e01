"""What goes wrong because of the input, told in one line."""

from __future__ import annotations


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
    """

    def __init__(self, wanted: str, got: str, remedy: str = "") -> None:
        message = f"wanted {wanted}, got {got}" + (f"; {remedy}" if remedy else "")
        super().__init__(" ".join(message.split()))
        self.wanted, self.got, self.remedy = wanted, got, remedy

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str, str]]:
        """Let the parts travel to another process, not the message made of them."""
        return type(self), (self.wanted, self.got, self.remedy)


class CancelledError(RuntimeError):
    """Long work was stopped on request; nothing half-written is left."""
