import dataclasses
from types import SimpleNamespace

import pytest

from ka2er_training.cases import Source
from ka2er_training.plan import preset
from ka2er_training.recipe import Ingredients, recipe_for
from ka2er_training.run_identity import STAGES, begin, identity_of
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Label, Task

TASK = Task("t", (Label(1, "a"),))


@pytest.fixture
def made(tmp_path):
    """Return a function that makes the identity of a run, with something changed."""
    image, label = tmp_path / "a.nii.gz", tmp_path / "a_label.nii.gz"
    image.write_bytes(b"image")
    label.write_bytes(b"label")

    def identity(
        *,
        seed=0,
        digest="one",
        centres=((0.0, 0.0, 0.0),),
        mirroring=(0, 1, 2),
        strength=0.7,
        label_bytes=b"label",
        foundation=None,
    ):
        label.write_bytes(label_bytes)
        sources = [Source("a", "t", image, label)]
        entry = {"mirroring": mirroring}
        experts = [SimpleNamespace(digest=digest, token_centres=centres, entry=entry)]
        recipe = recipe_for(preset("tiny"), seed, augmentation=strength)
        recipe = dataclasses.replace(recipe, foundation=foundation)
        return identity_of(Ingredients({"t": (TASK, (1.0, 1.0, 1.0))}, sources, experts), recipe)

    return identity


def leave_checkpoints(folder):
    for stage in STAGES:
        (folder / stage).mkdir(parents=True, exist_ok=True)
        (folder / stage / "checkpoint.pt").write_bytes(b"old")


def test_a_new_run_finds_no_checkpoint_of_the_one_before(made, tmp_path):
    leave_checkpoints(tmp_path / "run")
    begin(tmp_path / "run", made(), resume=False)
    assert not list((tmp_path / "run").rglob("checkpoint.pt"))


def test_the_same_run_goes_on(made, tmp_path):
    begin(tmp_path / "run", made(), resume=False)
    leave_checkpoints(tmp_path / "run")
    begin(tmp_path / "run", made(), resume=True)
    assert len(list((tmp_path / "run").rglob("checkpoint.pt"))) == len(STAGES)


def test_a_run_of_before_there_were_identities_goes_on(made, tmp_path):
    leave_checkpoints(tmp_path / "run")
    begin(tmp_path / "run", made(), resume=True)
    assert len(list((tmp_path / "run").rglob("checkpoint.pt"))) == len(STAGES)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "other settings"),
        ({"digest": "two"}, "other experts"),
        ({"centres": ((0.5, 0.5, 0.5),)}, "other experts"),
        ({"mirroring": None}, "other experts"),
        ({"strength": 0.5}, "other settings"),
        ({"label_bytes": b"corrected"}, "other volumes"),
    ],
)
def test_another_run_is_refused_and_named_and_nothing_is_lost(made, tmp_path, change, named):
    begin(tmp_path / "run", made(), resume=False)
    leave_checkpoints(tmp_path / "run")
    with pytest.raises(UserError, match=f"{named} now.*leave --resume out"):
        begin(tmp_path / "run", made(**change), resume=True)
    assert len(list((tmp_path / "run").rglob("checkpoint.pt"))) == len(STAGES)
    begin(tmp_path / "run", made(), resume=True)  # what was there before is still known


def test_another_foundation_is_another_run(made, tmp_path):
    weights = tmp_path / "model_swinvit.pt"
    weights.write_bytes(b"weights")
    begin(tmp_path / "run", made(foundation=weights), resume=False)
    weights.write_bytes(b"others.")
    with pytest.raises(UserError, match="other foundation now"):
        begin(tmp_path / "run", made(foundation=weights), resume=True)


@pytest.mark.parametrize(("processes", "is_same"), [(1, True), (2, True), (3, False)])
def test_processes_that_draw_other_windows_in_a_step_are_another_run(
    made, tmp_path, monkeypatch, processes, is_same
):
    begin(tmp_path / "run", made(), resume=False)  # two windows per step
    monkeypatch.setattr("ka2er_training.distributed.world_size", lambda: processes)
    if is_same:
        begin(tmp_path / "run", made(), resume=True)
        return
    with pytest.raises(UserError, match="other windows per step now"):
        begin(tmp_path / "run", made(), resume=True)


def test_how_often_checkpoints_are_written_may_change(made):
    recipe = recipe_for(preset("tiny"))
    often = dataclasses.replace(recipe.sizes.schedule, checkpoint_every=1)
    other = dataclasses.replace(recipe, sizes=dataclasses.replace(recipe.sizes, schedule=often))
    nothing = Ingredients({}, [], [])
    assert identity_of(nothing, recipe) == identity_of(nothing, other)
