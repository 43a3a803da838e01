#!/usr/bin/env bash
# Runs `make demo` from an empty cache and looks at what it leaves: the right task for each volume,
# and masks as large as lungs and brains are.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export XDG_CACHE_HOME=$folder/cache

make demo OUT="$folder/demo"
.venv/bin/python - "$folder/demo" <<'PYTHON'
import json
import sys
from pathlib import Path

from napari_ka2er._sample_data import sample_volume
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.metrics import voxel_ml

# Grey and white matter of an adult, and the lungs of one who holds a breath.
PLAUSIBLE_ML = {
    ("icbm_t1", "brain_tissue"): (1000, 2500),
    ("ct_chest", "lungs"): (2000, 4000),
}

out = Path(sys.argv[1])
summary = json.loads((out / "summary.json").read_text("utf-8"))
found = {(Path(r["input"]).name.removesuffix(".nii.gz"), r["task"]): r for r in summary["results"]}
assert found.keys() == PLAUSIBLE_ML.keys(), f"segmented {sorted(found)}"
for (name, task), result in found.items():
    labels, geometry = read_labels(Path(result["labels"]))
    assert geometry.is_close(read_volume(sample_volume(name)).geometry), f"{name}: moved"
    ml = (labels > 0).sum() * voxel_ml(geometry)
    low, high = PLAUSIBLE_ML[name, task]
    assert low < ml < high, f"{name}: {ml:.0f} ml of {task}, not {low} to {high}"
    assert Path(result["picture"]).stat().st_size > 10_000, f"{name}: no picture"
    sys.stdout.write(f"{name}: {ml:.0f} ml of {task} in {result['seconds']:.0f} s\n")
sys.stdout.write(f"demo: {summary['seconds']:.0f} s\n")
PYTHON
