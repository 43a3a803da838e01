from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.training.packages import THREE_SLICES, correction, package
from tests.training.rounds import make_workspace

from ka2er_training.cases import draw, prepare_case
from ka2er_training.ingest import ingest
from ka2er_training.ingest_plan import plan_ingest
from ka2er_training.plan import preset
from ka2er_training.reamalgamate import warm_recipe, warm_student
from ka2er_training.registry import student_folder
from ka2er_training.retrain_settings import RetrainSettings
from ka2er_training.round_ingredients import round_ingredients, weighted_sources
from ka2er_training.round_state import RoundOptions
from ka2er_training.round_student import round_recipe
from ka2er_training.settings import parse_settings
from ka2er_training.student_work import _some_case
from ka2er_training.teaching import ALONE, Teaching, kept_habits, lasting
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_volume
from napari_ka2er.core.package import read_package
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.experts import Expert


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with an untrained student after a round's packages came in."""
    folder = tmp_path_factory.mktemp("reamalgamate")
    workspace = make_workspace(folder)
    path = package(
        folder / "p", correction(workspace, 10), correction(workspace, 11, "", THREE_SLICES)
    )
    ingest(workspace, plan_ingest(workspace, [read_package(path)], 1))
    return workspace


def with_settings(workspace, **changes):
    settings = dataclasses.replace(workspace.settings.retrain, **changes)
    return Workspace(workspace.folder, dataclasses.replace(workspace.settings, retrain=settings))


def test_a_round_is_short_slow_and_warm():
    recipe = warm_recipe(RetrainSettings(), "tiny", 7, {"polish": 5})
    full = preset("tiny")
    assert recipe.sizes.schedule.steps == round(0.2 * full.schedule.steps)
    assert recipe.sizes.schedule.learning_rate == pytest.approx(0.3 * full.schedule.learning_rate)
    assert recipe.sizes.schedule.warm_up <= recipe.sizes.schedule.steps // 8
    assert recipe.sizes.polish.steps == 5
    assert recipe.seed == recipe.sizes.clicks.seed == 7
    assert recipe.teaching.steps == recipe.sizes.schedule.steps
    assert (recipe.teaching.positive_weight, recipe.teaching.collapse) == (1.0, 0.0)
    assert recipe.teaching.routing == 0.0


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_round_goes_on_as_the_student_was_taught(made, from_scratch):
    strength = (("balls", 1.3),)
    taught = Teaching(steps=9, alone=0.5, task_strength=strength)
    habits = kept_habits(json.loads(json.dumps({"teaching": lasting(taught)})))
    options = RoundOptions(from_scratch=from_scratch)
    teaching = round_recipe(made, options, 1, habits).teaching
    assert (teaching.alone, teaching.task_strength) == (0.5, strength)
    assert teaching.mixed_from == 0.0
    usual = round_recipe(made, options, 1, kept_habits({})).teaching
    assert (usual.alone, usual.task_strength) == (ALONE, ())
    assert kept_habits({"teaching": lasting(usual)}) == {"task_strength": ()}


@pytest.mark.parametrize(("share", "expected"), [(0.5, 0.5), (0.8, 0.8), (0.0, 0.0), (1.0, 1.0)])
def test_a_round_s_corrections_are_drawn_as_often_as_set(made, share, expected):
    sources = weighted_sources(with_settings(made, oversampling=share), "balls", 1)
    weights = {source.name: source.weight for source in sources}
    new = sum(weight for name, weight in weights.items() if name.startswith("case"))
    assert new / sum(weights.values()) == pytest.approx(expected)
    others = weighted_sources(made, "others", 1)
    assert {source.weight for source in others} == {1.0}


def test_without_replay_only_corrections_are_left(made):
    alone = with_settings(made, replay=False)
    assert {s.name[:4] for s in weighted_sources(alone, "balls", 1)} == {"case"}
    assert weighted_sources(alone, "others", 1) == []


