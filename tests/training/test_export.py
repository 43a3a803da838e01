import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, verify_metadata
from monai.bundle import run as run_bundle
from monai.data import MetaTensor
from tests.model.folders import blob

from ka2er_training.cli import main
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_labels, write_volume
from napari_ka2er.model.bundle_network import BundleNetwork
from napari_ka2er.model.catalogue import sample_folder

# What MONAI's schema of metadata.json asks for (Project-MONAI/MONAI, monai/bundle/meta_schema.json
# of pull request 7409), so that something is checked where the real one cannot be downloaded.
TEXTS = ["schema", "version", "monai_version", "pytorch_version", "numpy_version", "task",
         "description", "authors", "copyright"]  # fmt: skip
TABLES = ["required_packages_version", "network_data_format"]
TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
}
TENSORS = {"type": "object", "minProperties": 1, "additionalProperties": TENSOR}
SCHEMA = {
    "type": "object",
    "required": [*TEXTS, *TABLES],
    "properties": {
        **{name: {"type": "string"} for name in TEXTS},
        **{name: {"type": "object"} for name in TABLES[:1]},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {"inputs": TENSORS, "outputs": TENSORS},
        },
    },
}


def export(student, out, *options):
    return main(["export", str(student), "-o", str(out), *options])


@pytest.fixture(scope="module")
def student(student_folder, tmp_path_factory):
    """The test student; its labels have values that are not 1, 2 … and its data a licence."""
    folder = shutil.copytree(student_folder, tmp_path_factory.mktemp("export") / "student")
    path = folder / "student.json"
    text = json.loads(path.read_text("utf-8"))
    text["config"]["tasks"][0]["task"]["labels"][1]["value"] = 300
    text["card"]["data"] = [{"task": "one", "source": "a hospital", "licence": "CC0"}]
    path.write_text(json.dumps(text))
    return folder


