"""Prompts in the layers and prompts in the session are the same, whatever is done to either."""

from __future__ import annotations

import numpy as np
import pytest
from tests.widgets.conftest import settle

from napari_ka2er.core.prompts import Box, Lasso, Scribble
from napari_ka2er.widgets.looking import slice_axis
from napari_ka2er.widgets.tools import Tool

AT = np.array((6, 20, 15))


def in_plane(axis, centre, half):
    """Return the corners of a square in the slice across an axis through a voxel."""
    first, second = (a for a in range(3) if a != axis)
    corners = np.tile(np.array(centre, float), (4, 1))
    corners[[1, 2], first] += half
    corners[[2, 3], second] += half
    corners[[0, 3], first] -= half
    corners[[0, 1], second] -= half
    return corners


def prompts_of(controller):
    return [prompt for thing in controller.objects() for prompt in thing.prompts.values()]


def index_of(controller, position_mm):
    return controller.session.volume.geometry.to_index(position_mm)


def test_a_negative_click_looks_different_and_is_sent_as_negative(started, qtbot, failures):
    started.view.points.add(AT)
    settle(started, qtbot)
    started.set_tool(Tool.NEGATIVE)
    started.view.points.add(AT + np.array((0, 6, 0)))
    settle(started, qtbot)
    assert not failures
    assert [p.positive for p in started.session.prompts(1).values()] == [True, False]
    first, second = started.view.points.face_color
    assert not np.allclose(first, second)
    assert len(set(map(str, started.view.points.symbol))) == 2
    assert started.session.mask[tuple(AT + np.array((0, 6, 0)))] == 0
    assert started.session.mask[tuple(AT)] == 1


def test_points_that_are_moved_or_deleted_change_their_prompts(started, qtbot, failures):
    points = started.view.points
    points.add(AT)
    settle(started, qtbot)
    points.add(AT + np.array((0, 4, 0)))
    settle(started, qtbot)
    points.data = points.data + np.array([[0, 0, 0], [0, 0, 2]])  # as napari tells of a drag
    settle(started, qtbot)
    second = list(started.session.prompts(1).values())[1]
    at = AT + np.array((0, 4, 2))
    np.testing.assert_allclose(index_of(started, second.position_mm), at, atol=1e-6)
    assert started.session.mask[tuple(at)] == 1
    points.selected_data = {0}
    points.remove_selected()
    settle(started, qtbot)
    assert not failures
    assert len(started.session.prompts(1)) == 1
    np.testing.assert_allclose(points.data, [at])
    points.selected_data = {0}
    points.remove_selected()
    settle(started, qtbot)
    assert not started.session.mask.any(), "with its last point the object's result goes"


@pytest.mark.parametrize("at", [(-20.0, 0.0, 0.0), (5, 39.6, 5), (5, 5, 500)])
def test_a_click_beside_the_volume_is_refused_and_drawn_away(started, qtbot, failures, at):
    started.view.points.add(at)
    settle(started, qtbot)
    assert len(failures) == 1
    assert "inside the volume" in failures[0]
    assert len(started.view.points.data) == 0
    assert not started.objects()


def test_of_points_added_at_once_the_good_ones_stay(started, qtbot, failures):
    started.view.points.add(np.array([(5, 5, 500), AT, (5, 600, 5)]))
    settle(started, qtbot)
    assert len(failures) == 2
    np.testing.assert_allclose(started.view.points.data, [AT])
    assert started.session.mask[tuple(AT)] == 1


def test_a_click_in_3d_display_has_no_depth_and_is_refused(started, viewer, qtbot, failures):
    viewer.dims.ndisplay = 3
    started.view.points.add(AT)
    settle(started, qtbot)
    assert "3D" in failures[0]
    assert len(started.view.points.data) == 0
    viewer.dims.ndisplay = 2
    started.view.points.add(AT)
    settle(started, qtbot)
    assert len(failures) == 1
    assert started.session.mask[tuple(AT)] == 1


