"""What napari's users do to layers and viewers must not break a session, nor touch their layers."""

from __future__ import annotations

import hashlib
import pickle

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.utils.interactions import mouse_press_callbacks, mouse_release_callbacks
from tests.widgets import panelling
from tests.widgets.conftest import settle

from napari_ka2er._writer import volume_of
from napari_ka2er.core.sessions import replay
from napari_ka2er.core.volume import Volume
from napari_ka2er.widgets.jobs import Choice
from napari_ka2er.widgets.keys import bindings
from napari_ka2er.widgets.layers import (
    is_straight,
    points_layer,
    source_of,
    straight_image,
    straightened,
)
from napari_ka2er.widgets.looking import centre_of_view, go_to_slice, slice_index
from napari_ka2er.widgets.tools import Tool

AT = np.array((6, 20, 15))


def fingerprint(layer) -> str:
    """Return a hash of all that is the user's in an image layer."""
    sha = hashlib.sha256(np.asarray(layer.data[0] if layer.multiscale else layer.data).tobytes())
    place = (layer.scale, layer.translate, layer.rotate, layer.shear, np.asarray(layer.affine))
    for part in (*place, np.array(layer.contrast_limits)):
        sha.update(np.asarray(part).tobytes())
    sha.update(pickle.dumps((layer.name, dict(layer.metadata), layer.colormap.name)))
    return sha.hexdigest()


def paint(controller, qtbot, at=AT):
    controller.view.labels.paint(tuple(at), controller.label)
    settle(controller, qtbot)


def work(controller, qtbot):
    """Do a bit of everything."""
    controller.segment()
    settle(controller, qtbot)
    controller.view.points.add(AT)
    settle(controller, qtbot)
    paint(controller, qtbot, (1, 2, 3))
    controller.undo()
    controller.redo()
    controller.show_uncertainty()
    settle(controller, qtbot)
    controller.finish()
    settle(controller, qtbot)


def test_the_users_layer_is_never_altered(controller, begin, viewer, qtbot, failures):
    image = viewer.layers["scan"]
    before = fingerprint(image)  # the start is part of it
    work(begin(controller, image), qtbot)
    assert not failures
    assert fingerprint(image) == before
    assert list(viewer.layers) == [image], "what we added is gone at the end"


def test_nor_is_an_oblique_one_which_is_shown_along_its_own_axes(
    new_controller, oblique, begin, qtbot
):
    viewer = ViewerModel()
    image = viewer.add_image(np.array(oblique.data), name="tilted", affine=oblique.affine)
    before = fingerprint(image)
    controller = begin(new_controller(viewer), image)
    view = controller.view
    assert not image.visible
    assert view.image.visible
    np.testing.assert_array_equal(view.image.data, oblique.data)
    for layer in (view.labels, view.points, view.shapes, view.image):
        matrix = np.asarray(layer.affine)[:3, :3]
        np.testing.assert_array_equal(np.abs(matrix), np.eye(3))
        np.testing.assert_allclose(layer.scale, oblique.spacing)
    view.points.add(AT)
    settle(controller, qtbot)
    [thing] = controller.objects()
    [point] = thing.prompts.values()
    np.testing.assert_allclose(point.position_mm, oblique.geometry.to_world(AT))
    np.testing.assert_allclose(controller.session.volume.affine, oblique.affine)
    data, attributes, _ = view.labels.as_layer_data_tuple()  # as napari saves a layer
    written = volume_of(data, attributes)
    np.testing.assert_allclose(written.affine, oblique.affine)
    work(controller, qtbot)
    assert image.visible
    assert fingerprint(image) == before
    assert list(viewer.layers) == [image]


def test_what_counts_as_oblique(small, oblique):
    assert is_straight(small.geometry)
    assert not is_straight(oblique.geometry)
    tilt = np.array(small.affine)
    tilt[0, 1] = 0.01  # 40 voxels of 0.01 mm are 0.13 voxels of 3 mm
    assert is_straight(type(small.geometry)(small.shape, tilt))
    turned = small.affine[:, [1, 0, 2, 3]]
    assert not is_straight(type(small.geometry)(small.shape, turned))
    place = straightened(oblique.geometry)
    assert np.diag(place["affine"])[1] < 0, "flipped as it is in the world"


