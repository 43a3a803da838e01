from __future__ import annotations

import sys

import pytest

from ka2er_training.round_state import peak_mib


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_memory_is_counted_in_the_system_s_own_unit(monkeypatch):
    """Linux tells KiB, macOS bytes."""
    monkeypatch.setattr(sys, "platform", "linux")
    of_kib = peak_mib()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_mib() == pytest.approx(of_kib / 1024, abs=1)
