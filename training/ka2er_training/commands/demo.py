"""The `demo` commands."""

from __future__ import annotations

from typing import Any


def add(commands: Any) -> None:
    """Add the commands of this group."""
