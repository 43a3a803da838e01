#!/usr/bin/env bash
# Builds the wheel and uses it from a prefix of its own: what is missing from it is missing there.
# The dependencies come from .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$python" -m pip wheel . --no-deps -q -w "$folder/dist"
"$python" -m pip install --no-deps -q --target "$folder/prefix" "$folder"/dist/*.whl
ls -l "$folder"/dist

# All that is tracked must be in it.  Importing proves less: .venv's editable install answers, too.
{
    echo ka2er_manifest/napari.yaml
    git ls-files sample_data | sed 's|^sample_data/|ka2er_sample_data/|'
    git ls-files src/napari_ka2er training/ka2er_training | sed 's|^[a-z]*/||'
} | while read -r file; do
    test -f "$folder/prefix/$file" || { echo "the wheel lacks $file" >&2; exit 1; }
done
compgen -G "$folder/prefix/napari_ka2er-*.dist-info/licenses/LICENSE" >/dev/null ||
    { echo "the wheel lacks its licence" >&2; exit 1; }

# Outside the checkout and before .venv's editable install, so that only the wheel can answer.
cd "$folder"
export PYTHONPATH=$folder/prefix
"$python" - "$folder/prefix" <<'PYTHON'
import sys
from importlib.resources import files
from pathlib import Path

import ka2er_training
import napari_ka2er
from napari_ka2er._sample_data import sample_cards
from npe2 import PluginManifest

prefix = Path(sys.argv[1]).resolve()
for module in (napari_ka2er, ka2er_training):
    assert Path(module.__file__).resolve().is_relative_to(prefix), module.__file__
samples = Path(str(files("ka2er_sample_data") / "volumes" / "volumes.json")).resolve()
assert samples.is_relative_to(prefix) and samples.is_file(), samples
assert [card["name"] for card in sample_cards()] == ["icbm_t1", "ct_chest", "phantom"]
manifest = PluginManifest.from_distribution("napari-ka2er")
assert manifest.contributions.sample_data, "the wheel's manifest has no sample data"
sys.stdout.write(f"wheel {napari_ka2er.__version__}: imports, samples and manifest are in it\n")
PYTHON
"$python" -m ka2er_training --help >/dev/null
prefix/bin/ka2er --help | head -n 3
"$python" -m npe2 validate napari-ka2er
