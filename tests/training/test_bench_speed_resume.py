import json

import numpy as np
import pytest

from ka2er_training.bench import probes, speed
from ka2er_training.bench.probes import ProbeSettings, run_probe
from ka2er_training.bench.references import synthetic_ct
from napari_ka2er.core.errors import UserError
from napari_ka2er.model.catalogue import sample_folder

CT = sample_folder() / "volumes" / "ct_chest.nii.gz"


@pytest.fixture
def measured(monkeypatch):
    """Measurements take no time; their names are listed, and one of them fails once."""
    names, failing = [], ["expert_pass"]

    def pretend(name, settings):
        if name in failing:
            failing.remove(name)
            raise UserError("the measurement to finish", "no memory")
        names.append(f"{name} {settings.mode} {settings.expert}".strip())
        return {"cpu_s": [2.0], "wall_s": [9.0], "peak_mib": 9.0, "ready_mib": 5.0, "what": name}

    monkeypatch.setattr(speed, "probe", pretend)
    return names


def measure(out, repeats=3):
    return speed.measure_speed("sample", CT, "", repeats, out=out)


def test_a_report_goes_on_where_it_stopped(measured, tmp_path):
    with pytest.raises(UserError, match="no memory"):
        measure(tmp_path)
    kept = json.loads((tmp_path / "speed.json").read_text("utf-8"))["measurements"]
    assert "pass full" in kept
    assert "expert lungs" not in kept
    result = measure(tmp_path)
    assert len(measured) == len(set(measured)) == len(result["measurements"])
    assert result["ratios"]["pass sparse / all experts' own passes"] == pytest.approx(
        1 / 3, abs=1e-3
    )
    assert "expert lungs" in (tmp_path / "speed.md").read_text("utf-8")


def test_other_repeats_are_measured_anew(measured, tmp_path):
    with pytest.raises(UserError):
        measure(tmp_path)
    before = len(measured)
    result = measure(tmp_path, repeats=6)
    assert len(measured) - before == len(result["measurements"])


def test_the_load_is_told_beside_the_times(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (7.4, 1.0, 1.0))
    speed.measure_speed("sample", CT, "lungs", 1, ("click",), out=tmp_path)
    assert "Load average 7 to 7" in (tmp_path / "speed.md").read_text("utf-8")


def test_without_a_load_as_on_windows_nothing_is_told_of_it(measured, tmp_path, monkeypatch):
    monkeypatch.delattr(speed.os, "getloadavg")
    speed.measure_speed("sample", CT, "lungs", 1, ("click",), out=tmp_path)
    assert "Load average" not in (tmp_path / "speed.md").read_text("utf-8")


def test_without_a_task_the_one_that_fits_is_measured():
    """The sample student's first task would walk through a chest at 1 mm."""
    assert speed.open_settings("sample", CT, "", 1).task == "lungs"
    t1 = sample_folder() / "volumes" / "icbm_t1.nii.gz"
    assert speed.open_settings("sample", t1, "", 1).task == "brain_tissue"


def test_the_computed_ct_is_a_chest_in_hounsfield_units():
    ct = synthetic_ct((20, 40, 30), (10.0, 9.0, 12.0))
    assert ct.data.dtype == np.int16
    assert ct.spacing == pytest.approx((10.0, 9.0, 12.0))
    middle = ct.data[10]
    for place, value in (((0, 0), -1000), ((20, 9), -820), ((20, 15), 40)):
        assert abs(int(middle[place]) - value) < 75
    np.testing.assert_array_equal(ct.data, synthetic_ct((20, 40, 30)).data)


def test_the_large_volume_is_segmented_as_it_lies_in_memory(student_folder, monkeypatch):
    monkeypatch.setattr(probes, "synthetic_ct", lambda: synthetic_ct((30, 40, 28), (3.0, 3.0, 3.0)))
    settings = ProbeSettings(str(student_folder), str(CT), "two", 1, "distilled")
    spent = run_probe("large_ct", settings)
    assert spent.what == "automatic pass, distilled, two, computed 30x40x28"
    assert spent.peak_mib >= spent.ready_mib > 0
