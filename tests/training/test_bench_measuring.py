import shutil
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.model.folders import blob, make_expert, make_student_folder

from ka2er_training.bench.clicks import click_rows, unnamed_rows
from ka2er_training.bench.subset import with_experts
from ka2er_training.evaluate import LabelledCase
from ka2er_training.evaluate_workspace import evaluate_workspace
from ka2er_training.segmenters import EnsembleSegmenter, ExpertSegmenter, StudentSegmenter
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import write_labels, write_volume
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume
from napari_ka2er.model.checkpoint import load_student


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("students") / "student"
    return load_student(make_student_folder(folder, shortcut=True))


@dataclass
class FixedExpert:
    """Gives every voxel of a (1, 1, 4) volume the probabilities of `table`, background first."""

    task: Task
    table: list[list[float]]

    def predict_logits(self, volume):
        return np.log(np.array(self.table, np.float32))[:, None, None, :]


def test_the_ensemble_lets_the_surest_expert_have_a_voxel():
    """
    voxel            0    1    2    3
    own label        .9   .6   .4   .7      of the task that is asked for
    other's label    .1   .8   .3   .7      higher or equal elsewhere only at 1 and 3
    """
    own = FixedExpert(Task("own", (Label(1, "a"),)), [[0.1, 0.4, 0.6, 0.3], [0.9, 0.6, 0.4, 0.7]])
    other = FixedExpert(
        Task("other", (Label(1, "b"),)), [[0.9, 0.2, 0.7, 0.3], [0.1, 0.8, 0.3, 0.7]]
    )
    volume = Volume(np.zeros((1, 1, 4), np.float32), np.eye(4))
    labels = EnsembleSegmenter([own, other]).segment(volume, own.task)
    assert labels.ravel().tolist() == [1, 0, 0, 1]
    assert EnsembleSegmenter([other, own]).segment(volume, other.task).ravel().tolist() == [
        0,
        1,
        0,
        1,
    ]


def test_segmenters_return_what_their_models_do(loaded):
    volume, task = blob((20, 24, 22)), loaded.config.tasks[0].task
    expert = loaded.experts["one"]
    np.testing.assert_array_equal(
        ExpertSegmenter(expert).segment(volume, task), expert.predict(volume)
    )
    labels = StudentSegmenter(loaded, "distilled").segment(volume, task)
    assert labels.shape == volume.shape
    assert set(np.unique(labels)) <= {0, *task.values}


def test_experts_in_another_order_are_the_same_student(loaded):
    turned = with_experts(loaded, ["two", "one"])
    image = torch.randn(1, 1, 32, 64, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = loaded.student(image), turned.student(image)
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after.weights, before.weights[:, [1, 0, 2]], rtol=1e-4, atol=1e-4)


def test_a_student_with_fewer_experts_has_fewer_weights_and_runs(loaded):
    one = with_experts(loaded, ["two"])
    assert [entry.name for entry in one.config.experts] == ["two"]
    assert list(one.experts) == ["two"]
    image = torch.zeros(1, 1, 32, 64, 32)
    assert one.student(image).weights.shape[1] == 2
    assert one.digest != loaded.digest


class Obedient:
    """A student that finds nothing by itself and sets the clicked voxel's row after each click."""

    def set_volume(self, volume):
        self.volume = volume

    def segment(self, task):
        return SimpleNamespace(labels=np.zeros(self.volume.shape, np.uint8))

    def prompt(self, task, label, prompts, previous):
        z, y, _ = (round(i) for i in self.volume.geometry.to_index(prompts[-1].position_mm))
        box = (slice(z, z + 1), slice(y, y + 1), slice(0, self.volume.shape[2]))
        mask = np.full((1, 1, self.volume.shape[2]), prompts[-1].positive)
        return SimpleNamespace(box=box, mask=mask, seconds=0.25, predicted_dice=0.6)


