from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from tests.training.conftest import phantom, write_raw
from tests.training.packages import THREE_SLICES, correction, package

from ka2er_training.cli import main
from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.holdout import check_training_data
from ka2er_training.ingest import ingest, withdraw
from ka2er_training.ingest_plan import held_patients, plan_ingest
from ka2er_training.ledger import ignore_value, settle_all
from ka2er_training.package_check import check_for_workspace
from ka2er_training.round_state import REFUSED, RoundOptions, new_round, refused_packages
from ka2er_training.sources import read_source
from ka2er_training.workspace import Workspace, read_json
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.hashing import content_digest
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.package import read_package
from napari_ka2er.core.task import Label, Task


@pytest.fixture
def work(balls, tmp_path):
    """A copy of the workspace with the task balls: five cases, one of them held out."""
    shutil.copytree(balls.folder, tmp_path / "work")
    return Workspace.open(tmp_path / "work")


def take(workspace, *paths, number=1):
    plan = plan_ingest(workspace, [read_package(path) for path in paths], number)
    return ingest(workspace, plan)


def files(folder):
    """Every file but locks and remembered digests, with its bytes."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    found = (p for p in found if not p.name.startswith("contents-"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def held_out(workspace):
    """The number of the phantom that is held out."""
    (case,) = workspace.holdout_cases("balls")
    return int(case.id[1])


def trained_on(workspace):
    """The number of a phantom that is not."""
    return int(workspace.training_cases("balls")[0].id[1])


def test_new_cases_join_the_training_and_a_share_is_kept_for_the_gate(work, tmp_path):
    before = {c.id for c in work.training_cases("balls")}
    path = package(
        tmp_path / "p", *(correction(work, seed, f"pat{seed}") for seed in range(10, 15))
    )
    assert check_for_workspace(work, path) == []
    assert take(work, path)["cases"] == {"balls": {"training": 4, "held": 1}}
    check_training_data(work, "balls")
    new = [c for c in work.training_cases("balls") if c.id not in before]
    assert len(new) == 4
    assert len(work.held_cases("balls")) == 1
    for case in [*new, *work.held_cases("balls")]:
        seed = int(case.id[4:6])
        volume, truth = phantom(seed)
        assert content_digest(read_volume(case.image)) == content_digest(volume)
        np.testing.assert_array_equal(read_labels(case.label)[0], truth)
        assert case.patient == f"pat{seed}"
    description = read_json(work.dataset_folder("balls") / "dataset.json")
    assert description["numTraining"] == len(before) + 4
    assert "ignore" not in description["labels"]


def test_unreviewed_voxels_get_the_highest_label_and_nothing_is_renumbered(work, tmp_path):
    take(work, package(tmp_path / "p", correction(work, 10, reviewed=THREE_SLICES)))
    assert ignore_value(work, "balls") == 3
    labels = read_json(work.dataset_folder("balls") / "dataset.json")["labels"]
    assert labels == {"background": 0, "bright": 1, "dim": 2, "ignore": 3}
    case = next(c for c in work.training_cases("balls") if "case10" in c.id)
    drawn, truth = read_labels(case.label)[0], phantom(10)[1]
    reviewed = THREE_SLICES.mask(truth.shape)
    np.testing.assert_array_equal(drawn[reviewed], truth[reviewed])
    assert (drawn[~reviewed] == 3).all()


def test_the_same_package_never_comes_twice(work, tmp_path):
    path = package(tmp_path / "p", correction(work, 10))
    take(work, path)
    before = files(work.folder)
    (problem,) = check_for_workspace(work, path)
    assert "with the same labels" in problem
    plan = [{**item, "round": 1} for item in plan_ingest(work, [read_package(path)], 1)]
    ingest(work, plan)
    assert files(work.folder) == before


def test_a_second_correction_takes_the_older_label_s_place_where_it_was_reviewed(work, tmp_path):
    seed = trained_on(work)
    wrong = np.zeros_like(phantom(seed)[1])
    name = f"p{seed}_a"
    fix = correction(work, seed, reviewed=THREE_SLICES, labels=wrong)
    path = package(tmp_path / "p", fix)
    assert check_for_workspace(work, path) == []
    n_before = len(work.training_cases("balls"))
    take(work, path)
    case = next(c for c in work.training_cases("balls") if c.id == name)
    drawn, truth = read_labels(case.label)[0], phantom(seed)[1]
    reviewed = THREE_SLICES.mask(truth.shape)
    assert not drawn[reviewed].any()
    np.testing.assert_array_equal(drawn[~reviewed], truth[~reviewed])
    assert len(work.training_cases("balls")) == n_before
    old = work.dataset_folder("balls") / "label_versions" / f"{name}.v001.nii.gz"
    np.testing.assert_array_equal(read_labels(old)[0], truth)


def test_an_image_is_known_by_its_content_whatever_its_name_and_axes(work, tmp_path):
    seed = trained_on(work)
    volume, truth = phantom(seed)
    turned = replace(
        volume,
        data=np.ascontiguousarray(volume.data.transpose(2, 0, 1)[:, ::-1]),
        affine=np.array([[0, -2.0, 0, 34], [0, 0, 1, 0], [1.5, 0, 0, 0], [0, 0, 0, 1]]),
        name="turned",
    )
    assert content_digest(turned) == content_digest(volume)
    labels = np.ascontiguousarray(truth.transpose(2, 0, 1)[:, ::-1])
    moved = np.where(labels == 2, 0, labels).astype(np.uint8)
    take(work, package(tmp_path / "p", correction(work, seed, labels=moved, volume=turned)))
    case = next(c for c in work.training_cases("balls") if c.id == f"p{seed}_a")
    np.testing.assert_array_equal(read_labels(case.label)[0], np.where(truth == 2, 0, truth))


def test_a_copy_of_a_hold_out_case_is_refused_by_its_content(work, tmp_path, caplog):
    path = package(tmp_path / "p", correction(work, 11), correction(work, held_out(work), "other"))
    assert main(["package", "check", str(path), "--workspace", str(work.folder)]) == 2
    assert any("held out" in record.getMessage() for record in caplog.records)
    assert main(["package", "check", str(path)]) == 0


def test_a_sheared_case_does_not_get_into_a_dataset_for_itk(work, tmp_path):
    volume = phantom(10)[0]
    affine = volume.affine.copy()
    affine[1, 0] = 0.5
    path = package(tmp_path / "p", correction(work, 10, volume=replace(volume, affine=affine)))
    (problem,) = check_for_workspace(work, path)
    assert "sheared" in problem
    described = work.dataset_folder("balls") / "dataset.json"  # as of a task with such cases
    given = {**read_json(described), "overwrite_image_reader_writer": "NibabelIO"}
    described.write_text(json.dumps(given))
    assert check_for_workspace(work, path) == []
    take(work, path)
    assert read_json(described)["overwrite_image_reader_writer"] == "NibabelIO"
    (case,) = (c for c in work.training_cases("balls") if "case10" in c.id)
    images, _ = NibabelIO().read_images([str(case.image)])
    np.testing.assert_array_equal(images[0], volume.data)


@pytest.fixture
def bare(tmp_path):
    """A workspace whose task balls holds nothing out."""
    folder = Workspace.create(tmp_path / "bare").folder
    (folder / "ka2er.toml").write_text("format = 1\n[holdout]\nshare = 0.0\n")
    raw = read_source(write_raw(tmp_path / "raw"))
    add_task(Workspace.open(folder), raw, TaskOptions(spacing_mm=(2, 2, 2)))
    return Workspace.open(folder)


def test_a_task_without_a_hold_out_gets_one_of_new_patients_if_asked_to(bare, tmp_path):
    assert bare.holdout_cases("balls") == []
    given = [correction(bare, seed, f"pat{seed}") for seed in range(10, 14)]
    partly = correction(bare, 14, "pat10", THREE_SLICES)
    path = package(tmp_path / "p", *given, partly)
    plan = plan_ingest(bare, [read_package(path)], 1, to_holdout=True)
    ingest(bare, plan)
    (case,) = bare.holdout_cases("balls")
    assert case.patient in {"pat11", "pat12", "pat13"}  # not all of pat10 was reviewed
    assert list(read_json(bare.folder / "holdout.json")["tasks"]["balls"]["cases"]) == [case.id]
    check_training_data(bare, "balls")


def test_without_the_option_new_patients_found_no_hold_out(bare, tmp_path):
    path = package(tmp_path / "p", correction(bare, 10, "new"))
    (item,) = plan_ingest(bare, [read_package(path)], 1)
    assert item["split"] == "training"
    (item,) = plan_ingest(bare, [read_package(path)], 1, to_holdout=True)
    assert item["split"] == "holdout"


def test_a_hold_out_patient_s_other_image_is_refused(work, tmp_path):
    patient = work.holdout_cases("balls")[0].patient
    path = package(tmp_path / "p", correction(work, 11, patient))
    (problem,) = check_for_workspace(work, path)
    assert "same patient" in problem
    assert check_for_workspace(work, path, to_holdout=True) == []
    partial = package(tmp_path / "q", correction(work, 11, patient, THREE_SLICES))
    (problem,) = check_for_workspace(work, partial, to_holdout=True)
    assert "reviewed whole" in problem


def test_a_correction_of_a_hold_out_case_makes_a_new_version_of_the_hold_out(work, tmp_path):
    seed = held_out(work)
    frozen = read_json(work.folder / "holdout.json")
    wrong = np.zeros_like(phantom(seed)[1])
    take(work, package(tmp_path / "p", correction(work, seed, reviewed=THREE_SLICES, labels=wrong)))
    new = read_json(work.folder / "holdout.json")
    assert new["version"] == 2
    assert read_json(work.folder / "holdouts" / "v0001.json") == frozen
    (case,) = work.holdout_cases("balls")
    entry = new["tasks"]["balls"]["cases"][case.id]
    assert entry["image"] == frozen["tasks"]["balls"]["cases"][case.id]["image"]
    assert entry["label"] != frozen["tasks"]["balls"]["cases"][case.id]["label"]
    check_training_data(work, "balls")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (Task("cubes", (Label(1, "a"),)), "none of"),
        (Task("balls", (Label(1, "dim"), Label(2, "bright"))), "labels of task"),
        (Task("balls", (Label(1, "bright"), Label(2, "dim")), "CT"), "images are CT"),
    ],
)
def test_another_task_is_refused(work, tmp_path, task, words):
    path = package(tmp_path / "p", replace(correction(work, 10), task=task))
    (problem,) = check_for_workspace(work, path)
    assert words in problem


def test_an_image_in_two_packages_is_refused(work, tmp_path):
    paths = [package(tmp_path / n, correction(work, 10)) for n in "pq"]
    with pytest.raises(UserError, match="in two packages"):
        plan_ingest(work, [read_package(path) for path in paths], 1)


def test_a_refused_round_s_corrections_are_withdrawn_and_can_come_back(work, tmp_path):
    seed = trained_on(work)
    before = files(work.folder / "datasets")
    wrong = np.zeros_like(phantom(seed)[1])
    path = package(tmp_path / "p", correction(work, 10), correction(work, seed, labels=wrong))
    take(work, path)
    taken = {c.id: c.label.read_bytes() for c in work.training_cases("balls")}
    assert len(withdraw(work, 1)) == 2
    check_training_data(work, "balls")
    after = files(work.folder / "datasets")
    kept = {name for name in before if not name.endswith("cases.json")}
    assert all(after[name] == before[name] for name in kept)
    assert len(work._cases("balls", "queued")) == 1
    assert check_for_workspace(work, path) == []
    take(work, path, number=2)
    check_training_data(work, "balls")
    labels = {c.id: c.label for c in work.training_cases("balls")}
    assert labels.keys() == taken.keys()
    assert all((read_labels(labels[f"p{seed}_a"])[0] == wrong).ravel())


@pytest.fixture
def shared(work, tmp_path):
    """The workspace, with the same images as the task others as well; two names for one thing."""
    add_task(work, read_source(write_raw(tmp_path / "others")), TaskOptions(name="others"))
    return Workspace.open(work.folder)


@pytest.mark.parametrize("task", ["balls", "others"])
def test_a_correction_of_an_image_that_two_tasks_share_is_one_of_the_own_case(
    shared, tmp_path, task
):
    seed = trained_on(shared)
    known = shared.record(task).task
    wrong = np.zeros_like(phantom(seed)[1])
    fixed = replace(correction(shared, seed, labels=wrong), task=known)
    path = package(tmp_path / "p", fixed)
    assert check_for_workspace(shared, path) == []
    (item,) = plan_ingest(shared, [read_package(path)], 1)
    assert (item["known"], item["split"]) == (f"p{seed}_a", "training")
    take(shared, path)
    images = [case["image"] for case in shared.manifest(task)]
    assert len(images) == len(set(images)) == 5
    (problem,) = check_for_workspace(shared, path)
    assert "with the same labels" in problem
    other = int(shared.training_cases(task)[1].id[1])
    same = package(tmp_path / "q", replace(correction(shared, other), task=known))
    (problem,) = check_for_workspace(shared, same)
    assert f"is known as p{other}_a already, with the same labels" in problem


def test_an_image_that_two_tasks_have_on_different_sides_is_refused(shared, tmp_path):
    seed = held_out(shared)
    path = shared.dataset_folder("others") / "cases.json"
    data = read_json(path)
    chosen = next(case for case in data["cases"] if case["id"] == f"p{seed}_a")
    chosen["split"] = "training"
    path.write_text(json.dumps(data))
    frozen = read_json(shared.folder / "holdout.json")
    frozen["tasks"]["others"]["cases"] = {}
    (shared.folder / "holdout.json").write_text(json.dumps(frozen))
    wrong = np.zeros_like(phantom(seed)[1])
    sides = {
        "balls": f"held out, and the same image as p{seed}_a of others, which is in training",
        "others": f"in training, and the same image as p{seed}_a of balls, which is held out",
    }
    for task, words in sides.items():
        fixed = replace(correction(shared, seed, labels=wrong), task=shared.record(task).task)
        given = package(tmp_path / f"for_{task}", fixed)
        (problem,) = check_for_workspace(shared, given, to_holdout=True)
        assert f"{words}: it can go to neither side" in problem


def test_a_new_image_of_a_held_out_patient_that_another_task_trains_on_is_refused(work, tmp_path):
    raw = write_raw(tmp_path / "others", first=50)
    add_task(work, read_source(raw), TaskOptions(name="others"))
    work = Workspace.open(work.folder)
    seed = int(work.training_cases("others")[0].id[1:3])
    path = package(tmp_path / "p", correction(work, seed, work.holdout_cases("balls")[0].patient))
    (problem,) = check_for_workspace(work, path, to_holdout=True)
    assert "in training, and of the same patient" in problem
    assert check_for_workspace(work, package(tmp_path / "q", correction(work, seed, "new"))) == []


def test_an_image_that_one_task_would_hold_and_another_train_on_in_a_round_is_refused(
    shared, tmp_path
):
    known = shared.record("others").task
    four = [correction(shared, seed, f"n{seed}") for seed in range(20, 24)]
    first = package(tmp_path / "p", *four)
    held = [
        i["name"] for i in plan_ingest(shared, [read_package(first)], 1) if i["split"] == "held"
    ]
    (seed,) = [20 + i for i in range(4) if f"{20 + i}" in held[0]]
    second = package(tmp_path / "q", replace(correction(shared, seed, f"n{seed}"), task=known))
    with pytest.raises(UserError, match=r"held of balls and training of others; .*two rounds"):
        plan_ingest(shared, [read_package(path) for path in (first, second)], 1)
    take(shared, first)
    (item,) = plan_ingest(shared, [read_package(second)], 2)
    assert item["split"] == "held"


def lose(workspace, *paths):
    """A round of packages that is refused."""
    packages = [{"path": str(path), "digest": read_package(path).digest} for path in paths]
    state = new_round(workspace, RoundOptions(), packages, "v0001")
    take(workspace, *paths, number=state.number)
    withdraw(workspace, state.number)
    state.status = REFUSED
    state.save(workspace)


def test_a_refused_package_that_corrected_the_hold_out_too_can_come_back(work, tmp_path):
    wrong = np.zeros_like(phantom(0)[1])
    fixed = correction(work, held_out(work), reviewed=THREE_SLICES, labels=wrong)
    path = package(tmp_path / "p", correction(work, 10), fixed)
    lose(work, path)
    frozen = read_json(work.folder / "holdout.json")
    (kept,) = refused_packages(work)
    assert read_package(kept).digest == read_package(path).digest
    assert check_for_workspace(work, kept) == []
    take(work, kept, number=2)
    assert any(case.id.startswith("case10") for case in work.training_cases("balls"))
    assert read_json(work.folder / "holdout.json") == frozen
    check_training_data(work, "balls")
    assert refused_packages(work) == []
    problems = check_for_workspace(work, path, to_holdout=True)
    assert len(problems) == 2  # now nothing of it is new
    assert all("with the same labels" in problem for problem in problems)


def test_a_refused_package_does_not_come_back_over_a_later_correction(work, tmp_path):
    wrong = np.zeros_like(phantom(10)[1])
    seed = trained_on(work)
    lose(work, package(tmp_path / "p", correction(work, 10, labels=wrong)))
    lose(work, package(tmp_path / "q", correction(work, seed, labels=wrong)))
    assert len(refused_packages(work)) == 2
    take(work, package(tmp_path / "r", correction(work, 10), correction(work, 12)), number=3)
    assert [read_package(p).cases[0].content for p in refused_packages(work)] == [
        content_digest(phantom(seed)[0])
    ]


def test_an_older_workspace_gets_new_digests(work):
    path = work.dataset_folder("balls") / "cases.json"
    new = read_json(path)
    old = json.loads(json.dumps(new))
    for case in old["cases"]:
        case["image"] = "0" * 64
    path.write_text(json.dumps({**old, "format": 1}))
    settle_all(work)
    assert read_json(path) == new


def test_as_many_patients_are_held_as_the_gate_needs_where_there_are_enough():
    counts = [len(held_of(n)) for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 20)]
    assert counts == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 5]
    assert [len(held_of(8, known)) for known in (1, 2, 3, 9)] == [2, 2, 2, 2]
    assert [len(held_of(8, 0, share)) for share in (0.0, 0.1, 0.5)] == [0, 3, 4]


def held_of(n, known=0, share=0.25, salt="s", cases=1):
    return held_patients({f"p{i}": cases for i in range(n)}, known, share, salt)


def test_who_is_held_depends_on_names_alone_and_of_more_patients_they_come_first():
    three = held_of(9)
    backwards = {f"p{i}": 1 for i in reversed(range(9))}
    assert three == held_patients(backwards, 0, 0.25, "s")
    assert three < held_of(9, 0, 0.6)
    assert three != held_of(9, salt="another")


def test_the_gate_counts_cases_and_a_patient_stays_whole():
    assert len(held_of(4, cases=2)) == 1  # two of the eight cases; four would be too many
    assert len(held_of(8, cases=2)) == 2
    uneven = {f"p{i}": 1 for i in range(7)} | {"twice": 2}
    held = held_patients(uneven, 0, 0.0001, "s")
    assert sum(uneven[name] for name in held) == 3


def test_of_eight_new_patients_three_are_held_for_ever(work, tmp_path):
    first = package(tmp_path / "p", *(correction(work, 20 + i, f"n{i}") for i in range(8)))
    assert take(work, first)["notes"] == []
    sides = {c["patient"]: c["split"] for c in work.manifest("balls") if "package" in c}
    assert sorted(sides.values()) == ["held"] * 3 + ["training"] * 5
    again = package(tmp_path / "q", *(correction(work, 40 + i, f"n{i}") for i in range(8)))
    take(work, again, number=2)
    both = {(c["patient"], c["split"]) for c in work.manifest("balls") if "package" in c}
    assert both == set(sides.items())  # whoever is held stays held
    assert len(work.held_cases("balls")) == 6
    last = package(tmp_path / "r", *(correction(work, 60 + i, f"m{i}") for i in range(4)))
    assert take(work, last, number=3)["notes"] == []
    new = [c["split"] for c in work.manifest("balls") if c["patient"].startswith("m")]
    assert new.count("held") == 1  # the share; the gate has enough


def test_it_is_said_if_the_gate_has_too_few_corrections(work, tmp_path):
    path = package(tmp_path / "p", correction(work, 10), correction(work, 11))
    (note,) = take(work, path)["notes"]
    assert note.startswith("balls: 0 corrected cases kept from training, the gate wants 3")


KILLED = """
import os, sys
from pathlib import Path
import ka2er_training.ingest as ingest
from ka2er_training.ingest_plan import plan_ingest
from ka2er_training.workspace import Workspace
from napari_ka2er.core.package import read_package