def test_renamed_and_reordered_layers_go_on(started, viewer, qtbot, failures):
    view = started.view
    view.labels.name, view.points.name, viewer.layers["scan"].name = "a", "b", "c"
    viewer.layers.reverse()
    view.points.add(AT)
    settle(started, qtbot)
    paint(started, qtbot, (1, 2, 3))
    assert not failures
    assert started.session.mask[tuple(AT)] == 1
    assert started.session.mask[1, 2, 3] == 1
    np.testing.assert_array_equal(view.labels.data, started.session.mask)


def test_layers_that_were_removed_come_back_with_everything(started, viewer, qtbot, failures):
    view = started.view
    view.points.add(AT)
    view.shapes.add(np.array([[6, 8, 8], [6, 8, 12], [6, 12, 12]]), shape_type="path")
    settle(started, qtbot)
    mask = started.session.mask.copy()
    for layer in (view.labels, view.points, view.shapes):
        viewer.layers.remove(layer)
    assert not view.is_complete
    assert view.tool is None
    started.undo()
    started.redo()
    started.set_tool(Tool.BRUSH)
    started.next_uncertain_slice()
    settle(started, qtbot)
    started.show_layers()
    settle(started, qtbot)
    assert view.is_complete
    np.testing.assert_array_equal(view.labels.data, mask)
    assert len(view.points.data) == 1
    assert len(view.shapes.data) == 1
    paint(started, qtbot, (5, 2, 2))
    assert started.session.mask[5, 2, 2] == 1


def test_a_copy_of_our_layer_is_the_users_own(started, viewer, qtbot, failures):
    paint(started, qtbot)
    viewer.layers.selection = {started.view.labels}
    data, state, _ = started.view.labels.as_layer_data_tuple()
    copy = viewer.add_labels(np.array(data), **{**state, "name": "copy"})
    copy.paint((1, 2, 3), 1)
    settle(started, qtbot)
    assert started.session.mask[1, 2, 3] == 0
    copy.undo()
    settle(started, qtbot)
    assert started.session.mask[tuple(AT)] == 1, "its undo is its own, too"
    assert not failures


def test_closing_the_panel_takes_our_layers_and_keys_away(new_controller, oblique, tmp_path, qtbot):
    viewer = ViewerModel()
    image = viewer.add_image(np.array(oblique.data), name="tilted", affine=oblique.affine)
    controller = new_controller(viewer)
    controller.keys = bindings(controller)
    session = panelling.begin(controller, image, tmp_path / "session")
    panelling.idle(controller, qtbot)
    labels = controller.view.labels
    assert labels.keymap
    labels.paint((1, 2, 3), 1)
    controller.close()
    assert list(viewer.layers) == [image]
    assert image.visible
    assert replay(tmp_path / "session").mask[1, 2, 3] == 1, "a stroke just before is kept"
    assert not session.mask.all()
    assert not labels.keymap
    labels.undo()  # napari's own: ours would ask a controller that is gone
    assert "undo" not in vars(labels)


def test_when_napari_closes_its_layers_are_not_touched(started, viewer):
    layers = list(viewer.layers)
    started.close(is_ending=True)
    assert list(viewer.layers) == layers


def test_what_is_shown_along_its_own_axes_is_known_by_its_true_place(oblique, viewer):
    image = viewer.add_image(np.array(oblique.data), name="tilted", affine=oblique.affine)
    source = source_of(image)
    shown = source_of(straight_image(source.read(), image, source.place))
    np.testing.assert_allclose(shown.affine, oblique.affine)
    assert shown.is_oblique
    assert shown.read().digest() == source.read().digest()


def test_a_volume_that_is_not_finite_is_refused_in_a_line_and_only_when_asked(
    controller, viewer, student_folder, qtbot, failures, tmp_path
):
    values = np.ones((6, 20, 20), np.float32)
    values[2, 3, 4] = np.nan
    layer = viewer.add_image(values, name="hole")
    panelling.begin(controller, viewer.layers["scan"], tmp_path / "sessions" / "one")
    controller.finish()
    sections = panelling.sections_of(controller, viewer, qtbot)
    assert sections.panel("Volume").layer is layer
    settle(controller, qtbot)
    assert not failures, "it is only listed"
    controller.start(layer, Choice(student_folder, "one", "distilled", "cpu"))
    settle(controller, qtbot)
    assert len(failures) == 1
    assert "1 NaN and 0 infinite of 2400 in hole" in failures[0]
    assert controller.session is None


