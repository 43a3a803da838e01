import json
import logging

import numpy as np
import pytest
import torch
from tests.model.students import small_student

from ka2er_training import export_onnx
from ka2er_training.cli import main
from ka2er_training.export_onnx import REGION, FixedBoxDecoder, RegionDecoder, decoder_inputs
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.prompts import Point
from napari_ka2er.core.volume import Geometry
from napari_ka2er.model.catalogue import sample_folder
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.prompt_maps import prompt_tensors

CLICKS = [[(80, 10, 33)], [(1, 50, 93), (70, 80, 90), (95, 95, 0)]]


def awake(student):
    """Give a student's refinement random last weights: untrained it answers with zeros."""
    torch.manual_seed(3)
    torch.nn.init.normal_(student.mask_decoder.refinement.head.weight, std=0.3)
    return student.eval().requires_grad_(False)


def inputs_of(config, voxels):
    """Return random features and the maps of clicks at voxels of a region."""
    grid = Geometry(REGION, np.diag([2.0, 1.0, 1.5, 1.0]))
    points = [Point(tuple(map(float, grid.to_world(v))), positive=True) for v in voxels]
    prompts = prompt_tensors(points, grid)
    generator = torch.Generator().manual_seed(1)
    given = {
        name: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in decoder_inputs(config).items()
    }
    given |= {"points": prompts.points, "point_labels": prompts.point_labels}
    given |= {"maps": prompts.dense, "focus": prompts.focus}
    return given | {"previous_known": torch.tensor([True]), "output": torch.tensor([1])}


def answer(student, given):
    """Return what the student itself makes of a graph's inputs."""
    names = ("gold", "dense", "image", "previous", "previous_known", "output")
    prompts = export_onnx.PromptTensors(
        given["points"], given["point_labels"], given["maps"], given["focus"]
    )
    fading = torch.tensor([True])  # output 1 is a label of the student, with a mask to correct
    return student.decode(prompts=prompts, fading=fading, **{name: given[name] for name in names})


@pytest.mark.parametrize("voxels", CLICKS)
def test_a_box_that_a_graph_can_compute_is_the_students_own(voxels):
    student = awake(small_student())
    given = inputs_of(student.config, voxels)
    with torch.no_grad():
        wanted = answer(student, given)
        made = RegionDecoder(student)(*given.values())
    assert isinstance(student.mask_decoder, FixedBoxDecoder)
    for ours, theirs in zip(wanted, made, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def run_graph(path, given):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    return session.run(None, {name: value.numpy() for name, value in given.items()})


@pytest.mark.slow
@pytest.mark.timeout(1800)  # the export takes minutes where other work runs beside it
def test_onnxruntime_computes_what_torch_computes(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    out = tmp_path / "onnx"
    command = ["export", "sample", "--to", "onnx", "--task", "hippocampus", "-o", str(out)]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mode"] == "distilled"
    assert main(["info", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["labels"][1] == {"channel": 1, "value": 2, "name": "posterior"}
    assert said["encoder"]["inputs"] == {"image": "float32 (1, 1, 32, 64, 32)"}

    student = load_student(sample_folder() / "student").student
    image = torch.randn(1, 1, 32, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoded = student.encode(image)
    made = run_graph(out / "encoder.onnx", {"image": image})
    for name, theirs in zip(said["encoder"]["outputs"], made, strict=True):
        np.testing.assert_allclose(theirs, getattr(encoded, name).numpy(), rtol=0, atol=1e-3)
    for voxels in CLICKS:
        given = inputs_of(student.config, voxels)
        with torch.no_grad():
            wanted = answer(student, given)
        for ours, theirs in zip(wanted, run_graph(out / "mask_decoder.onnx", given), strict=True):
            np.testing.assert_allclose(theirs, ours.numpy(), rtol=0, atol=1e-3)


class Pooled(torch.nn.Module):
    """Holds an operator that ONNX does not have."""

    def forward(self, image):
        return torch.nn.functional.adaptive_avg_pool3d(image, (3, 5, 7))


def test_an_operator_that_onnx_does_not_have_is_one_line(tmp_path):
    pytest.importorskip("onnxscript")
    given = {"image": torch.zeros(1, 1, 10, 12, 11)}
    with pytest.raises(UserError, match="adaptive_avg_pool3d") as caught:
        export_onnx._export(Pooled(), given, ["pooled"], tmp_path / "pooled.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def refused(caplog, *arguments):
    caplog.clear()
    assert main(["export", *map(str, arguments), "--to", "onnx", "--task", "one"]) == 2
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    return line


def test_modes_with_experts_are_refused(student_folder, tmp_path, caplog):
    line = refused(caplog, student_folder, "-o", tmp_path / "x", "--mode", "full")
    assert "monai-bundle" in line
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_what_to_install(
    student_folder, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None)
    line = refused(caplog, student_folder, "-o", tmp_path / "x")
    assert "onnx and onnxscript" in line
    assert 'pip install ".[onnx]"' in line
