"""Volumes of thick and thin slices in one viewer: what is shown is what is worked on."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from tests.widgets import panelling

from napari_ka2er.core.prompts import Point
from napari_ka2er.widgets.looking import on_voxels, slice_axis, slice_index
from napari_ka2er.widgets.slice_tools import two_points

SHAPE = (6, 8, 10)


@pytest.fixture
def viewer():
    """A scan with voxels of 4 mm and one of 2 mm: every second slice lies half way."""
    viewer = ViewerModel()
    viewer.add_image(np.zeros(SHAPE, np.float32), name="scan", scale=(4, 4, 4))
    viewer.add_image(np.zeros((12, 16, 20), np.float32), name="thin", scale=(2, 2, 2))
    return viewer


@pytest.fixture
def session(controller, viewer, tmp_path, qtbot):
    controller._model = lambda *_: None  # there is no student to answer
    session = panelling.begin(controller, viewer.layers["scan"], tmp_path / "session")
    panelling.idle(controller, qtbot)
    return session


def seen(labels):
    """Return the slice that napari shows of a layer whose labels are numbered by slice."""
    return int(np.asarray(labels._slice.image.raw)[0, 0])


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_the_slice_is_the_one_that_napari_shows(viewer, order):
    axis, shape = order[0], [1, 1, 1]
    shape[axis] = SHAPE[axis]
    numbered = np.broadcast_to(np.arange(SHAPE[axis]).reshape(shape), SHAPE).astype(np.uint8)
    labels = viewer.add_labels(numbered, scale=(4, 4, 4))
    viewer.dims.order = order
    for index in (0, 0.5, 1, 1.25, 1.5, 2.5, 3.5):
        viewer.dims.set_point(axis, 4 * index)
        assert slice_index(viewer.dims, labels) == seen(labels), index


def click_half_way(controller, viewer, axis, at):
    """Show what lies between two slices, and return where a click there is, in voxels."""
    viewer.dims.order = (axis, *(a for a in range(3) if a != axis))
    viewer.dims.set_point(axis, 4 * at[axis])
    assert slice_axis(viewer.dims, controller.view.labels) == axis
    return controller.view.points.world_to_data(4 * np.array(at))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("half", [1.5, 2.5])
def test_a_point_is_a_prompt_for_the_voxel_that_is_shown(
    session, controller, viewer, qtbot, axis, half
):
    at = [3.0, 4.2, 5.3]
    at[axis] = half
    controller.view.points.add(click_half_way(controller, viewer, axis, at))
    panelling.idle(controller, qtbot)
    qtbot.waitUntil(lambda: len(controller.objects()) == 1)
    [point] = controller.objects()[0].prompts.values()
    index = session.volume.geometry.to_index(point.position_mm)
    at[axis] = controller.shown_slice()[1]
    assert at[axis] == 2
    np.testing.assert_allclose(index, at, atol=1e-6)
    qtbot.waitUntil(lambda: np.allclose(controller.view.points.data, [at], atol=1e-6))


@pytest.mark.parametrize("kind", ["rectangle", "path", "polygon"])
def test_so_are_shapes(session, controller, viewer, qtbot, kind):
    click_half_way(controller, viewer, 0, [2.5, 0, 0])
    corners = np.array([[2.5, 1, 1], [2.5, 1, 5], [2.5, 4, 5], [2.5, 4, 1]])
    controller.view.shapes.add(corners, shape_type=kind)
    panelling.idle(controller, qtbot)
    qtbot.waitUntil(lambda: len(controller.objects()) == 1)
    qtbot.waitUntil(lambda: np.allclose(controller.view.shapes.data[0][:, 0], 2))
    [thing] = controller.objects()
    assert controller.shown_slice() == (0, 2)
    assert len(thing.prompts) == 1
    controller.view.points.add([3, 3, 3])  # which nothing else moves with
    panelling.idle(controller, qtbot)
    assert session.state.n_prompts == 2


def test_prompts_of_before_stay_where_they_are(session, controller, viewer, qtbot):
    place = session.volume.geometry.to_world((2.5, 3, 3))
    controller.add_prompt(Point(tuple(map(float, place))))
    panelling.idle(controller, qtbot)
    points = controller.view.points
    points.add([4, 4, 4])
    panelling.idle(controller, qtbot)
    points.data = points.data + np.array([[0, 0, 0], [0, 0, 1]])  # the second one is dragged
    panelling.idle(controller, qtbot)
    first, _ = session.prompts(1).values()
    np.testing.assert_allclose(first.position_mm, place)


def test_the_reviewed_slice_is_the_one_that_is_shown(session, controller, viewer, qtbot):
    viewer.dims.set_point(0, 4 * 2.5)
    controller.mark_slice_reviewed(True)
    panelling.idle(controller, qtbot)
    assert session.state.reviewed.slices[0] == {2}


def test_two_points_half_way_are_voxels_of_what_is_shown(session, controller, viewer):
    points = viewer.add_points([[2.5, 1, 1], [2.5, 4.5, 5]], scale=(4, 4, 4))
    points.selected_data = {0, 1}
    assert two_points(viewer, controller.view) == ((2, 1, 1), (2, 4, 5))


def test_only_what_is_flat_or_half_way_is_moved():
    np.testing.assert_array_equal(on_voxels(np.array([[1.5, 2.2, 3.4]])), [[2, 2.2, 3.4]])
    outline = np.array([[1.25, 2.2, 3.5], [1.25, 4.5, 6.1]])
    np.testing.assert_array_equal(on_voxels(outline), [[1, 2.2, 3.5], [1, 4.5, 6.1]])