left, replace = [int(sys.argv[3])], os.replace


def counted(source, target):
    if left[0] == 0:
        os.kill(os.getpid(), 9)
    left[0] -= 1
    replace(source, target)


work = Workspace.open(sys.argv[1])
plan = plan_ingest(work, [read_package(Path(sys.argv[2]))], 1)
os.replace = counted
ingest.ingest(work, plan)
"""


@pytest.mark.slow
def test_ingest_killed_before_any_of_its_renames_is_made_good(work, tmp_path):
    """Every file appears by `os.replace`, so these are all the moments that matter."""
    seed = trained_on(work)
    wrong = np.zeros_like(phantom(seed)[1])
    corrections = [correction(work, s, reviewed=THREE_SLICES) for s in (10, 11)]
    fixed = [correction(work, s, labels=wrong) for s in (seed, held_out(work))]
    path = package(tmp_path / "p", *corrections, *fixed)
    whole = tmp_path / "whole"
    shutil.copytree(work.folder, whole)
    take(Workspace.open(whole), path)
    expected = files(whole)
    status, n = -signal.SIGKILL, 0
    while status == -signal.SIGKILL:
        folder = tmp_path / f"cut{n}"
        shutil.copytree(work.folder, folder)
        command = [sys.executable, "-c", KILLED, str(folder), str(path), str(n)]
        status = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
        cut = Workspace.open(folder)
        check_training_data(cut, "balls")  # sound, whether or not the round goes on
        if status:
            plan = plan_ingest(cut, [read_package(path)], 1)
            ingest(cut, plan)
            check_training_data(cut, "balls")
        got = {k: v for k, v in files(folder).items() if "/." not in f"/{k}"}
        assert _readable(got) == _readable(expected), f"killed before rename {n}"
        n += 1
    assert status == 0
    assert n > 8


def _readable(found):
    """Files by name; compressed ones by their content, as gzip stores the time."""
    return {
        name: nib.Nifti1Image.from_bytes(gzip.decompress(data)).get_fdata().tobytes()
        if name.endswith(".nii.gz")
        else data
        for name, data in found.items()
    }
