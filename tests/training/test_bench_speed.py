from time import sleep

import pytest
from tests.model.folders import blob, make_student_folder

from ka2er_training.bench import probes, speed
from ka2er_training.bench.probes import ProbeSettings, run_probe
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import write_volume


def spent(cpu):
    return {"cpu_s": [cpu, 2 * cpu, 3 * cpu], "wall_s": [cpu] * 3, "peak_mib": 300.0,
            "ready_mib": 100.0, "threads": 1, "what": "work"}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    write_volume(folder / "blob.nii.gz", blob((20, 24, 22)))
    return make_student_folder(folder / "student"), folder / "blob.nii.gz"


def test_ratios_are_those_of_the_design():
    measured = {
        "click": spent(0.1), "window distilled": spent(0.5), "window full": spent(1.0),
        "pass sparse": spent(3.0), "expert one": spent(2.0), "expert two": spent(4.0),
        "ResEnc-L 192³": {**spent(0), "cpu_s": [60.0]},
    }  # fmt: skip
    assert speed.ratios(measured) == {
        "ResEnc-L 192³ / click": 300.0,
        "window full / distilled": 2.0,
        "pass sparse / all experts' own passes": 0.5,
    }


def test_the_table_says_median_spread_and_memory():
    result = {
        "date": "2026-01-31", "machine": {"cpus": 2, "arch": "x"}, "student": "s",
        "volume": "v", "task": "t", "measurements": {"click": spent(0.1)}, "ratios": {},
    }  # fmt: skip
    (row,) = speed.speed_table(result).rows
    assert row == ("click", "0.20 [0.10, 0.30]", "0.10 [0.10, 0.10]", "300", "200", "work")


PROBES = ["encode_window", "encode_volume", "automatic_pass", "expert_pass", "click"]


@pytest.mark.parametrize("name", PROBES)
def test_probes_measure_time_and_memory(files, name):
    student, volume = map(str, files)
    settings = ProbeSettings(student, volume, "one", 2, "sparse", "two")
    measured = run_probe(name, settings)
    assert len(measured.cpu_s) == len(measured.wall_s) == 2
    assert all(seconds > 0 for seconds in measured.cpu_s)
    assert measured.peak_mib >= measured.ready_mib > 0


def test_seconds_of_many_units_are_those_of_one(monkeypatch):
    monkeypatch.setitem(probes.PROBES, "nap", lambda _: probes.Probe(lambda: sleep(0.4), "nap", 4))
    (seconds,) = run_probe("nap", ProbeSettings(repeats=1)).wall_s
    assert 0.1 <= seconds < 0.2


def test_a_click_in_a_process_of_its_own(files):
    student, volume = map(str, files)
    measured = speed.probe("click", ProbeSettings(student, volume, "one", 2))
    assert "features cached" in measured["what"]


def test_a_probe_that_fails_says_why(files):
    student, volume = map(str, files)
    with pytest.raises(UserError, match="nobody"):
        speed.probe("expert_pass", ProbeSettings(student, volume, "one", 1, "sparse", "nobody"))


def test_unknown_tasks_and_volumes_are_refused(files):
    student, volume = files
    with pytest.raises(UserError, match="'liver'"):
        speed.open_settings(str(student), volume, "liver", 1)
    with pytest.raises(UserError, match="does not exist"):
        speed.open_settings(str(student), volume.with_name("none.nii.gz"), "", 1)


def test_an_unknown_measurement_is_refused_with_those_that_there_are(files):
    student, volume = files
    with pytest.raises(UserError, match=r"click.*got clicks"):
        speed.measure_speed(str(student), volume, "", 1, ["clicks"])