@pytest.fixture(scope="module")
def bundle(student, tmp_path_factory):
    """A bundle of task one; without --mode, that is sparse."""
    out = tmp_path_factory.mktemp("bundle") / "one"
    assert export(student, out, "--to", "monai-bundle", "--task", "one") == 0
    return out


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two oblique, flipped volumes of different shapes."""
    folder = tmp_path_factory.mktemp("images")
    write_volume(folder / "a.nii.gz", blob())
    write_volume(folder / "b.nii.gz", blob((22, 35, 41), spacing=2.5))
    return folder


def masks_of(bundle, images, out):
    """Run a bundle with the function behind `python -m monai.bundle run`."""
    run_bundle(
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        bundle_root=str(bundle),
        dataset_dir=str(images),
        output_dir=str(out),
        device="$torch.device('cpu')",
    )
    return {path.name: read_labels(path) for path in out.glob("*.nii.gz")}


def predicted(student, images, out, *options):
    arguments = ["predict", str(student), str(images), "-o", str(out), "--device", "cpu"]
    assert main([*arguments, "--cache-dir", str(out / "cache"), *options]) == 0
    return {path.name: read_labels(path) for path in out.glob("*.nii.gz")}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert ours
    for name, (labels, geometry) in ours.items():
        assert theirs[name][1].is_close(geometry)
        np.testing.assert_array_equal(theirs[name][0], labels)


@pytest.mark.parametrize("mode", ["sparse", "distilled"])
def test_a_bundle_makes_the_very_masks_of_predict(student, images, tmp_path, mode):
    out = tmp_path / "bundle"
    assert export(student, out, "--to", "monai-bundle", "--task", "one", "--mode", mode) == 0
    assert (out / "models" / "student" / "experts").is_dir() == (mode != "distilled")
    ours = predicted(student, images, tmp_path / "ours", "--task", "one", "--mode", mode)
    assert {300} <= {value for labels, _ in ours.values() for value in np.unique(labels)}
    assert_same(ours, masks_of(out, images, tmp_path / "theirs"))


@pytest.mark.slow
def test_the_sample_students_bundle_finds_the_lungs_that_predict_finds(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(sample_folder() / "volumes" / "ct_chest.nii.gz", images)
    assert export("sample", tmp_path / "bundle", "--to", "monai-bundle", "--task", "lungs") == 0
    ours = predicted("sample", images, tmp_path / "ours", "--task", "lungs")
    assert (ours["ct_chest_lungs.nii.gz"][0] > 0).sum() > 100_000
    assert_same(ours, masks_of(tmp_path / "bundle", images, tmp_path / "theirs"))


@pytest.mark.skipif(not find_spec("fire"), reason="python -m monai.bundle needs the package fire")
def test_monais_command_runs_the_bundle(bundle, student, images, tmp_path):
    out = tmp_path / "theirs"
    command = [sys.executable, "-m", "monai.bundle", "run"]
    files = ["--config_file", "configs/inference.json", "--meta_file", "configs/metadata.json"]
    places = ["--bundle_root", ".", "--dataset_dir", str(images), "--output_dir", str(out)]
    subprocess.run([*command, *files, *places], cwd=bundle, check=True, timeout=300)
    theirs = {path.name: read_labels(path) for path in out.glob("*.nii.gz")}
    assert_same(predicted(student, images, tmp_path / "ours", "--task", "one"), theirs)


def test_a_bundle_has_every_property_that_monai_requires(bundle):
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        workflow_type="inference",
        bundle_root=str(bundle),
        dataset_dir=str(bundle),
        logging_file=False,
    )
    workflow.initialize()
    assert not workflow.check_properties()


def verify(bundle, schema):
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(schema))


def test_monai_verifies_the_metadata(bundle, tmp_path):
    pytest.importorskip("jsonschema")
    try:
        verify(bundle, tmp_path / "schema.json")
    except (URLError, OSError) as error:
        pytest.skip(f"MONAI's schema cannot be downloaded: {error}")


def test_the_metadata_have_what_monais_schema_requires(bundle, tmp_path):
    pytest.importorskip("jsonschema")
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))  # a file that is there is not downloaded
    verify(bundle, schema)
    broken = shutil.copytree(bundle, tmp_path / "broken")
    path = broken / "configs" / "metadata.json"
    text = json.loads(path.read_text("utf-8"))
    del text["network_data_format"]["outputs"]["pred"]["dtype"]
    path.write_text(json.dumps(text))
    with pytest.raises(ValueError, match="dtype"):
        verify(broken, schema)


def test_the_metadata_name_labels_and_packages(bundle):
    text = json.loads((bundle / "configs" / "metadata.json").read_text("utf-8"))
    formats = text["network_data_format"]
    assert formats["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "a", "2": "b"}
    written = formats["post_processed_outputs"]["pred"]["channel_def"]
    assert written == {"0": "background", "1": "a", "300": "b"}
    assert {"napari-ka2er", "nnunetv2"} <= set(text["required_packages_version"])


def test_a_bundle_brings_licences_and_says_what_needs_the_package(bundle):
    assert "Apache License" in (bundle / "LICENSE").read_text("utf-8")
    data = (bundle / "docs" / "data_license.txt").read_text("utf-8")
    assert "a hospital" in data
    assert "CC0" in data
    readme = (bundle / "docs" / "README.md").read_text("utf-8")
    for target in ("bundle_network.BundleNetwork", "bundle_network.BundleEvaluator"):
        assert target in readme
        assert target in (bundle / "configs" / "inference.json").read_text("utf-8")


def network_of(bundle):
    return BundleNetwork(str(bundle / "models" / "student"), "one")


def meta_tensor(*values):
    """Return images (B, 1, X, Y, Z) with the affine of `blob`."""
    volume = blob((20, 34, 26))
    data = np.stack([value * volume.data.T[None] for value in values])
    return MetaTensor(
        torch.from_numpy(data), torch.from_numpy(volume.affine[[2, 1, 0, 3]][:, [2, 1, 0, 3]])
    )


def test_the_weights_are_tensors_and_all_that_the_network_has(bundle):
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert not [path for path in bundle.rglob("*") if path.suffix in {".pkl", ".pth"}]
    network = network_of(bundle)
    network.load_state_dict(state)
    assert [p for p in network.parameters() if p.requires_grad] == []
    assert not network.train().training


def test_a_network_without_its_weights_does_not_answer(bundle):
    with pytest.raises(UserError, match=r"model\.pt"):
        network_of(bundle)(meta_tensor(1.0))


def test_what_has_no_affine_is_refused(bundle):
    network = network_of(bundle)
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    with pytest.raises(UserError, match="affine"):
        network(torch.zeros(1, 1, 32, 32, 32))
    with pytest.raises(UserError, match="affine"):
        network(torch.cat([meta_tensor(1.0), meta_tensor(1.0)], dim=1))


def test_a_batch_is_answered_image_by_image(bundle):
    network = network_of(bundle)
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    both, second = network(meta_tensor(-1.0, 1.0)), network(meta_tensor(1.0))
    assert both.shape == (2, 3, 26, 34, 20)
    np.testing.assert_array_equal(both[1].numpy(), second[0].numpy())
    assert not torch.equal(both[0], both[1])
    assert (both[:, 0] < 0).all()
    assert (both[:, 0] > -1e-30).all()


def test_info_says_what_a_bundle_is(bundle, capsys):
    assert main(["info", str(bundle), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["monai_bundle"] == str(bundle)
    assert said["exported_by_ka2er"] == {"student": "v0001", "task": "one", "mode": "sparse"}
    assert said["outputs"]["pred"]["2"] == "b"
    assert said["bytes"]["models/model.pt"] == (bundle / "models" / "model.pt").stat().st_size


def test_info_on_a_strangers_or_broken_bundle_is_no_traceback(tmp_path, capsys, caplog):
    path = tmp_path / "configs" / "metadata.json"
    path.parent.mkdir()
    path.write_text('{"name": "spleen"}')
    assert main(["info", str(tmp_path)]) == 0
    assert "exported_by_ka2er: no" in capsys.readouterr().out
    path.write_text("[]")
    assert main(["info", str(tmp_path)]) == 2
    assert "metadata.json" in caplog.text


def refused(caplog, *arguments):
    caplog.clear()
    assert export(*arguments) == 2
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    return line


def test_what_cannot_be_exported_is_refused_in_one_line(student, tmp_path, caplog):
    to = ("--to", "monai-bundle")
    assert "--task" in refused(caplog, student, tmp_path / "x", *to)
    assert "'liver'" in refused(caplog, student, tmp_path / "x", *to, "--task", "liver")
    lonely = shutil.copytree(student, tmp_path / "lonely")
    shutil.rmtree(lonely / "experts" / "two")
    assert "no two" in refused(caplog, lonely, tmp_path / "x", *to, "--task", "one")
    assert [path.name for path in tmp_path.iterdir()] == ["lonely"]
    (tmp_path / "file").write_text("")
    assert "which is a file" in refused(
        caplog, student, tmp_path / "file" / "x", *to, "--task", "two"
    )


def test_only_an_earlier_export_is_replaced(student, bundle, tmp_path, caplog):
    to = ("--to", "monai-bundle", "--task", "two", "--mode", "distilled")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    assert "thesis" not in refused(caplog, student, tmp_path / "mine", *to)
    assert (tmp_path / "mine" / "thesis.txt").read_text("utf-8") == "years"
    again = shutil.copytree(bundle, tmp_path / "again")
    assert export(student, again, *to) == 0
    assert not (again / "models" / "student" / "experts").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "mine"]


def test_an_export_needs_no_folder_to_be_there(student, tmp_path):
    out = Path(tmp_path) / "new" / "deep"
    options = ("--task", "two", "--mode", "distilled")
    assert export(student, out, "--to", "monai-bundle", *options) == 0
    assert (out / "models" / "model.pt").is_file()