@pytest.mark.parametrize("kind", ["f2", "?", ">i2"])
def test_voxels_of_odd_types_are_read_as_our_reader_reads_them(viewer, kind):
    values = np.arange(24).reshape(2, 3, 4) % 2
    volume = source_of(viewer.add_image(values.astype(kind), name="odd")).read()
    assert volume.data.dtype in (np.float32, np.uint8, np.int16)
    np.testing.assert_array_equal(volume.channels[0], values)


@pytest.mark.parametrize(
    ("spacing", "least"), [((0.001, 0.0005, 0.0005), 0.0015), ((3.0, 1.0, 1.0), 2.0)]
)
def test_points_are_seen_in_a_volume_of_any_scale(spacing, least):
    volume = Volume(np.zeros((10, 20, 20), np.uint8), np.diag([*spacing, 1.0]))
    layer = points_layer(volume, {})
    assert layer.current_size * spacing[-1] == pytest.approx(least)


def test_without_the_image_layer_the_session_goes_on(started, viewer, qtbot, failures):
    viewer.layers.remove(viewer.layers["scan"])
    started.view.points.add(AT)
    settle(started, qtbot)
    assert started.session.mask[tuple(AT)] == 1
    started.finish()
    settle(started, qtbot)
    assert not failures
    assert len(viewer.layers) == 0


def test_two_viewers_have_a_session_each(
    started, new_controller, small, begin, qtbot, failures, tmp_path
):
    other_viewer = ViewerModel()
    layer = other_viewer.add_image(np.array(small.data), name="same", affine=small.affine)
    other = begin(new_controller(other_viewer), layer)
    paint(other, qtbot, (1, 2, 3))
    assert not started.session.mask.any()
    started.view.points.add(AT)
    settle(started, qtbot)
    clicked = started.session.mask.copy()
    assert clicked[tuple(AT)] == 1
    other.undo()
    settle(other, qtbot)
    assert not failures
    assert not other.session.mask.any()
    np.testing.assert_array_equal(started.session.mask, clicked)
    assert other._started.folder != started._started.folder
    other.finish()
    assert started.view.is_complete


@pytest.mark.parametrize("kind", ["dask", "zarr", "multiscale"])
def test_lazy_volumes_are_read_in_the_background(
    new_controller, small, begin, qtbot, kind, tmp_path
):
    viewer = ViewerModel()
    data = np.array(small.data)
    match kind:
        case "dask":
            shown = da.from_array(data, chunks=(4, 16, 16))
        case "zarr":
            shown = zarr.create_array(str(tmp_path / "x.zarr"), data=data, chunks=(4, 16, 16))
        case _:
            shown = [data, data[::2, ::2, ::2]]
    image = viewer.add_image(shown, affine=small.affine, multiscale=kind == "multiscale")
    before = fingerprint(image)
    controller = begin(new_controller(viewer), image)
    np.testing.assert_array_equal(controller.session.volume.data, data)
    controller.view.points.add(AT)
    settle(controller, qtbot)
    assert controller.session.mask[tuple(AT)] == 1
    assert fingerprint(image) == before


def test_three_dimensional_display_and_back(started, viewer, qtbot, failures):
    viewer.dims.ndisplay = 3
    started.segment()
    settle(started, qtbot)
    np.testing.assert_array_equal(started.view.labels.data, started.session.mask)
    viewer.dims.ndisplay = 2
    paint(started, qtbot, (1, 2, 3))
    assert started.session.mask[1, 2, 3] == 1
    assert not failures


def test_every_tool_selects_its_layer_and_mode(started, viewer):
    active = lambda: viewer.layers.selection.active  # noqa: E731
    for tool in Tool:
        started.set_tool(tool)
        assert started.view.tool == tool
        name = {"brush": "labels", "eraser": "labels", "none": "labels"}.get(tool)
        name = name or ("points" if tool in (Tool.POSITIVE, Tool.NEGATIVE) else "shapes")
        assert active() is getattr(started.view, name)
    started.set_tool(Tool.SCRIBBLE)
    started.flip_sign()
    assert started.view.tool == Tool.SCRIBBLE_NEGATIVE
    started.flip_sign()
    assert started.view.tool == Tool.SCRIBBLE


