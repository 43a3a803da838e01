"""Write the versions installed here as pip constraints to standard output."""

from __future__ import annotations

import sys
from importlib.metadata import distributions

# Ours, pip's own, and what torch pins itself per platform.
LEFT_OUT = ("napari-ka2er", "pip", "setuptools", "triton")
LEFT_OUT_PREFIXES = ("nvidia-", "cuda-")

HEAD = """\
# Versions the tests ran with.  `make` installs these; plain pip takes the newest ones allowed.
# Made by `make constraints`.
"""


def main() -> None:
    """Write one line per distribution, sorted by name."""
    versions = {
        (dist.metadata["Name"] or "").lower().replace("_", "-"): dist.version
        for dist in distributions()
    }
    lines = [
        f"{name}=={version}\n"
        for name, version in sorted(versions.items())
        if name and name not in LEFT_OUT and not name.startswith(LEFT_OUT_PREFIXES)
    ]
    sys.stdout.write(HEAD + "".join(lines))


if __name__ == "__main__":
    main()
