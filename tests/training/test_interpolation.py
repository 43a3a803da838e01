import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tests.model.folders import TASKS, blob, make_expert, make_student_folder

from ka2er_training.interpolation import blend, interpolate, interpolate_expert
from napari_ka2er.core.errors import UserError
from napari_ka2er.model.checkpoint import load_student, save_student
from napari_ka2er.model.config import StudentConfig
from napari_ka2er.model.experts import Expert
from napari_ka2er.model.predictor import Predictor


@pytest.fixture(scope="module")
def pair(tmp_path_factory, student_folder):
    """The old student, and a new one: other weights, statistics, and another expert "one"."""
    folder = tmp_path_factory.mktemp("pair")
    old = load_student(student_folder)
    expert = make_expert(folder / "expert-one", TASKS[0], seed=7)
    data = old.config.to_json()
    data["experts"][0]["digest"] = expert.digest
    data["tasks"][0]["extent_mm"] = (80.0, 60.0, 40.0)
    new = load_student(student_folder).student
    torch.manual_seed(1)
    state = {k: v + torch.rand(v.shape) if v.is_floating_point() else v
             for k, v in new.state_dict().items()}  # fmt: skip
    student = type(new)(StudentConfig.from_json(data))
    student.load_state_dict(state)
    experts = {"one": folder / "expert-one", "two": student_folder / "experts" / "two"}
    save_student(folder / "new", student, {"version": "v0002"}, experts=experts)
    return student_folder, folder / "new"


def weights(folder, name="student.safetensors"):
    return load_file(folder / name)


def test_weights_lie_on_the_line_between_old_and_new(pair, tmp_path):
    out = interpolate(*pair, 0.25, tmp_path / "out")
    old, new, between = (weights(folder) for folder in (*pair, out))
    for name, tensor in between.items():
        torch.testing.assert_close(tensor, 0.75 * old[name] + 0.25 * new[name])
    assert any(name.endswith("deviation") for name in between)


def test_a_retrained_expert_moves_along_and_gets_a_digest_of_its_own(pair, tmp_path):
    out = interpolate(*pair, 0.75, tmp_path / "out")
    places = [folder / "experts" / "one" for folder in (*pair, out)]
    old, new, between = (weights(place, "expert.safetensors") for place in places)
    for name, tensor in between.items():
        torch.testing.assert_close(tensor, 0.25 * old[name] + 0.75 * new[name])
    digests = [Expert.load(place).digest for place in places]  # loading checks it
    assert len(set(digests)) == 3
    assert load_student(out).config.experts[0].digest == digests[2]


def test_an_expert_that_was_not_retrained_is_copied(pair, tmp_path):
    out = interpolate(*pair, 0.5, tmp_path / "out")
    files = [(f / "experts" / "two" / "expert.safetensors").read_bytes() for f in (*pair, out)]
    assert files[0] == files[1] == files[2]


def test_an_interpolated_student_segments_and_keeps_what_was_measured_on_new_images(pair, tmp_path):
    loaded = load_student(interpolate(*pair, 0.5, tmp_path / "out"))
    predictor = Predictor(loaded, "full", tmp_path / "cache")
    predictor.set_volume(blob())
    assert predictor.segment("one").labels.shape == blob().shape
    assert loaded.config.tasks[0].extent_mm == (80.0, 60.0, 40.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out"]


def test_whole_numbers_are_the_new_ones_and_equal_numbers_stay_exactly():
    old = {"seen": torch.tensor(10), "mask": torch.tensor([True]), "same": torch.tensor([0.1])}
    new = {"seen": torch.tensor(13), "mask": torch.tensor([False]), "same": torch.tensor([0.1])}
    found = blend(old, new, 0.3)
    assert found["seen"] == 13
    assert not found["mask"].any()
    assert torch.equal(found["same"], old["same"])


def test_students_that_are_built_differently_are_refused(pair, tmp_path):
    other = make_student_folder(tmp_path / "other" / "student", merge_width=8)
    with pytest.raises(UserError, match="merge_width"):
        interpolate(pair[0], other, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_retrained_expert_that_one_folder_lacks_is_refused(pair, tmp_path):
    bare = shutil.copytree(pair[1], tmp_path / "bare")
    shutil.rmtree(bare / "experts" / "one")
    with pytest.raises(UserError, match="expert one"):
        interpolate(pair[0], bare, 0.5, tmp_path / "out")


def test_experts_of_other_plans_are_refused(pair, tmp_path):
    other = shutil.copytree(pair[1] / "experts" / "one", tmp_path / "expert")
    entry = json.loads((other / "expert.json").read_text("utf-8"))
    entry["task"]["labels"][0]["name"] = "changed"
    (other / "expert.json").write_text(json.dumps(entry))
    with pytest.raises(UserError, match="task"):
        interpolate_expert(pair[0] / "experts" / "one", other, 0.5, tmp_path / "out")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_that_is_no_interpolation_is_an_error(pair, tmp_path, share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        interpolate(*pair, share, tmp_path / "out")