def test_dice_rises_by_what_each_click_adds(tmp_path):
    """The object is two separate rows of four voxels; each click fills one of them."""
    labels = np.zeros((5, 7, 4), np.uint8)
    labels[1, 1] = labels[3, 5] = 2
    volume = Volume(labels.astype(np.float32), np.diag([2.0, 1.0, 1.5, 1.0]))
    task = Task("rows", (Label(1, "absent"), Label(2, "rows")))
    case = LabelledCase("case", task, tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz")
    write_volume(case.image, volume)
    write_labels(case.labels, labels, volume)
    (row,) = click_rows(Obedient(), case, 3)
    assert (row["task"], row["label"], row["case"]) == ("rows", "rows", "case")
    assert row["dice"] == pytest.approx([0, 2 * 4 / (8 + 4), 1, 1])
    assert row["seconds"] == [0.25, 0.25]  # content after two
    assert row["predicted"] == [0.6, 0.6]


def test_pieces_without_a_name_begin_with_nothing_on_the_nearest_grid(tmp_path):
    """Two pieces of eight rows of four voxels each; each click fills one row of its piece."""
    labels = np.zeros((3, 20, 4), np.uint8)
    labels[1, :8] = labels[1, 10:18] = 7
    volume = Volume(labels.astype(np.float32), np.diag([2.0, 1.0, 1.5, 1.0]))
    task = Task("foreign", (Label(7, "thing"),))
    case = LabelledCase("case", task, tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz")
    write_volume(case.image, volume)
    write_labels(case.labels, labels, volume)
    asked = []

    class Noting(Obedient):
        """Has tasks of 1 mm and of 5 mm; voxels of 3 mm³ are nearer to the first."""

        loaded = SimpleNamespace(
            config=SimpleNamespace(
                tasks=[
                    SimpleNamespace(task=SimpleNamespace(name=name), spacing_mm=(edge,) * 3)
                    for name, edge in (("coarse", 5.0), ("fine", 1.0))
                ]
            )
        )

        def prompt(self, task, label, prompts, previous):
            asked.append((task, label, int(previous.sum())))
            return super().prompt(task, label, prompts, previous)

    rows = unnamed_rows(Noting(), case, 3)
    assert [row["piece"] for row in rows] == [0, 1]
    for row in rows:
        assert row["dice"] == pytest.approx([2 * 4 * k / (4 * k + 32) for k in range(4)])
    assert asked == [("fine", None, 0), ("fine", None, 4), ("fine", None, 8)] * 2


def half_reviewed(folder):
    """A case with two rows to find, of which nobody has looked at the slice of the second."""
    labels = np.zeros((5, 40, 4), np.uint8)
    labels[1, 1:9] = labels[3, 5:13] = 2
    image = Volume(labels.astype(np.float32), np.diag([2.0, 1.0, 1.5, 1.0]))
    labels[3] = 9
    case = LabelledCase(
        "case", Task("t", (Label(2, "row"),)), folder / "i.nii.gz", folder / "l.nii.gz", 9
    )
    write_volume(case.image, image)
    write_labels(case.labels, labels, image)
    return case


@pytest.mark.parametrize("count", [click_rows, unnamed_rows])
def test_what_nobody_has_reviewed_is_neither_clicked_nor_counted(tmp_path, count, monkeypatch):
    class Everywhere(Obedient):
        """Finds the whole unreviewed slice by itself, and paints it at every click."""

        def segment(self, task):
            labels = np.zeros(self.volume.shape, np.uint8)
            labels[3] = 2
            return SimpleNamespace(labels=labels)

        def prompt(self, task, label, prompts, previous):
            z, y, _ = (round(i) for i in self.volume.geometry.to_index(prompts[-1].position_mm))
            assert (z, prompts[-1].positive) == (1, True)
            mask = previous.copy()
            mask[1, y] = mask[3] = True
            whole = tuple(slice(0, n) for n in mask.shape)
            return SimpleNamespace(box=whole, mask=mask, seconds=0.25, predicted_dice=0.6)

    monkeypatch.setattr("ka2er_training.bench.clicks.nearest_grid", lambda *_: "t")
    Everywhere.loaded = SimpleNamespace(config=None)
    (row,) = count(Everywhere(), half_reviewed(tmp_path), 9)
    assert row["dice"] == pytest.approx([2 * k / (8 + k) for k in range(9)] + [1.0])


@pytest.mark.parametrize("count", [click_rows, unnamed_rows])
def test_labels_on_another_lattice_are_clicked_where_they_lie(tmp_path, count, monkeypatch):
    """The label file leaves the image's first slice out."""
    labels = np.zeros((5, 40, 4), np.uint8)
    labels[1, 1:9] = 2
    volume = Volume(labels.astype(np.float32), np.diag([2.0, 1.0, 1.5, 1.0]))
    task = Task("t", (Label(2, "row"),))
    case = LabelledCase("case", task, tmp_path / "i.nii.gz", tmp_path / "l.nii.gz")
    write_volume(case.image, volume)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0]
    write_labels(case.labels, labels[1:], Volume(volume.data[1:], affine))
    monkeypatch.setattr("ka2er_training.bench.clicks.nearest_grid", lambda *_: "t")
    Obedient.loaded = SimpleNamespace(config=None)
    (row,) = count(Obedient(), case, 8)
    assert row["dice"] == pytest.approx([2 * k / (8 + k) for k in range(9)])


def test_a_perfect_answer_repairs_what_is_within_reach_and_nothing_beyond(tmp_path):
    """A row of four voxels, 2 mm apart: 2.5 mm around one of the inner two reach three."""
    labels = np.zeros((5, 7, 4), np.uint8)
    labels[2, 3] = 1
    volume = Volume(labels.astype(np.float32), np.diag([4.0, 4.0, 2.0, 1.0]))
    case = LabelledCase(
        "case", Task("row", (Label(1, "row"),)), tmp_path / "i.nii.gz", tmp_path / "l.nii.gz"
    )
    write_volume(case.image, volume)
    write_labels(case.labels, labels, volume)
    (row,) = click_rows(Obedient(), case, 2, perfect_mm=2.5)
    assert row["dice"][:2] == pytest.approx([0, 2 * 3 / (3 + 4)])
    assert row["dice"][2] == 1
    (row,) = click_rows(Obedient(), case, 1, perfect_mm=1.0)
    assert row["dice"] == pytest.approx([0, 2 * 1 / (1 + 4)])


def test_a_workspaces_experts_are_evaluated_on_its_hold_out(balls, tmp_path):
    shutil.copytree(balls.folder, tmp_path / "work")
    balls = Workspace.open(tmp_path / "work")
    with pytest.raises(UserError, match="expert train"):
        evaluate_workspace(balls, experts=True)
    make_expert(balls.expert_folder("balls"), balls.record("balls").task, 0)
    result = evaluate_workspace(balls, experts=True)
    held = {case.id for case in balls.holdout_cases("balls")}
    assert {row["case"] for row in result["rows"]} == held
    assert {row["label"] for row in result["rows"]} == {"bright", "dim"}
    assert (
        (balls.folder / "reports" / "evaluation-experts.txt")
        .read_text("utf-8")
        .startswith("system")
    )


def test_a_workspace_without_a_student_is_refused(balls):
    with pytest.raises(UserError, match="none yet"):
        evaluate_workspace(balls)
