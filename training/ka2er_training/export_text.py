"""What a MONAI bundle says about itself: metadata.json, README and licences of the data."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.student_card import read_student_card

if TYPE_CHECKING:
    from ka2er_training.export import Order

# MONAI's newest schema of metadata.json; `monai.bundle verify_metadata` downloads it.
SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
# MONAI's versions have three numbers; students are counted.
_FORMAT_VERSION = "0.1.0"
_USE = "Research only. Not a medical device; every mask has to be looked at by a person."


def metadata(order: Order) -> dict[str, Any]:
    """Return the content of metadata.json."""
    task = order.task
    labels = ", ".join(label.name for label in task.labels)
    return {
        "schema": SCHEMA,
        "version": _FORMAT_VERSION,
        "changelog": {_FORMAT_VERSION: f"exported from student {order.version}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": packages(order),
        "name": f"KA2ER {task.name}",
        "task": f"Segmentation of {labels} ({task.modality})",
        "description": _description(order),
        "authors": "whoever trained the student; exported by ka2er",
        "copyright": "software: Apache-2.0, see LICENSE; weights: see docs/data_license.txt",
        "data_source": "; ".join(str(row.get("source", "unknown")) for row in order.data),
        "data_type": "nibabel",
        "image_classes": f"raw {task.modality} intensities, one channel, with the affine",
        "pred_classes": "logits of background and labels; the largest channel is the label",
        "eval_metrics": _scores(order),
        "intended_use": _USE,
        "references": ["Gao et al. 2024, arXiv:2410.21085 (the idea; this is another program)"],
        "network_data_format": _formats(order),
        "ka2er": {"student": order.version, "task": task.name, "mode": order.mode},
    }


def packages(order: Order) -> dict[str, str]:
    """Return the packages that the bundle cannot run without, beside MONAI, torch and numpy."""
    names = ["napari-ka2er", "nibabel", *(["nnunetv2"] if order.mode != "distilled" else [])]
    return {name: version(name) for name in names}


def _description(order: Order) -> str:
    experts = ", ".join(entry.name for entry in order.config.experts)
    runs = {
        "sparse": f"It runs those of its nnU-Net experts ({experts}) that matter in a window.",
        "full": f"It runs all its nnU-Net experts ({experts}).",
        "distilled": "It runs without its experts.",
    }
    return (
        f"A student amalgamated from nnU-Net experts and a SwinUNETR, for the task "
        f"{order.task.name}, mode {order.mode}. {runs[order.mode]} Takes whole volumes."
    )


def _scores(order: Order) -> dict[str, float]:
    """Return the mean Dice on the hold-out, where the student's card tells it."""
    scores = read_student_card(order.student).dice.get(order.mode, {})
    found = scores.get(order.task.name)
    return {} if found is None else {"mean_dice_hold_out": round(found, 4)}


def _formats(order: Order) -> dict[str, Any]:
    task = order.task
    whole = {"spatial_shape": ["*", "*", "*"], "value_range": [], "is_patch_data": False}
    channels = {"0": "background", **{str(i): x.name for i, x in enumerate(task.labels, start=1)}}
    values = {"0": "background", **{str(x.value): x.name for x in task.labels}}
    is_ct = task.modality.lower() == "ct"
    image = {
        "type": "image",
        "format": "hounsfield" if is_ct else "magnitude",
        "modality": task.modality,
        "num_channels": 1,
        "dtype": "float32",
        "channel_def": {"0": "image"},
    }
    pred = {"type": "image", "format": "labels", "num_channels": len(channels), "dtype": "float32"}
    mask = {"type": "image", "format": "segmentation", "num_channels": 1, "dtype": "uint8"}
    return {
        "inputs": {"image": {**image, **whole}},
        "outputs": {"pred": {**pred, **whole, "channel_def": channels}},
        "post_processed_outputs": {"pred": {**mask, **whole, "channel_def": values}},
    }


def data_licence(order: Order) -> str:
    """Return sources and licences of the data, as the student's card names them."""
    rows = [
        f"{row.get('task', '?')}: {row.get('source', 'unknown source')}\n"
        f"    licence: {row.get('licence') or 'not stated'}\n"
        for row in order.data
    ]
    head = (
        "The weights in models/model.pt were learnt from the data below. Whoever passes them on\n"
        "has to keep to their licences. The software that runs them has the licence in LICENSE.\n"
    )
    return head + "\n" + ("\n".join(rows) or "The student's card names no data.\n")


def readme(order: Order) -> str:
    """Return the bundle's README."""
    needed = "\n".join(f"    {name}=={number}" for name, number in packages(order).items())
    labels = "\n".join(f"| {label.value} | {label.name} |" for label in order.task.labels)
    extra = "" if order.mode == "distilled" else "[train]"
    return f"""# KA2ER {order.task.name}

{_description(order)}

{_USE}

    pip install "CLONE{extra}" fire    # CLONE: the folder of napari-ka2er's code
    python -m monai.bundle run --config_file configs/inference.json \\
        --bundle_root . --dataset_dir IMAGES --output_dir MASKS

reads every NIfTI file in IMAGES and writes `<name>_{order.task.name}.nii.gz`.

| value | label |
|---|---|
{labels}

## What needs napari-ka2er

Two `_target_`s of `configs/inference.json` are classes of the Python package `napari_ka2er`:

- `network_def`: `napari_ka2er.model.bundle_network.BundleNetwork`. It normalises and resamples the
  volume, once for the student and once for each expert, runs them window by window, and returns
  logits on the image's own voxels. MONAI's sliding window must not cut its input.
- `evaluator`: `napari_ka2er.model.bundle_network.BundleEvaluator`, a loop over the data loader.

Everything else is MONAI. Besides MONAI, PyTorch and NumPy these are needed:

{needed}

`models/model.pt` is a plain state dict, tensors only: `torch.load(..., weights_only=True)` reads
it. `models/student` describes student and experts in JSON. No file here is a pickle of objects. A
bundle's JSON can name any code, so look at `configs/inference.json` before running a stranger's.

Sources and licences of the training data: `docs/data_license.txt`.
"""
