import json
from itertools import combinations

import numpy as np
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
    assert len({Label(value, "x").color for value in range(1, 22)}) == len(COLORS) == 21
    assert Label(22, "x").color == Label(1, "x").color


# Machado et al. 2009, severity 1: linear RGB as people without red, green or blue cones see it.
SEEN = [
    np.eye(3),
    [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
]
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color, seen):
    """CIELAB of #RRGGBB, as the eye of the matrix sees it."""
    value = np.array(list(bytes.fromhex(color[1:]))) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(np.array(seen) @ linear, 0, 1) / XYZ.sum(axis=1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen", SEEN, ids=["all", "no red", "no green", "no blue"])
def test_colour_blind_people_tell_all_default_colours_apart(seen):
    """A difference of 2.3 in CIELAB is just seen."""
    found = [lab(color, seen) for color in COLORS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(found, 2)) > 3 * 2.3


def test_a_short_colour_is_written_out():
    assert Label(1, "a", "#aB3").color == "#aaBB33"
    assert Label(1, "a", "#12aBcD").color == "#12aBcD"


@pytest.mark.parametrize(
    "build",
    [
        lambda: Label(0, "background"),
        lambda: Label(1, ""),
        lambda: Label(1, "a", "red"),
        lambda: Label(1, "a", "#12345"),
        lambda: Label(1, "a", "#11223344"),
        lambda: Label(1, "a", "#12345g"),
        lambda: Label(1, "a", "#123456\n"),
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
