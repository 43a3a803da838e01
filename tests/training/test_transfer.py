"""What a student takes over from another one, and what it does not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.model.students import SHAPE, small_config, small_student, window_features
from tests.training.rounds import make_workspace

from ka2er_training.cli import main
from ka2er_training.students import AmalgamationPlan, amalgamate_workspace
from ka2er_training.transfer import in_common, take_over
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Label, Task
from napari_ka2er.model.catalogue import sample_folder
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.config import TaskEntry
from napari_ka2er.model.student import Student

OUTPUTS = {0: 2, 1: 0, 2: 1}  # tasks the other way round: "c", "a", "b"


@pytest.fixture
def parent():
    student = small_student(awake=True)
    for name, value in student.named_parameters():
        if name.startswith(("shortcut", "fine", "coarse")):
            torch.nn.init.normal_(value, std=0.1)
    return student


def child(**changes):
    torch.manual_seed(7)
    return Student(dataclasses.replace(small_config(), **changes)).eval()


def reversed_config():
    config = small_config()
    return {"tasks": config.tasks[::-1], "experts": config.experts[::-1]}


def swapped(features):
    levels = {stride: maps[::-1] for stride, maps in features.levels.items()}
    masks = {stride: mask.flip(1) for stride, mask in features.masks.items()}
    return dataclasses.replace(features, levels=levels, masks=masks, state=features.state.flip(1))


@torch.no_grad()
def test_the_same_tasks_and_experts_in_another_order_give_the_same_logits(parent):
    student = child(**reversed_config())
    kept = take_over(student, parent)
    assert kept.outputs == OUTPUTS
    assert kept.experts == {0: 1, 1: 0}
    image = torch.randn(1, 1, *SHAPE)
    wanted = parent.encode(image, window_features()).logits[:, list(OUTPUTS.values())]
    got = student.encode(image, swapped(window_features())).logits
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_a_task_and_an_expert_more_leave_what_there_was(parent):
    config = small_config()
    more = TaskEntry(Task("three", (Label(1, "d"),)), (1.0, 1.0, 1.0), SHAPE)
    other = dataclasses.replace(config.experts[0], name="three", digest="digest-three")
    student = child(tasks=(more, *config.tasks), experts=(*config.experts, other))
    fresh = {name: value.clone() for name, value in student.state_dict().items()}
    kept = take_over(student, parent)
    assert kept.amalgamation
    assert kept.outputs == {1: 0, 2: 1, 3: 2}
    new, old = student.state_dict(), parent.state_dict()
    out, tokens = "foundation.net.out.conv.conv.weight", "class_tokens.weight"
    torch.testing.assert_close(new[out][1:], old[out])
    torch.testing.assert_close(new[out][0], fresh[out][0])
    torch.testing.assert_close(new[tokens][1:], old[tokens])  # "any structure" is the last
    torch.testing.assert_close(
        new["coarse.8.expert_embedding"][:2], old["coarse.8.expert_embedding"]
    )
    name = "coarse.8.projections.{}.0.weight"
    torch.testing.assert_close(new[name.format(1)], old[name.format(1)])
    torch.testing.assert_close(new[name.format(2)], fresh[name.format(2)])


def test_among_other_experts_the_amalgamation_begins_as_a_new_one(parent):
    experts = tuple(dataclasses.replace(e, digest="others") for e in small_config().experts)
    student = child(experts=experts)
    fresh = {name: value.clone() for name, value in student.state_dict().items()}
    kept = take_over(student, parent)
    assert not kept.amalgamation
    for name, value in student.state_dict().items():
        is_new = name.startswith(("coarse.", "fine.", "shortcut."))
        torch.testing.assert_close(value, fresh[name] if is_new else parent.state_dict()[name])


def test_a_student_of_other_sizes_is_refused(parent):
    with pytest.raises(UserError, match="--from a student of feature size"):
        in_common(small_config(width=48), parent.config)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from", "nowhere"], "a student's folder or one of sample"),
        (["--from", "sample", "--foundation", "x.pt"], "wanted --foundation or --from, got both"),
    ],
)
def test_a_start_that_cannot_be_is_refused_in_a_line(tmp_path, caplog, options, said):
    assert main(["init", str(tmp_path / "work")]) == 0
    caplog.clear()
    assert main(["amalgamate", str(tmp_path / "work"), *options]) == 2
    [record] = [r for r in caplog.records if r.levelname == "ERROR"]
    assert said in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.slow
def test_a_workspaces_student_begins_with_the_one_that_ships(tmp_path):
    workspace = make_workspace(tmp_path / "work")
    folder = sample_folder() / "student"
    schedule = {"steps": 1, "polish_steps": 0, "click_steps": 0}
    results = {}
    for name, parent in (("anew", None), ("from", folder)):
        plan = AmalgamationPlan(parent=parent, **schedule)
        result = amalgamate_workspace(workspace, plan)
        results[name] = load_student(workspace.folder / "students" / result["version"])
    parent, student = load_student(folder), results["from"]
    assert student.card["notes"]["begun_with"] == parent.digest
    assert "begun_with" not in results["anew"].card["notes"]
    key = "mask_decoder.refinement.stem.0.weight"
    kept = student.student.state_dict()[key]
    torch.testing.assert_close(kept, parent.student.state_dict()[key], atol=1e-3, rtol=1e-2)
    assert not torch.allclose(results["anew"].student.state_dict()[key], kept, atol=1e-2)
