"""The whole amalgamation, with real (untrained) experts and volumes of a few voxels."""

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.model.folders import TASKS, make_expert
from torch import distributed, multiprocessing

from ka2er_training import cases as cases_module
from ka2er_training import polish as polish_module
from ka2er_training import stored_map
from ka2er_training.amalgamate import amalgamate, most_labelled, new_student, prepare_cases
from ka2er_training.bench.systems import VARIANTS
from ka2er_training.cases import Source, draw, prepare_case
from ka2er_training.click_work import train_clicks
from ka2er_training.plan import preset, student_config, task_entry, window_for
from ka2er_training.polish import HALLUCINATORS, TRAINED, polish
from ka2er_training.recipe import Ingredients, recipe_for
from ka2er_training.student_work import draw_states, student_work
from ka2er_training.teaching import Teaching
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.volume import Geometry
from napari_ka2er.model.alignment import ABSENT, HALLUCINATED, REAL
from napari_ka2er.model.student import Student

SPACING = (2.0, 2.0, 2.0)


def write_case(folder, name, seed, with_labels=True):
    """Write a volume of (24, 40, 20) voxels of 2 mm with two bright boxes as labels 1 and 2."""
    labels = np.zeros((24, 40, 20), np.uint8)
    labels[6:14, 8:20, 4:12] = 1
    labels[14:20, 22:34, 8:16] = 2
    noise = np.random.default_rng(seed).normal(0, 0.1, labels.shape)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    image = folder / f"{name}_0000.nii.gz"
    nib.save(nib.Nifti1Image((labels + noise).astype(np.float32).T, affine), image)
    if not with_labels:
        return image, None
    nib.save(nib.Nifti1Image(labels.T, affine), folder / f"{name}.nii.gz")
    return image, folder / f"{name}.nii.gz"


