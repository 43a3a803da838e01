import json
from importlib.resources import files

from ka2er_training.cli import main

PHANTOM = str(files("ka2er_sample_data").joinpath("volumes") / "phantom.nii.gz")


def test_info_prints_shape_and_spacing_along_z_y_x(capsys):
    assert main(["info", PHANTOM]) == 0
    printed = capsys.readouterr().out
    assert "shape: [36, 88, 104]" in printed
    assert "spacing_mm: [6.0, 3.0, 3.5]" in printed


def test_info_as_json_is_one_object(capsys):
    assert main(["info", PHANTOM, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [36, 88, 104]


def test_a_missing_file_ends_with_its_name_not_a_traceback(caplog, tmp_path):
    assert main(["info", str(tmp_path / "none.nii.gz")]) == 2
    assert "none.nii.gz" in caplog.text