def test_slices_are_found_and_gone_to_beside_a_film_of_more_axes(started, viewer):
    viewer.add_image(np.zeros((3, 5, 40, 30)), name="film")
    layer = started.view.labels
    go_to_slice(viewer.dims, layer, 7)
    assert slice_index(viewer.dims, layer) == 7
    viewer.dims.order = (0, 2, 1, 3)
    go_to_slice(viewer.dims, layer, 33)
    assert started.shown_slice() == (1, 33)
    centre = centre_of_view(viewer, layer)
    assert ((centre >= 0) & (centre <= np.array(layer.data.shape) - 1)).all()


def test_a_plane_a_film_and_colours_are_refused_in_words(viewer):
    for shape, rgb in (((4, 4), False), ((4, 4, 4, 4), False), ((4, 4, 4, 3), True)):
        layer = viewer.add_image(np.zeros(shape), rgb=rgb)
        with pytest.raises(ValueError, match="3D image"):
            source_of(layer)


class Press:
    """A mouse button pressed in the world, as napari's canvas tells a layer of it."""

    is_dragging, button, modifiers, type = False, 1, (), "mouse_press"

    def __init__(self, viewer, position):
        self.position = tuple(position)
        self.pos = np.zeros(2)
        self.view_direction = None
        self.dims_point = self.position
        self.dims_displayed = list(viewer.dims.displayed)
        self.camera_zoom, self.inverted = 1.0, False
        self.handled = False


def press(viewer, layer, position):
    """Press and release the mouse on a layer."""
    event = Press(viewer, position)
    mouse_press_callbacks(layer, event)
    event.type = "mouse_release"
    mouse_release_callbacks(layer, event)


PLACES = {
    "flipped": {"affine": np.diag([3.0, -2.1, 2.7, 1.0])},
    "moved": {"scale": (3.0, 2.1, 2.7), "translate": (20, 40, -10)},
    "both": {"scale": (1.5, 1.0, 3.0), "affine": np.diag([-2.0, 2.1, 0.9, 1.0])},
    "micrometre": {"scale": (3000.0, 2100.0, 2700.0), "units": ("um",) * 3},
    "tilted": {"affine": np.array([[3, 0.01, 0, 5], [0, 2.1, 0, 0], [0, 0, 2.7, 0], [0, 0, 0, 1]])},
}


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_clicks_and_strokes_land_on_the_voxel_that_is_seen(
    new_controller, small, tmp_path, qtbot, place, order
):
    viewer = ViewerModel()
    image = viewer.add_image(np.array(small.data), name="scan", **place)
    before = fingerprint(image)
    controller = new_controller(viewer)
    controller._model = lambda *_: None  # there is no student to answer
    session = panelling.begin(controller, image, tmp_path / "session")
    panelling.idle(controller, qtbot)
    viewer.dims.order = order
    for layer in (controller.view.labels, controller.view.points, controller.view.shapes):
        for index in [(0, 0, 0), AT, (11.5, -3, 29)]:
            seen = image.data_to_world(index)
            np.testing.assert_allclose(layer.data_to_world(index), seen, rtol=0, atol=1e-9)
        np.testing.assert_allclose(layer.scale, np.array(place.get("scale", 1)) * matrix_of(image))
    seen = image.data_to_world(AT)
    viewer.dims.set_point(range(3), seen)
    controller.set_tool(Tool.POSITIVE)
    press(viewer, controller.view.points, seen)
    controller.set_tool(Tool.BRUSH)
    controller.view.labels.brush_size = 1
    press(viewer, controller.view.labels, seen)
    panelling.idle(controller, qtbot)
    np.testing.assert_array_equal(np.argwhere(session.mask), [AT])
    [point] = controller.objects()[0].prompts.values()
    np.testing.assert_allclose(session.volume.geometry.to_index(point.position_mm), AT, atol=1e-9)
    assert fingerprint(image) == before


def matrix_of(image):
    """Return how long a layer's affine makes each axis."""
    return np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)