@pytest.fixture(scope="module")
def ingredients(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    experts = [make_expert(folder / t.name, t, seed) for seed, t in enumerate(TASKS)]
    sources = []
    for seed, task in enumerate((TASKS[0], TASKS[0], TASKS[1])):
        image, label = write_case(folder, f"case{seed}", seed)
        sources.append(Source(f"case{seed}", task.name, image, label))
    image, _ = write_case(folder, "unlabelled", 9, with_labels=False)
    sources.append(Source("unlabelled", "one", image, None))
    return Ingredients({t.name: (t, SPACING) for t in TASKS}, sources, experts)


def small_recipe(steps=4):
    sizes = preset("tiny")
    schedule = dataclasses.replace(sizes.schedule, steps=steps, checkpoint_every=1, batch=1)
    clicks = dataclasses.replace(sizes.clicks, steps=2, batch=1)
    return recipe_for(dataclasses.replace(sizes, schedule=schedule, polish=clicks, clicks=clicks))


@pytest.fixture(scope="module")
def config(ingredients):
    sizes = preset("tiny")
    entries = [task_entry(t, s, [(48.0, 80.0, 40.0)], sizes) for t, s in ingredients.tasks.values()]
    return student_config(entries, ingredients.experts, sizes, "attention")


def weights(student):
    return torch.cat([p.detach().flatten() for p in student.parameters()])


def test_a_window_takes_image_labels_and_features_along(ingredients, config, tmp_path):
    case = prepare_case(ingredients.sources[0], config.entry("one"), ingredients.experts, tmp_path)
    window = Geometry((32, 64, 32), case.grid.affine)
    sample = draw(case, config, window)
    assert sample.image.shape == (1, 1, 32, 64, 32)
    assert sample.features.levels[1][0].shape[2:] == (32, 64, 32)
    # Label 1 fills 8 by 12 by 8 voxels, and images are bright where labels are.
    assert sample.target[0, 0].sum().item() == pytest.approx(8 * 12 * 8, rel=0.05)
    inside = sample.target[0, 1] > 0.9
    assert sample.image[0, 0][inside].mean() > sample.image[0, 0][~inside].mean() + 1
    assert not sample.valid[0, 0, :, 40:].any()  # beyond the volume nobody has annotated


def test_an_unlabelled_volume_teaches_by_the_experts_soft_targets_only(
    ingredients, config, tmp_path
):
    case = prepare_case(ingredients.sources[3], config.entry("one"), ingredients.experts, tmp_path)
    sample = draw(case, config, Geometry((32, 64, 32), case.grid.affine))
    assert not case.is_labelled
    assert not sample.valid.any()
    assert sample.soft.shape == (1, 2, 32, 64, 32)
    assert 0 <= sample.soft.min() < sample.soft.max() <= 1


def test_every_expert_looks_at_every_task(ingredients, config, tmp_path):
    cases = prepare_cases(ingredients, config, tmp_path)
    assert [len(case.views) for case in cases] == [2, 2, 2, 2]
    assert all(np.abs(case.views[k][0].data).max() > 0 for case in cases for k in (0, 1))


@pytest.mark.parametrize(
    ("more", "step", "share"),
    [
        ({}, 0, 0.0),  # experts are real in the first half
        ({}, 9, 0.25),
        ({"alone": 0.5, "mixed_from": 0.0}, 0, 0.5),
        ({"alone": 1.0, "mixed_from": 0.0}, 0, 1.0),
    ],
)
def test_so_many_windows_have_no_experts(more, step, share):
    teaching = Teaching(steps=10, expert_dropout=0.0, **more)
    states = [draw_states(teaching, 2, step, np.random.default_rng(i)) for i in range(2000)]
    # Two experts: with one of two states drawn for each, a quarter of "some" is "none" too.
    some = (1 - share) * (0.35 / 0.75 if step >= teaching.mixed_from * 10 else 0)
    found = np.mean([(state == HALLUCINATED).all().item() for state in states])
    assert found == pytest.approx(share + some / 4, abs=0.03)


def test_the_control_s_layers_see_no_expert(ingredients, config, tmp_path):
    teaching = Teaching(steps=10, **dict(VARIANTS["layers"].teaching))
    work = student_work(config, prepare_cases(ingredients, config, tmp_path)[:1], teaching)
    sample = work.draw(3, np.random.default_rng(0))
    torch.manual_seed(0)
    student = Student(config)
    for parameter in student.parameters():  # awake, or nothing of the layers would show
        torch.nn.init.normal_(parameter, std=0.02)
    found = []
    for factor in (1.0, -7.0):
        for maps in sample.features.levels.values():
            for values in maps:
                values.mul_(factor)
        torch.manual_seed(1)
        found.append(work.loss(student, sample, 3)["loss"].item())
    assert found[0] == found[1]
    recipe = dataclasses.replace(small_recipe(), teaching=teaching)
    assert polish(student, [], recipe, tmp_path / "polish") is student


@pytest.mark.parametrize("routing", [0.3, 0.0])
def test_a_round_polishes_without_the_loss_that_leads_to_the_own_expert(
    ingredients, config, tmp_path, routing
):
    cases = prepare_cases(ingredients, config, tmp_path / "cache")
    recipe = small_recipe()
    teaching = dataclasses.replace(recipe.teaching, routing=routing)
    torch.manual_seed(0)
    student = Student(config)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    recipe = dataclasses.replace(recipe, teaching=teaching)
    polished = polish(student, cases, recipe, tmp_path / "polish").state_dict()
    changed = [name for name, tensor in polished.items() if not torch.equal(tensor, before[name])]
    parts = {part for part in TRAINED if any(part in name for name in changed)}
    assert parts == set(TRAINED if routing else HALLUCINATORS)
    assert all(any(part in name for part in parts) for name in changed)
    (line, *_) = (tmp_path / "polish" / "scalars.jsonl").read_text("utf-8").splitlines()
    assert ("routing" in json.loads(line)) is bool(routing)


def test_polish_shows_real_experts_however_short_the_trunk_was(
    ingredients, config, tmp_path, monkeypatch
):
    taken = {}

    def spied(lesson, work, *_):
        taken["work"] = work
        return lesson

    monkeypatch.setattr(polish_module, "train", spied)
    cases = prepare_cases(ingredients, config, tmp_path / "cache")
    polish(Student(config), cases, small_recipe(steps=1), tmp_path / "polish")
    drawn = [taken["work"].draw(step, np.random.default_rng(step)) for step in range(12)]
    assert all((sample.features.state == REAL).all() for sample in drawn)


@pytest.mark.parametrize("other", [HALLUCINATED, ABSENT])
def test_hallucinators_learn_from_experts_that_have_run_only(ingredients, config, tmp_path, other):
    teaching = Teaching(steps=10, routing=0.0)
    case = prepare_case(ingredients.sources[0], config.entry("one"), ingredients.experts, tmp_path)
    work = student_work(config, [case], teaching)
    sample = work.draw(0, np.random.default_rng(0))
    sample.features.state = torch.tensor([[REAL, other]])
    torch.manual_seed(0)
    student = Student(config)
    work.loss(student, sample, 0)["alignment"].backward()
    for level in student.coarse.values():
        real, guessed = level.hallucinators
        assert all(p.grad.any() for p in real.parameters())
        assert not any(p.grad is not None and p.grad.any() for p in guessed.parameters())


def test_beyond_the_volume_no_expert_teaches_that_nothing_is_there(
    ingredients, config, tmp_path, monkeypatch
):
    expert = ingredients.experts[0]
    certain = np.zeros((3, 24, 40, 20), np.float32)
    certain[1] = 50  # of the first label, everywhere
    monkeypatch.setattr(expert, "predict_logits", lambda volume: certain)
    case = prepare_case(ingredients.sources[0], config.entry("one"), [expert], tmp_path)
    assert case.grid.shape == (24, 40, 24)  # two voxels of padding on either side
    sample = draw(case, config, Geometry((32, 64, 32), case.grid.affine), with_features=False)
    sure = (2 * (sample.soft - 0.5).abs()) * sample.inside
    assert sample.soft[0, 0, :24, :40, 2:22].min() > 0.99
    assert (sure[0, 0] > 0.01).sum() == 24 * 40 * 20


def test_arrays_of_another_format_are_not_used(ingredients, config, tmp_path, monkeypatch):
    source, entry = ingredients.sources[0], config.entry("one")
    now = prepare_case(source, entry, (), tmp_path).image.path
    monkeypatch.setattr(cases_module, "_FORMAT", 0)
    assert prepare_case(source, entry, (), tmp_path).image.path != now


def test_features_on_disk_are_not_made_again(ingredients, config, tmp_path, monkeypatch):
    prepare_cases(ingredients, config, tmp_path)
    for expert in ingredients.experts:
        monkeypatch.setattr(type(expert), "look", lambda *_: pytest.fail("looked again"))
    prepare_cases(ingredients, config, tmp_path)


def test_two_processes_may_put_the_same_array_on_disk_at_once(tmp_path, monkeypatch):
    """The second one begins and ends while the first is writing."""
    grid, save, begun = Geometry((2, 3, 4), np.eye(4)), np.save, []

    def slowly(path, values):
        save(path, values)
        if not begun:
            begun.append(path)
            stored()

    def stored():
        path = tmp_path / "case" / "image.npy"
        return stored_map.stored(path, grid, lambda: np.ones((2, 3, 4)))

    monkeypatch.setattr(stored_map.np, "save", slowly)
    assert (stored().data == 1).all()
    assert [path.name for path in (tmp_path / "case").iterdir()] == ["image.npy"]


def test_the_most_that_labels_measure_is_known_per_task(ingredients):
    # 8 x 12 x 8 and 6 x 12 x 8 voxels of 2 mm, in each labelled volume; one has no labels.
    assert most_labelled(ingredients.sources, "one") == {"most_ml": (768 + 576) * 0.008}
    assert most_labelled([s for s in ingredients.sources if s.label is None], "one") == {}


def test_gradient_checkpointing_changes_no_number(config):
    recipe, image = small_recipe(), torch.randn(1, 1, 32, 64, 32)
    gradients = []
    for saves in (False, True):
        recipe = dataclasses.replace(recipe, saves_memory=saves)
        student = new_student(dataclasses.replace(config, amalgamation="none"), recipe, [])
        student.foundation.net(image).square().mean().backward()
        weight = student.foundation.net.swinViT.patch_embed.proj.weight
        gradients.append(weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_amalgamation_broken_and_resumed_equals_an_unbroken_one(ingredients, tmp_path):
    recipe, cache = small_recipe(), tmp_path / "cache"
    whole, notes = amalgamate(ingredients, recipe, tmp_path / "whole", cache)
    calls = iter(range(100))
    with pytest.raises(CancelledError):
        amalgamate(ingredients, recipe, tmp_path / "cut", cache, cancelled=lambda: next(calls) >= 5)
    log = (tmp_path / "cut" / "trunk" / "scalars.jsonl").read_text("utf-8").splitlines()
    assert 0 < len(log) < 4
    resumed, _ = amalgamate(ingredients, recipe, tmp_path / "cut", cache, resume=True)
    assert torch.equal(weights(whole), weights(resumed))
    assert notes["n_cases"] == {"one": 3, "two": 1}
    assert notes["steps"]["trunk"] == recipe.sizes.schedule.steps
    scalars = [json.loads(line) for line in (tmp_path / "cut/trunk/scalars.jsonl").open()]
    assert all(np.isfinite(line["loss"]) for line in scalars)


def _train_one_of_two(rank, folder, ingredients):
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    student, _ = amalgamate(ingredients, two_windows(), folder / "two", folder / "cache")
    if rank == 0:
        torch.save(weights(student), folder / "two.pt")
    distributed.destroy_process_group()


def two_windows():
    recipe = small_recipe(2)
    names = ("schedule", "polish", "clicks")
    doubled = {n: dataclasses.replace(getattr(recipe.sizes, n), batch=2) for n in names}
    return dataclasses.replace(recipe, sizes=dataclasses.replace(recipe.sizes, **doubled))


@pytest.fixture
def one_thread():
    """As many as each of two processes has: more add in another order.

    AdamW's first steps make much of the last digit (5e-5 on two threads).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_two_gloo_processes_amalgamate_as_one_with_the_whole_batch(ingredients, tmp_path):
    one, _ = amalgamate(ingredients, two_windows(), tmp_path / "one", tmp_path / "cache")
    multiprocessing.spawn(_train_one_of_two, (tmp_path, ingredients), nprocs=2)
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    # A process that drew other windows, or half of them, would be off by the rate, 1e-3: AdamW's
    # first steps are of that size whatever the gradient.
    assert (weights(one) - two).abs().max() < 1e-6


@pytest.mark.slow
def test_clicks_leave_the_trunk_as_it_is(ingredients, tmp_path):
    recipe = small_recipe(2)
    student, _ = amalgamate(ingredients, recipe, tmp_path / "run", tmp_path / "cache")
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    cases = prepare_cases(ingredients, student.config, tmp_path / "cache")
    taught = train_clicks(student, cases, recipe, tmp_path / "clicks")
    changed = {n for n, t in taught.state_dict().items() if not torch.equal(t, before[n])}
    assert changed
    assert all(
        n.startswith(("prompt_encoder", "mask_decoder", "class_tokens", "to_gold", "to_dense"))
        for n in changed
    )


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((35, 50, 36), (32, 64, 32)),  # hippocampus crops at 1 mm
        ((64, 53, 53), (64, 32, 64)),  # a chest at 5 mm; the voxel limit is reached
        ((20, 20, 20), (64, 32, 32)),  # two tokens at the coarsest stage, or nothing to normalise
    ],
)
def test_windows_fit_the_volumes(size, window):
    found = window_for(size, preset("tiny"))
    assert sorted(found) == sorted(window)
    assert np.prod(found) <= 131072


def test_an_unknown_preset_is_refused():
    with pytest.raises(UserError, match="tiny, base"):
        preset("huge")
