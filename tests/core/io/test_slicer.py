"""Segmentations as 3D Slicer stores them (``.seg.nrrd``), whole and incomplete."""

from __future__ import annotations

import numpy as np
import pytest

from napari_ka2er._reader import get_reader
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import is_label_map, read_labels, read_volume

HEADER = """NRRD0004
type: unsigned char
dimension: {n_axes}
space: left-posterior-superior
sizes: {channels}4 3 2
space directions: {none}(1,0,0) (0,1,0) (0,0,2)
kinds: {kinds}domain domain domain
encoding: raw
space origin: (0,0,0)
Segmentation_MasterRepresentation:=Binary labelmap
"""
LEFT = {"ID": "Segment_1", "Name": "left", "Color": "1 0 0", "LabelValue": "1", "Layer": "0"}
RIGHT = {"ID": "Segment_2", "Name": "right", "Color": "0 0.5 1", "LabelValue": "2", "Layer": "1"}
OLD = ("LabelValue", "Layer")  # up to 4.10: a channel of 0 and 1 for each segment


@pytest.fixture
def write_segments(tmp_path):
    """A function that writes a map of (2, 3, 4) voxels: in layers where `n_layers` is given."""

    def write(*segments, n_layers=None):
        layered = {"n_axes": 4, "channels": f"{n_layers} ", "none": "none ", "kinds": "list "}
        flat = {"n_axes": 3, "channels": "", "none": "", "kinds": ""}
        lines = [
            f"Segment{i}_{field}:={text}\n"
            for i, segment in enumerate(segments)
            for field, text in segment.items()
        ]
        head = HEADER.format(**(layered if n_layers else flat)) + "".join(lines) + "\n"
        voxels = np.arange(24 * (n_layers or 1), dtype=np.uint8) % 3
        (tmp_path / "a.seg.nrrd").write_bytes(head.encode() + voxels.tobytes())
        return tmp_path / "a.seg.nrrd"

    return write


def without(segment, *fields):
    return {field: text for field, text in segment.items() if field not in fields}


@pytest.mark.parametrize(
    "segments", [(LEFT, RIGHT), (without(LEFT, *OLD), without(RIGHT, *OLD))], ids=["layers", "4.10"]
)
def test_segments_in_layers_are_refused_as_labels_with_the_remedy(write_segments, segments):
    path = write_segments(*segments, n_layers=2)
    assert is_label_map(read_volume(path)), "a folder's images are told from its labels by this"
    refused = r"labels in one channel, got 2 channels in a\.seg\.nrrd; export it as one label map"
    with pytest.raises(UserError, match=refused):
        get_reader(str(path))(str(path))
    with pytest.raises(UserError, match=refused):
        read_labels(path)


@pytest.mark.parametrize("n_layers", [None, 1])
def test_segments_in_one_layer_are_a_label_map(write_segments, n_layers):
    path = write_segments(LEFT, RIGHT, n_layers=n_layers)
    ((values, attributes, kind),) = get_reader(str(path))(str(path))
    assert (kind, values.shape) == ("labels", (2, 3, 4))
    assert attributes["features"] == {"index": [1, 2], "name": ["left", "right"]}
    assert read_volume(path).header["labels"] == [(1, "left", "#FF0000"), (2, "right", "#0080FF")]


@pytest.mark.parametrize(
    "segment",
    [
        *(without(LEFT, field) for field in ("LabelValue", "Name", "Color")),
        *(LEFT | {"LabelValue": value} for value in ("one", "0", "1.5")),
        *(LEFT | {"Color": color} for color in ("red", "1 0", "1 0 2", "nan 0 0", "inf 0 0")),
    ],
    ids=str,
)
def test_a_segment_that_is_not_described_in_full_has_no_name(write_segments, segment):
    path = write_segments(segment, RIGHT)
    assert read_volume(path).header["labels"] == [(2, "right", "#0080FF")]
    assert read_labels(path)[0].max() == 2
