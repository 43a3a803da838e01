"""Parameters of tools that are of another kind than the tool can work with."""

import numpy as np
import pytest

from napari_ka2er.core import tools
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.volume import Geometry


@pytest.mark.parametrize(
    "given",
    [
        {"tool": "grow", "intensity": 5},
        {"tool": "grow", "intensity": [1]},
        {"tool": "grow", "intensity": [0, 1, 2]},
        {"tool": "grow", "intensity": ["a", "b"]},
        {"tool": "grow", "mm": None},
        {"tool": "grow", "mm": "3"},
        {"tool": "grow", "label": 1.5},
        {"tool": "grow", "label": "1"},
        {"tool": "grow", "label": True},
        {"tool": "copy-slice", "axis": None, "source": 1, "target": 3},
        {"tool": "copy-slice", "source": 1.0, "target": 3},
        {"tool": "copy-slice", "source": 1, "target": None},
        {"tool": "fill-holes", "axis": 1.0},
        {"tool": "fill-between", "axis": None},
        {"tool": "fill-between", "keys": 5},
        {"tool": "fill-between", "keys": [1, 2.5]},
        {"tool": "split", "into": 2, "keep": [1, 2], "split": [1, 3]},
        {"tool": "split", "into": 2, "keep": ["a", 2, 2], "split": [1, 3, 3]},
        {"tool": "split", "into": 2, "keep": [1, 2, 2], "split": [1.7, 3, 3]},
        {"tool": "merge", "other": None},
    ],
)
def test_a_parameter_of_another_kind_is_refused_in_one_line(given):
    with pytest.raises(UserError, match=f"for {given['tool']}|of {given['tool']}") as raised:
        tools.tool_from_json({"label": 1, **given})
    assert "\n" not in str(raised.value)


def test_nothing_is_a_parameter_where_it_means_without():
    assert tools.tool_from_json({"tool": "fill-holes", "label": 1, "axis": None}).axis is None
    assert tools.tool_from_json({"tool": "fill-between", "label": 1, "keys": None}).keys is None
    assert tools.tool_from_json({"tool": "grow", "label": 1, "intensity": None}).intensity is None


def test_numbers_of_numpy_s_are_as_good_as_python_s():
    """The widget's come from arrays."""
    voxels = {"keep": tuple(np.array([1, 2, 3])), "split": (1, 2, 4)}
    call = tools.Split(np.uint8(1), into=np.int64(2), **voxels)
    assert call == tools.Split(1, into=2, keep=(1, 2, 3), split=(1, 2, 4))
    assert tools.Grow(1, mm=np.float32(2), intensity=(np.float32(1), np.int16(2))).mm == 2


def test_no_slices_to_fill_between_are_not_all_slices():
    labels = np.zeros((9, 8, 7), np.uint8)
    labels[::4, 2:6, 2:6] = 1
    call = tools.tool_from_json({"tool": "fill-between", "label": 1, "keys": []})
    with pytest.raises(UserError, match="two slices"):
        call.apply(labels, None, Geometry(labels.shape, np.eye(4)))
