import json

import numpy as np
import pytest
from tests.model.folders import blob, make_student_folder

from ka2er_training.bench import click_probe, click_speed
from ka2er_training.bench.click_probe import ClickSettings, clicks_on, cube, volume_of
from ka2er_training.cli import main
from napari_ka2er.core.io import write_volume
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume

TASK = Task("t", (Label(1, "a"), Label(3, "b")))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clicks")
    write_volume(folder / "blob.nii.gz", blob((20, 24, 22)))
    return make_student_folder(folder / "student"), folder / "blob.nii.gz"


def test_a_cube_keeps_what_lies_where():
    made = cube(blob((8, 5, 11)), 8)
    assert made.shape == (8, 8, 8)
    source = blob((8, 5, 11))
    for voxel in ((0, 0, 1), (7, 4, 8), (3, 2, 5)):
        at = np.round(made.geometry.to_index(source.geometry.to_world(voxel))).astype(int)
        assert made.data[tuple(at)] == source.data[voxel]
        np.testing.assert_allclose(
            made.geometry.to_world(at), source.geometry.to_world(voxel), atol=1e-9
        )
    assert (made.data == source.data.min()).sum() >= 8 * 3 * 8


def test_clicks_lie_at_the_border_of_what_was_found():
    labels = np.zeros((30, 40, 50), np.uint8)
    labels[5:20, 8:30, 10:40] = 1
    volume = Volume(labels, blob().affine)
    clicks = clicks_on(labels, TASK, volume.geometry, 24)
    assert [click.is_first for click in clicks[:6]] == [True, False, False, False, False, True]
    assert [click.label for click in clicks[::5]] == [1, 3, 1, 3, 1]
    assert clicks == clicks_on(labels, TASK, volume.geometry, 24)
    for click in clicks:
        z, y, x = np.round(volume.geometry.to_index(click.point.position_mm)).astype(int)
        if click.label == 1:
            assert (labels[z, y, x] == 1) != click.point.positive
            near = labels[max(z - 4, 0) : z + 5, max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5]
            assert {0, 1} <= set(np.unique(near))
    assert len({click.point.position_mm for click in clicks}) > 20


def test_the_volume_is_of_192_voxels_unless_one_is_named(files):
    assert volume_of("").shape == (192, 192, 192)
    assert volume_of(str(files[1])).shape == (20, 24, 22)


def test_both_ways_give_the_same_masks_with_cached_features(files, tmp_path):
    student, volume = map(str, files)
    settings = ClickSettings(student, volume, "one", 7, "sparse", cache=str(tmp_path))
    direct = click_probe.direct(settings)
    service = click_probe.service(settings)
    assert service["answers"] == direct["answers"]
    for measured in (direct, service):
        assert len(measured["wall_s"]) == len(measured["cpu_s"]) == 7
        assert min(measured["cpu_s"]) > 0
        assert measured["peak_mib"] > 100
    assert len(service["border_s"]) == 7
    for wall, border in zip(service["wall_s"], service["border_s"], strict=True):
        assert 0 < border < wall


def measured(cpu, **more):
    return {
        "wall_s": [cpu, cpu, 3 * cpu], "cpu_s": [cpu, 2 * cpu, 2 * cpu], "peak_mib": 300.0,
        "threads": 1, "answers": "same", "shape": [192, 192, 192], "volume": "v", **more,
    }  # fmt: skip


@pytest.mark.parametrize("has_reference", [True, False])
def test_the_object_is_the_one_that_the_design_asks_for(
    files, tmp_path, monkeypatch, capsys, has_reference
):
    seen = []

    def pretend(name, settings, module=""):
        seen.append(name)
        border = {"border_s": [0.001, 0.002, 0.004], "window_peak_mib": 90.0}
        return {
            "encode": {"n_windows": 4, "cpu_s": 2.0},
            "direct": measured(0.1),
            "service": measured(0.2, **border),
            "resenc_l": measured(25.0),
        }[name]

    monkeypatch.setattr(click_speed, "probe", pretend)
    student, volume = map(str, files)
    options = ["--student", student, "--volume", volume, "--out", str(tmp_path)]
    options += [] if has_reference else ["--no-reference"]
    assert main(["bench", "clicks", *options, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["click_s"] == {"p50": pytest.approx(0.2), "p95": pytest.approx(0.56)}
    assert printed["direct_click_s"]["p50"] == pytest.approx(0.1)
    assert printed["click_cpu_s"] == pytest.approx(0.4)
    assert printed["peak_mib"] == 300
    assert printed["same_answers"] is True
    assert ("resenc_l" in seen) == has_reference
    assert printed["cpu_ratio"] == (pytest.approx(50 / 0.4) if has_reference else None)
    assert printed["reference_cpu_s"] == (pytest.approx(50) if has_reference else None)
    assert json.loads((tmp_path / "clicks.json").read_text("utf-8")) == printed
    assert main(["bench", "clicks", *options]) == 0
    table = capsys.readouterr().out
    assert "| wall s | 0.200 (0.560) | 0.100 (0.280) |" in table
    assert ("ResEnc-L" in table) == has_reference


def test_what_cannot_be_measured_or_written_is_refused_before_it_is_measured(tmp_path, caplog):
    for name in ("clicks", "speed"):
        assert main(["bench", name, "--repeats", "0"]) == 2
    (tmp_path / "file").write_text("")
    assert main(["bench", "clicks", "--out", str(tmp_path / "file")]) == 2
    first, second, third = caplog.messages
    assert first == second == "error: wanted --repeats of at least 1, got 0"
    assert "which is a file" in third


@pytest.mark.slow
def test_the_command_measures_both_ways_for_real(files, capsys):
    student, volume = map(str, files)
    options = ["--student", student, "--volume", volume, "--repeats", "6", "--no-reference"]
    assert main(["bench", "clicks", *options, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["same_answers"]
    assert printed["n_clicks"] == 6
    assert printed["raw"]["encode"]["n_windows"] > 0
    assert 0 < printed["click_s"]["p50"] <= printed["click_s"]["p95"]
