"""A student's distilled encoder and its mask decoder as ONNX graphs."""

from __future__ import annotations

import json
import logging
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ka2er_training.export import our_licence
from ka2er_training.export_text import data_licence
from napari_ka2er.core.errors import UserError
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.mask_decoder import MaskDecoder
from napari_ka2er.model.prompt_maps import N_DRAWN, PromptTensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ka2er_training.export import Order
    from napari_ka2er.model.config import StudentConfig
    from napari_ka2er.model.student import Student

    Index = tuple[Tensor, Tensor, Tensor]

# Voxels of the region that the mask decoder sees; the plugin's own regions begin at this size.
REGION = (96, 96, 96)
_ENCODER_OUTPUTS = ("gold", "dense", "logits", "weights")
_DECODER_OUTPUTS = ("mask", "predicted_dice")


class WindowEncoder(nn.Module):
    """A window's features and automatic result without experts, as a graph computes them."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return gold features, dense embedding, logits and weights of a window (1, 1, Z, Y, X)."""
        encoded = self.student.encode(image)
        return encoded.gold, encoded.dense, encoded.logits, encoded.weights


class FixedBoxDecoder(MaskDecoder):
    """The mask decoder with a refined box of one size, at a place that a graph can compute.

    In Python the box also grows with prompts that are longer than it less a margin.
    """

    def _boxes(self, focus: Tensor, shape: Sequence[int]) -> Any:
        sizes = [min(self.box, n) for n in shape[2:]]
        room = torch.tensor([n - size for n, size in zip(shape[2:], sizes, strict=True)])
        starts = focus.mean(dim=1) - torch.tensor(sizes) / 2
        starts = 4 * torch.round(torch.minimum(starts.clamp(min=0), room) / 4).long()
        full = [_indices(start, sizes, 1) for start in starts]
        return full, [_indices(start, sizes, 2) for start in starts]


def _indices(start: Tensor, sizes: Sequence[int], stride: int) -> Index:
    """Return a box as indices; slices would fix its place in the graph."""
    z, y, x = (
        start[axis] // stride + torch.arange(size // stride) for axis, size in enumerate(sizes)
    )
    return z[:, None, None], y[:, None], x


class RegionDecoder(nn.Module):
    """A mask for prompts in a region, as a graph computes it."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        config = student.config
        decoder = FixedBoxDecoder(config.width, config.dense_width, config.heads)
        decoder.load_state_dict(student.mask_decoder.state_dict())
        self.student = student
        self.student.mask_decoder = decoder.eval().requires_grad_(False)

    def forward(
        self,
        gold: Tensor,
        dense: Tensor,
        image: Tensor,
        previous: Tensor,
        previous_known: Tensor,
        points: Tensor,
        point_labels: Tensor,
        maps: Tensor,
        focus: Tensor,
        output: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return logits and predicted Dice; see `napari_ka2er.model.student.Student.decode`."""
        return self.student.decode(
            gold=gold,
            dense=dense,
            image=image,
            previous=previous,
            previous_known=previous_known,
            prompts=PromptTensors(points, point_labels, maps, focus),
            output=output,
            fading=previous_known & (output < self.student.config.n_outputs),
        )


def decoder_inputs(config: StudentConfig, n_points: int = 2) -> dict[str, Tensor]:
    """Return inputs of the mask decoder, of the right shapes and types."""
    z, y, x = REGION
    return {
        "gold": torch.zeros(1, config.width, z // 8, y // 8, x // 8),
        "dense": torch.zeros(1, config.dense_width, z // 2, y // 2, x // 2),
        "image": torch.zeros(1, 1, z, y, x),
        "previous": torch.zeros(1, 1, z, y, x),
        "previous_known": torch.zeros(1, dtype=torch.bool),
        "points": torch.zeros(1, n_points, 3),
        "point_labels": torch.ones(1, n_points, dtype=torch.int64),
        "maps": torch.zeros(1, N_DRAWN, z, y, x),
        "focus": torch.zeros(1, 2, 3),
        "output": torch.zeros(1, dtype=torch.int64),
    }


def write_onnx(order: Order, out: Path) -> None:
    """Write the graphs, what they take and the licences into an empty folder.

    Raises
    ------
    UserError
        If the mode has experts, packages are missing, or an operator cannot be exported.
    """
    if order.mode != "distilled":
        remedy = "use --to monai-bundle: experts look at whole volumes in spacings of their own"
        raise UserError("mode distilled for ONNX, whose window is fixed", order.mode, remedy)
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        remedy = 'pip install ".[onnx]" in the clone'
        raise UserError("the packages onnx and onnxscript", f"no {' and '.join(missing)}", remedy)
    student = load_student(order.student).student
    window = {"image": torch.zeros(1, 1, *order.entry.window)}
    _export(WindowEncoder(student), window, _ENCODER_OUTPUTS, out / "encoder.onnx")
    region = decoder_inputs(order.config)
    _export(RegionDecoder(student), region, _DECODER_OUTPUTS, out / "mask_decoder.onnx")
    text = json.dumps(describe(order, window, region, student.mask_decoder.box), indent=2)
    texts = {"onnx.json": text, "LICENSE": our_licence(), "data_license.txt": data_licence(order)}
    for name, content in texts.items():
        (out / name).write_text(content, encoding="utf-8")


def _export(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], path: Path
) -> None:
    """Export a module whose `points` and `point_labels`, if any, may have any number."""
    free = {1: torch.export.Dim("n_points", min=1, max=1024)}
    shapes = {name: free if name.startswith("point") else {} for name in inputs}
    with _quiet():
        try:
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                verbose=False,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=tuple(shapes.values()),
            )
        except torch.onnx.OnnxExporterError as error:
            raise UserError(f"operators of ONNX in {path.stem}", _cause(error)) from error
    if program is None:
        raise UserError(f"an ONNX graph of {path.stem}", "none from torch.onnx.export")
    program.save(path)


def _cause(error: BaseException) -> str:
    """Return the first line of what went wrong at the bottom."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0][:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says about every operator it looks at."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def describe(
    order: Order, window: Mapping[str, Tensor], region: Mapping[str, Tensor], box: int
) -> dict[str, Any]:
    """Return what a program that runs the graphs has to know."""
    channels = order.config.outputs(order.task.name)
    labels = [
        {"channel": channel, "value": label.value, "name": label.name}
        for channel, label in zip(channels, order.task.labels, strict=True)
    ]
    return {
        "exported_by_ka2er": {"student": order.version, "task": order.task.name},
        "mode": "distilled",
        "axes": "Z, Y, X",
        "spacing_mm": list(order.entry.spacing_mm),
        "intensities": (
            "of the whole volume: cut at the percentiles 0.5 and 99.5 of all voxels above the "
            "minimum, mean 0, deviation 1"
        ),
        "labels": labels,
        "any_structure": order.config.n_outputs,
        "encoder": {"inputs": _shapes(window), "outputs": list(_ENCODER_OUTPUTS)},
        "mask_decoder": {
            "inputs": _shapes(region),
            "outputs": list(_DECODER_OUTPUTS),
            "refined_box": box,
        },
    }


def _shapes(inputs: Mapping[str, Tensor]) -> dict[str, str]:
    shapes = {}
    for name, tensor in inputs.items():
        sizes = [str(n) for n in tensor.shape]
        if name.startswith("point"):
            sizes[1] = "n_points"
        shapes[name] = f"{str(tensor.dtype).removeprefix('torch.')} ({', '.join(sizes)})"
    return shapes
