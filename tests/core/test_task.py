import json

import pytest

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import COLORS, Label, Task

TASK = Task("heart", (Label(1, "wall"), Label(5, "cavity", "#123456")), "CT", "both ventricles")


def test_tasks_survive_json():
    assert Task.from_json(json.loads(json.dumps(TASK.to_json()))) == TASK


def test_labels_are_found_by_value_and_by_name():
    assert TASK.label(5) is TASK.label("cavity")
    with pytest.raises(UserError, match="1 wall, 5 cavity"):
        TASK.label(2)


def test_colours_repeat_only_after_all_were_used():
    assert len({Label(value, "x").color for value in range(1, 8)}) == len(COLORS) == 7
    assert Label(8, "x").color == Label(1, "x").color


@pytest.mark.parametrize(
    "build",
    [
        lambda: Label(0, "background"),
        lambda: Label(1, ""),
        lambda: Task("with space", (Label(1, "a"),)),
        lambda: Task("none", ()),
        lambda: Task("twice", (Label(1, "a"), Label(1, "b"))),
        lambda: Task("same", (Label(1, "a"), Label(2, "a"))),
        lambda: Task.from_json({"name": "t", "labels": [{"value": 1, "name": "a"}], "extra": 1}),
        lambda: Task.from_json({"name": "t"}),
    ],
)
def test_what_cannot_be_told_apart_is_refused(build):
    with pytest.raises(UserError) as refused:
        build()
    assert "\n" not in str(refused.value)
