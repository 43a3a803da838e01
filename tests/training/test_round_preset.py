from __future__ import annotations

import dataclasses
import json

import pytest
from tests.training.packages import correction, package
from tests.training.rounds import LENGTHS, make_workspace

from ka2er_training.cli import main
from ka2er_training.plan import PRESETS
from ka2er_training.retrain import dry_run, retrain
from ka2er_training.retrain_estimates import MEMORY_GIB
from ka2er_training.round_preset import config_of, preset_of, with_preset
from ka2er_training.round_state import RoundOptions, rounds, unfinished
from ka2er_training.round_student import round_recipe
from napari_ka2er.core.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with a student of preset tiny, and a package."""
    folder = tmp_path_factory.mktemp("preset")
    workspace = make_workspace(folder)
    return workspace, package(folder / "Dataset007_balls", correction(workspace, 10))


def sized(config, name):
    """Return a configuration with the sizes of a preset."""
    sizes = PRESETS[name]
    names = ("feature_size", "attention_window", "width", "heads", "dense_width", "merge_width")
    return dataclasses.replace(config, **{name: getattr(sizes, name) for name in names})


@pytest.fixture
def based(made, monkeypatch):
    """The same, but the student says that it is of preset base."""
    config = sized(config_of(made[0]), "base")
    monkeypatch.setattr(
        "ka2er_training.round_preset.read_student_json", lambda _: {"config": config.to_json()}
    )
    return made


def test_the_preset_is_that_of_the_student_s_sizes(made):
    config = config_of(made[0])
    assert preset_of(config) == "tiny"
    assert preset_of(sized(config, "base")) == "base"
    assert preset_of(dataclasses.replace(config, sparse_threshold=0.02)) == "tiny"
    assert preset_of(dataclasses.replace(config, width=24, heads=2)) == "tiny"  # the nearest


def test_a_round_has_the_schedule_of_its_student_s_preset(based):
    workspace, path = based
    assert with_preset(workspace, RoundOptions()).preset == "base"
    base = PRESETS["base"]
    told = dry_run(workspace.folder, [path], RoundOptions())["estimate"]
    assert told["steps"]["trunk"] == round(0.2 * base.schedule.steps)
    assert told["memory_gib"] == MEMORY_GIB["base"]
    sizes = round_recipe(workspace, RoundOptions(), 1).sizes
    assert (sizes.name, sizes.clicks.batch) == ("base", base.clicks.batch)


def test_another_preset_is_refused_before_anything_begins(based, caplog):
    workspace, path = based
    with pytest.raises(UserError, match=r"--preset base.*got tiny.*--from-scratch"):
        retrain(workspace.folder, [path], dataclasses.replace(LENGTHS, preset="tiny"))
    with pytest.raises(UserError, match="tiny, base"):
        retrain(workspace.folder, [path], dataclasses.replace(LENGTHS, preset="bsae"))
    assert unfinished(workspace) is None
    assert rounds(workspace) == []
    anew = RoundOptions(preset="tiny", from_scratch=True)
    assert with_preset(workspace, anew) == anew
    assert main(["retrain", str(workspace.folder), str(path), "--preset", "tiny", "--dry-run"]) == 2
    assert "--preset base" in caplog.text


def test_a_student_of_no_preset_s_size_takes_what_is_given(made, monkeypatch):
    config = dataclasses.replace(config_of(made[0]), width=24, heads=2)
    monkeypatch.setattr(
        "ka2er_training.round_preset.read_student_json", lambda _: {"config": config.to_json()}
    )
    assert with_preset(made[0], RoundOptions(preset="base")).preset == "base"


def test_the_command_hands_on_no_preset_of_its_own(based, capsys):
    workspace, path = based
    assert main(["retrain", str(workspace.folder), str(path), "--dry-run", "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["estimate"]["steps"]
    assert steps["polish"] == round(0.2 * PRESETS["base"].polish.steps)