def test_cases_are_drawn_by_weight():
    cases = [SimpleNamespace(name=n, weight=w) for n, w in (("old", 0.25), ("new", 0.75))]
    generator = np.random.default_rng(0)
    found = Counter(_some_case(cases, generator).name for _ in range(2000))
    assert found["new"] / 2000 == pytest.approx(0.75, abs=0.03)


def test_a_warm_student_has_its_parent_s_weights_and_names_the_new_experts(made):
    parent = load_student(student_folder(made)).student
    for head in parent.shortcut.heads:
        torch.nn.init.normal_(head.weight)
    experts = [Expert.load(made.expert_folder(name)) for name in made.tasks]
    experts[0].digest = "f" * 64
    student = warm_student(parent, experts)
    assert [entry.digest for entry in student.config.experts] == ["f" * 64, experts[1].digest]
    weights = parent.state_dict()
    # The parent has trained its copies of the last layers; only the retrained expert's is new.
    others = [n for n in weights if not n.startswith("shortcut.heads.0")]
    assert any(n.startswith("shortcut.heads.1") for n in others)
    assert all(torch.equal(student.state_dict()[n], weights[n]) for n in others)
    head = experts[0].head(student.config.experts[0].stages[1])
    assert not torch.equal(weights["shortcut.heads.0.weight"], head.weight)
    torch.testing.assert_close(student.shortcut.heads[0].weight, head.weight)
    experts[0].stage_channels = tuple(2 * n for n in experts[0].stage_channels)
    with pytest.raises(UserError, match="ka2er amalgamate"):
        warm_student(parent, experts)


def test_unreviewed_voxels_teach_nothing(made, tmp_path):
    config = load_student(student_folder(made)).student.config
    places = {name: made.expert_folder(name) for name in made.tasks}
    ingredients = round_ingredients(made, config, places, 1)
    source = next(s for s in ingredients.sources if "case11" in s.name)
    case = prepare_case(source, config.entry("balls"), (), tmp_path, soft=False)
    sample = draw(case, config, case.grid, with_features=False)
    valid = sample.valid[0, 0]
    # The grid reaches beyond the volume; its slices are as far apart as the volume's.
    reviewed = [read_volume(source.image).geometry.to_world((z, 5, 5)) for z in (7, 9, 11)]
    to_grid = np.linalg.inv(case.grid.affine)
    expected = sorted(round((to_grid @ [*point, 1.0])[0]) for point in reviewed)
    assert valid.flatten(1).any(dim=1).nonzero().flatten().tolist() == expected
    assert len(expected) == 3


def test_an_expert_that_is_missing_is_refused(made):
    config = load_student(student_folder(made)).student.config
    with pytest.raises(UserError, match="no others"):
        round_ingredients(made, config, {"balls": made.expert_folder("balls")}, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("oversampling = 1.5", "oversampling"),
        ("held_share = 0.95", "held_share"),
        ("replay = 1", "replay"),
        ("rate = 0.1", "rate"),
    ],
)
def test_unusable_settings_of_a_round_are_refused(text, words):
    with pytest.raises(UserError, match=words):
        parse_settings(f"format = 1\n[retrain]\n{text}\n")


def test_images_that_are_held_out_are_found_by_content_before_any_training(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "work")
    workspace = Workspace.open(tmp_path / "work")
    (held,) = workspace.holdout_cases("balls")
    trained = workspace.training_cases("balls")[0]
    before = trained.image.read_bytes()
    shutil.copyfile(held.image, trained.image)
    with pytest.raises(UserError, match="registered as"):
        weighted_sources(workspace, "balls", 1)
    trained.image.write_bytes(before)
    path = workspace.dataset_folder("balls") / "cases.json"
    cases = workspace.manifest("balls")
    for case in cases:
        if case["id"] == held.id:
            case["split"] = "training"
    path.write_text(json.dumps({"format": 2, "cases": cases}))
    with pytest.raises(UserError, match="no case ever leaves it"):
        weighted_sources(workspace, "balls", 1)