@pytest.mark.parametrize(
    ("tool", "kind", "shape_type"),
    [
        (Tool.BOX, Box, "rectangle"),
        (Tool.SCRIBBLE, Scribble, "path"),
        (Tool.SCRIBBLE_NEGATIVE, Scribble, "path"),
        (Tool.LASSO, Lasso, "polygon"),
    ],
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_shapes_on_any_axis_are_prompts_that_can_be_moved_and_deleted(
    started, qtbot, failures, tool, kind, shape_type, axis
):
    started.set_tool(tool)
    assert started.view.tool == tool
    shapes, corners = started.view.shapes, in_plane(axis, AT, 2)
    shapes.add(corners, shape_type=shape_type)
    settle(started, qtbot)
    assert not failures
    [prompt] = prompts_of(started)
    assert isinstance(prompt, kind)
    assert prompt.positive == (tool != Tool.SCRIBBLE_NEGATIVE)
    if kind is Box:
        ends = index_of(started, [prompt.low_mm, prompt.high_mm])
        expected = [corners.min(axis=0), corners.max(axis=0)]
        np.testing.assert_allclose(ends, expected, atol=1e-6)
    else:
        np.testing.assert_allclose(index_of(started, prompt.path_mm), corners, atol=1e-6)
    shapes.data = [shapes.data[0] + np.array((1.0, 1.0, 1.0))]
    shapes.events.data(value=shapes.data, action="changed", data_indices=(0,), vertex_indices=((),))
    settle(started, qtbot)
    [moved] = prompts_of(started)
    assert isinstance(moved, kind)
    started.undo()
    settle(started, qtbot)
    np.testing.assert_allclose(shapes.data[0].min(axis=0), corners.min(axis=0), atol=1e-4)
    shapes.selected_data = {0}
    shapes.remove_selected()
    settle(started, qtbot)
    assert not failures
    assert not prompts_of(started)
    assert len(shapes.data) == 0


def test_an_ellipse_is_no_prompt_and_goes_away(started, qtbot, failures):
    started.view.shapes.add(in_plane(0, AT, 2), shape_type="ellipse")
    settle(started, qtbot)
    assert "ellipse" in failures[0]
    assert len(started.view.shapes.data) == 0


def test_a_deep_box_stays_deep_when_its_outline_is_moved(started, qtbot, failures):
    geometry = started.session.volume.geometry
    low, high = (tuple(map(float, geometry.to_world(i))) for i in ((4, 10, 8), (8, 30, 20)))
    started.add_prompt(Box(low, high))
    settle(started, qtbot)
    shapes = started.view.shapes
    np.testing.assert_allclose(shapes.data[0][:, 0], 6)
    shapes.data = [shapes.data[0] + np.array((1.0, 0.0, 2.0))]
    shapes.events.data(value=shapes.data, action="changed", data_indices=(0,), vertex_indices=((),))
    settle(started, qtbot)
    assert not failures
    [box] = prompts_of(started)
    np.testing.assert_allclose(
        index_of(started, [box.low_mm, box.high_mm]), [(5, 10, 10), (9, 30, 22)], atol=1e-6
    )


def test_one_can_go_back_to_an_object_and_delete_it_in_one_step(started, qtbot, failures):
    first_at, second_at = AT, np.array((6, 20, 3))
    started.view.points.add(first_at)
    settle(started, qtbot)
    started.new_object()
    settle(started, qtbot)
    assert started.current_object is None
    started.view.points.add(second_at)
    settle(started, qtbot)
    assert [(o.number, o.corrects) for o in started.objects()] == [(1, True), (2, False)]
    started.set_label(2)
    started.select_object(1)
    settle(started, qtbot)
    assert (started.label, started.current_object) == (1, 1)
    started.view.points.add(first_at + np.array((0, 3, 0)))
    settle(started, qtbot)
    assert len(started.session.prompts(1)) == 2
    before = started.session.mask.copy()
    started.delete_object(1)
    settle(started, qtbot)
    assert [o.number for o in started.objects()] == [2]
    assert started.session.mask[tuple(first_at)] == 0
    assert len(started.view.points.data) == 1
    started.undo()
    settle(started, qtbot)
    assert not failures
    assert [o.number for o in started.objects()] == [1, 2]
    np.testing.assert_array_equal(started.session.mask, before)


def test_after_accept_the_next_prompt_begins_an_object_that_corrects(started, qtbot):
    started.view.points.add(AT)
    settle(started, qtbot)
    started.accept()
    started.view.points.add(AT + np.array((0, 5, 5)))
    settle(started, qtbot)
    assert [(o.number, o.corrects) for o in started.objects()] == [(1, True), (2, True)]
    assert started.session.mask[tuple(AT)] == 1


def test_prompts_are_the_same_however_the_axes_are_rolled(started, viewer, qtbot, failures):
    """Rolling only turns the picture: the same click gives the same mask."""
    view, masks = started.view, []
    for order in [(0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0)]:
        viewer.dims.order = order
        assert slice_axis(viewer.dims, view.labels) == order[0]
        world = view.points.data_to_world(AT)
        viewer.dims.set_point((0, 1, 2), world)
        view.points.add(view.points.world_to_data(world))  # as napari does with a click
        settle(started, qtbot)
        masks.append(started.session.mask.copy())
        started.mark_slice_reviewed(True)
        settle(started, qtbot)
        assert AT[order[0]] in started.session.state.reviewed.slices[order[0]]
        started.undo()
        settle(started, qtbot)
        assert started.session.state.reviewed.is_empty()  # nobody has seen the slice so
        assert not started.session.mask.any()
    assert not failures
    assert masks[0][tuple(AT)] == 1
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])
