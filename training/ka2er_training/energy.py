"""Energy that work took: measured by the processor where it may be read, otherwise estimated.

Intel and AMD processors count their energy (RAPL, ``/sys/class/powercap``); since 2020 only root
may read it on most systems.  What cannot be measured is estimated from processor time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

# Per busy core, a share of the package's and of the memory's power: between a laptop's ~5 W and a
# small server's ~15 W.  An assumption, which reports state beside every figure made with it.
WATTS_PER_CORE = 10.0
POWERCAP = Path("/sys/class/powercap")


def estimated_joules(cpu_s: float, watts: float = WATTS_PER_CORE) -> float:
    """Return the energy of processor time at a stated power of a busy core."""
    return cpu_s * watts


@dataclass(slots=True)
class EnergyMeter:
    """Counts the energy of the whole machine's processors from its making on.

    Others' work on the same machine is counted too.

    Parameters
    ----------
    folder : Path
        Where the counters are.
    """

    folder: Path = POWERCAP
    _last: dict[Path, int] = field(default_factory=dict)
    _joules: float = 0.0

    def __post_init__(self) -> None:
        self._last = self._read()

    def joules(self) -> float | None:
        """Return the energy since the beginning; None if the counters cannot be read.

        Must be called at least once per overflow (minutes to hours) to count right.
        """
        now = self._read()
        for domain in now.keys() & self._last.keys():
            step = now[domain] - self._last[domain]
            if step < 0:
                step += _number(domain / "max_energy_range_uj") or 0
            self._joules += step / 1e6
        self._last = now
        return self._joules if now else None

    def _read(self) -> dict[Path, int]:
        """Return the counters of processor packages in microjoules; parts of them are not added."""
        found = {}
        for domain in sorted(self.folder.glob("intel-rapl:*")):
            if domain.name.count(":") == 1:
                value = _number(domain / "energy_uj")
                if value is not None:
                    found[domain] = value
        return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
