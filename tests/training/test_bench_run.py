"""The whole amalgamation benchmark on phantoms, with untrained experts and two steps each."""

import json

import pytest
from tests.model.folders import make_expert
from tests.training.conftest import write_raw

from ka2er_training.bench.cells import in_order, missing
from ka2er_training.bench.experts import has_converged
from ka2er_training.bench.means import expert_folder
from ka2er_training.bench.report import write_report
from ka2er_training.bench.run import RUNNERS, open_benchmark
from ka2er_training.bench.running import listing, run_missing
from ka2er_training.cli import main
from ka2er_training.sources import read_source
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Task

SETTINGS = """
[tasks.near]
spacing_mm = [2.0, 2.0, 2.0]
folds = ["p0_a"]
max_train = 2
[tasks.far]
spacing_mm = [3.0, 3.0, 3.0]
folds = ["p0_a"]
max_train = 2
[expert]
epochs = 2
[student]
steps = 2
few_label_steps = 1
polish_steps = 1
click_steps = 1
seeds = [0]
few_labels = [1]
[measurement]
shift_cases = 1
click_cases = 1
clicks = [0, 1]
cost_repeats = 1
"""


@pytest.fixture
def bench(tmp_path):
    """Two tasks of four phantoms each, and settings for trainings that teach nothing."""
    for name in ("near", "far"):
        write_raw(tmp_path / "data" / name, n_cases=4)
    (tmp_path / "tiny.toml").write_text(SETTINGS)
    return tmp_path


def pretend_experts_are_trained(plan, store, data):
    """Finish the expert cells with untrained networks: training nnU-Net has tests of its own."""
    for cell in missing(plan.cells(), store):
        if cell.kind == "expert":
            source = read_source(data / cell.settings["folder"])
            task = Task(cell.settings["task"], source.labels, source.modality)
            make_expert(expert_folder(cell, store), task, 0)
            curve = {"train_losses": [1.0] * 10, "dice_on_patches": [0.5] * 10}
            store.keep(cell, {"curve": curve, "converged": True, "n_cases": 2}, 1.0, 1.0)


def test_what_is_missing_is_listed_and_time_stops_the_run(bench, capsys):
    command = ["bench", "amalgamation", str(bench / "data"), "--out", str(bench / "out")]
    command += ["--settings", str(bench / "tiny.toml")]
    assert main([*command, "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert "expert near" in listed[0]
    n = len(listed) - 1
    assert listed[-1] == f"{n} of {n} cells are missing"
    assert main([*command, "--max-minutes", "0", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert len(summary["missing"]) == n
    assert "Nothing is finished yet" in (bench / "out/report/amalgamation.md").read_text(
        encoding="utf-8"
    )


def test_missing_data_are_refused(bench, caplog):
    command = ["bench", "amalgamation", str(bench), "--out", str(bench / "out")]
    assert main([*command, "--settings", str(bench / "tiny.toml")]) == 2
    assert "near" in caplog.text


def test_what_is_missing_is_listed_as_text_or_as_json(bench, capsys):
    data, settings = str(bench / "data"), str(bench / "tiny.toml")
    command = ["bench", "amalgamation", data, "--out", str(bench / "o"), "--settings", settings]
    command += ["--list", "--only", "expert near"]
    assert main(command) == 0
    assert "4 of 4 cells are missing" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert "expert near" in str(json.loads(capsys.readouterr().out)["missing"])
    assert not (bench / "o").exists()


def test_a_file_in_the_place_of_the_output_folder_is_refused_at_once(bench, caplog):
    out = bench / "tiny.toml"
    command = ["bench", "amalgamation", str(bench / "data"), "--out", str(out), "--settings"]
    assert main([*command, str(out)]) == 2
    assert "which is a file" in caplog.text


def test_a_cell_that_fails_is_told_by_the_exit_status(bench, monkeypatch, caplog):
    def fail(cell, store, means):
        raise UserError("an expert", "trouble")

    monkeypatch.setitem(RUNNERS, "expert", fail)
    command = ["bench", "amalgamation", str(bench / "data"), "--out", str(bench / "o")]
    command += ["--settings", str(bench / "tiny.toml"), "--only", "expert near"]
    assert main(command) == 2
    assert "trouble" in caplog.text
    assert (bench / "o" / "report" / "amalgamation.md").is_file()


@pytest.mark.slow
def test_every_kind_of_cell_runs_and_the_report_says_what_was_measured(bench):
    plan, store = open_benchmark(bench / "data", bench / "out", str(bench / "tiny.toml"))
    pretend_experts_are_trained(plan, store, bench / "data")
    outcome = run_missing(plan.cells(), store, RUNNERS, bench / "data", device="cpu")
    assert outcome.failed == {}
    assert listing(plan.cells(), store) == [f"0 of {len(in_order(plan.cells()))} cells are missing"]
    path = write_report(plan, store, bench / "out" / "report", "ka2er bench amalgamation")
    text = path.read_text(encoding="utf-8")
    for title in ("Dice by system and task", "Few labels", "Domain shift", "What K experts cost"):
        assert f"## {title}" in text
    assert "| missing" not in text
    assert "0 cells are missing" in text
    raw = json.loads((path.parent / "amalgamation.json").read_text(encoding="utf-8"))
    assert {entry["table"] for entry in raw} == {"main", "few", "shift", "clicks", "cost"}
    control = [cell for cell in in_order(plan.cells()) if cell.kind == "untrained"]
    trained = {store.result(cell).get("digest") for cell in control}
    assert len(trained) == 2  # one set of fresh weights per task


def test_a_curve_that_still_falls_has_not_converged():
    assert has_converged([1.0 / (1 + i) for i in range(100)])
    assert not has_converged([1.0 - 0.01 * i for i in range(100)])
    assert not has_converged([0.5, 0.5, 0.5])


def test_unknown_presets_are_refused(bench):
    text = SETTINGS.replace("epochs = 2", 'preset = "huge"')
    (bench / "tiny.toml").write_text(text)
    with pytest.raises(UserError, match="huge"):
        open_benchmark(bench / "data", bench / "out", str(bench / "tiny.toml"))
