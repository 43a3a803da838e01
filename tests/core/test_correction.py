"""Packages: what training gets out of a session, and what must not get in."""

import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from napari_ka2er.core.correction import Correction, correction_of, export_package
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.hashing import content_digest, file_digest
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.package import check_package, read_package, summarise_package
from napari_ka2er.core.prompts import Point
from napari_ka2er.core.review import Reviewed
from napari_ka2er.core.session import Session
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume

SHAPE = (6, 8, 10)
TASK = Task("organs", (Label(2, "liver"), Label(5, "spleen")), "CT")
WHOLE = Reviewed(whole=True)


def oblique(shear=0.0):
    """Voxels of 3 x 1 x 2 mm, turned by 20 degrees, flipped along X, away from the origin."""
    c, s = np.cos(np.deg2rad(20)), np.sin(np.deg2rad(20))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag([3.0, 1.0, -2.0])
    affine[0, 1] = shear
    affine[:3, 3] = (-40, 12, 7)
    return affine


def new_volume(seed=0, affine=None, n_channels=1, dtype=np.int16):
    rng = np.random.default_rng(seed)
    shape = SHAPE if n_channels == 1 else (n_channels, *SHAPE)
    data = rng.integers(-1000, 1000, shape).astype(dtype)
    names = ("image",) if n_channels == 1 else tuple(f"c{n}" for n in range(n_channels))
    return Volume(data, oblique() if affine is None else affine, names, name="Jane Doe")


def new_labels():
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:5, 3:7] = 2
    labels[4:6, 2:5, 3:7] = 5
    return labels


def three_slices():
    return Reviewed().with_slice(0, 1).with_slice(0, 4).with_slice(2, 9)


def correction(seed=0, reviewed=WHOLE, **options):
    return Correction(new_volume(seed, **options), new_labels(), TASK, reviewed)


def labels_of(package):
    return [read_labels(case.labels)[0] for case in read_package(package).cases]


def test_unreviewed_voxels_get_the_highest_value_named_ignore(tmp_path):
    package = export_package(tmp_path / "p", [correction(reviewed=three_slices())])
    expected = np.full(SHAPE, 3, np.uint8)
    for where in ((slice(1, 2),), (slice(4, 5),), (slice(None), slice(None), slice(9, 10))):
        expected[where] = np.select([new_labels() == 2, new_labels() == 5], [1, 2])[where]
    np.testing.assert_array_equal(labels_of(package)[0], expected)
    dataset = json.loads((package / "dataset.json").read_text("utf-8"))
    assert dataset["labels"] == {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}
    assert dataset["channel_names"] == {"0": "CT"}
    assert check_package(package) == []


def test_a_wholly_reviewed_package_has_no_ignore(tmp_path):
    across_y = Reviewed(False, (frozenset(), frozenset(range(8)), frozenset()))
    package = export_package(tmp_path / "p", [correction(0), correction(1, across_y)])
    assert "ignore" not in json.loads((package / "dataset.json").read_text("utf-8"))["labels"]
    assert sorted(np.unique(labels_of(package)).tolist()) == [0, 1, 2]
    assert check_package(package) == []


def test_one_case_with_ignore_makes_it_a_label_of_the_package(tmp_path):
    package = export_package(tmp_path / "p", [correction(0), correction(1, three_slices())])
    whole, part = labels_of(package)
    assert whole.max() == 2
    assert part.max() == 3
    assert check_package(package) == []


def test_geometry_and_voxels_are_those_of_the_file_the_volume_was_read_from(tmp_path):
    header = nib.Nifti1Header()
    header["descrip"], header["aux_file"], header["db_name"] = b"DOE^JANE", b"doe.txt", b"clinic"
    data = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE[::-1])
    affine = np.array([[-2.0, 0.1, 0, 10], [0.3, 1, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
    image = nib.Nifti1Image(data, None, header)
    image.set_sform(affine, 2)
    image.set_qform(np.diag([2.0, 1, 3, 1]), 3)
    nib.save(image, tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")

    case = Correction(volume, new_labels(), TASK, three_slices())
    (packaged,) = read_package(export_package(tmp_path / "p", [case])).cases

    source = nib.load(tmp_path / "scan.nii.gz").header
    for path in (packaged.images[0], packaged.labels):
        copy = nib.load(path)
        for name in ("pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "dim"):
            np.testing.assert_array_equal(copy.header[name], source[name], err_msg=name)
        assert (copy.header["qform_code"], copy.header["sform_code"]) == (3, 2)
        for name in (b"DOE", b"doe", b"clinic"):
            assert name not in copy.header.binaryblock
    np.testing.assert_array_equal(nib.load(packaged.images[0]).get_fdata(), data)


def test_extensions_of_nifti_stay_at_home_and_in_the_volume(tmp_path):
    image = nib.Nifti1Image(np.arange(480, dtype=np.int16).reshape(SHAPE[::-1]), np.eye(4))
    secret = b"PatientName=DOE^JANE 1970-01-01"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", secret))
    nib.save(image, tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    case = Correction(volume, new_labels(), TASK, WHOLE)
    (packaged,) = read_package(export_package(tmp_path / "p", [case])).cases
    for path in (packaged.images[0], packaged.labels):
        assert not nib.load(path).header.extensions
        assert secret not in gzip.decompress(path.read_bytes())
    assert len(volume.header["nifti"].extensions) == 1


def test_names_of_people_do_not_leave_the_house_unless_asked_to(tmp_path):
    session = Session(new_volume(), TASK)
    session.review_volume()
    package = export_package(tmp_path / "p", [correction_of(session)])
    text = "".join(p.read_text("utf-8") for p in package.iterdir() if p.is_file())
    assert "Jane" not in text
    assert read_package(package).cases[0].name.startswith("case_")
    named = export_package(tmp_path / "q", [correction_of(session, name="study 7/a", patient="P4")])
    assert read_package(named).cases[0].name.startswith("study_7_a_")
    assert read_package(named).cases[0].record["patient"] == "P4"


def test_the_provenance_says_how_the_mask_came_about(tmp_path):
    times = iter(range(100, 1000, 10))
    session = Session(new_volume(), TASK, clock=lambda: next(times))
    session.set_student("v0003", "sparse")
    session.write((slice(0, 6),) * 3, np.full((6, 6, 6), 2), "automatic")
    number = session.add_object(5)
    z, y, x = session.volume.geometry.to_world((1, 1, 1))
    click = Point((float(z), float(y), float(x)))
    session.add_prompt(number, click)
    here = (slice(0, 2), slice(0, 1), slice(5, 8))  # 4 voxels of liver, 2 of background
    session.apply_result(session.request(number), here, np.ones((2, 1, 3), bool))
    session.review_slice(0, 1)

    package = export_package(tmp_path / "p", [correction_of(session, "R. Reader")])

    record = read_package(package).cases[0].record
    assert record["student"] == {"version": "v0003", "mode": "sparse"}
    assert record["changed_voxels"] == {
        "liver": {"gained": 0, "lost": 2},
        "spleen": {"gained": 6, "lost": 0},
    }
    (prompted,) = record["objects"]
    assert prompted["label"] == "spleen"
    assert prompted["prompts"] == [
        {
            "number": 1,
            "time_s": 130,
            "kind": "point",
            "positive": True,
            "positions_mm": [list(click.position_mm)],
        }
    ]
    assert record["reviewed"] == {"whole": False, "slices": [[1], [], []]}
    assert record["reviewed_share"] == pytest.approx(1 / 6)
    assert record["reviewer"] == "R. Reader"
    assert record["seconds"] == 50
    assert record["statuses"] == {"liver": "in progress", "spleen": "in progress"}
    assert record["image"]["digest"] == session.volume.digest()
    (case,) = summarise_package(package)["cases"]
    assert (case["n_prompts"], case["reviewer"]) == (1, "R. Reader")


def test_changes_are_counted_against_the_last_automatic_result_also_after_undo():
    session = Session(new_volume(), TASK)
    box = (slice(0, 1), slice(0, 1), slice(0, 4))
    session.write(box, np.array([[[2, 2, 2, 2]]]), "automatic")
    session.write(box, np.array([[[2, 2, 5, 5]]]), "brush")
    session.write(box, np.array([[[0, 0, 0, 0]]]), "tool")
    session.undo()
    changed = correction_of(session).record["changed_voxels"]
    assert changed == {"liver": {"gained": 0, "lost": 2}, "spleen": {"gained": 2, "lost": 0}}


def test_nothing_reviewed_is_refused(tmp_path):
    with pytest.raises(UserError, match="reviewed part"):
        export_package(tmp_path / "p", [correction(reviewed=Reviewed())])
    assert list(tmp_path.iterdir()) == []


def test_cases_of_different_labels_or_channels_are_refused(tmp_path):
    other = Correction(
        new_volume(1), new_labels(), Task("x", (Label(2, "a"), Label(5, "b"))), WHOLE
    )
    for second in (other, correction(1, n_channels=2)):
        with pytest.raises(UserError, match="two packages"):
            export_package(tmp_path / "p", [correction(0), second])
    assert list(tmp_path.iterdir()) == []


def test_the_same_image_twice_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(UserError, match="once"):
        export_package(tmp_path / "p", [correction(0), correction(0)])
    assert list(tmp_path.iterdir()) == []


def test_a_package_is_not_written_over_anything(tmp_path):
    (tmp_path / "p").mkdir()
    with pytest.raises(UserError, match="new folder"):
        export_package(tmp_path / "p", [correction()])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
def test_images_of_any_type_keep_their_voxels(tmp_path, dtype):
    """Along the axes of the patient, so that nothing has to be turned for the digest."""
    case = correction(dtype=dtype, affine=np.diag([3.0, 1, 2, 1]))
    package = export_package(tmp_path / "p", [case])
    (packaged,) = read_package(package).cases
    np.testing.assert_array_equal(read_volume(packaged.images[0]).data, case.volume.data)
    assert check_package(package) == []


def test_zeros_of_both_signs_are_one_image():
    zeros = np.zeros(SHAPE, np.float32)
    assert content_digest(Volume(zeros, np.eye(4))) == content_digest(Volume(-zeros, np.eye(4)))


def test_channels_become_files(tmp_path):
    package = export_package(tmp_path / "p", [correction(n_channels=2)])
    (case,) = read_package(package).cases
    volume = new_volume(n_channels=2)
    for number, path in enumerate(case.images):
        np.testing.assert_array_equal(read_volume(path).data, volume.data[number])
    assert check_package(package) == []


@pytest.fixture
def package(tmp_path):
    return export_package(tmp_path / "p", [correction(0, three_slices()), correction(1)])


def rewrite_manifest(package):
    """What somebody would do who wants a changed file to pass."""
    manifest = json.loads((package / "manifest.json").read_text("utf-8"))
    manifest["files"] = {
        path.relative_to(package).as_posix(): {"sha256": file_digest(path), "bytes": 0}
        for path in package.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    (package / "manifest.json").write_text(json.dumps(manifest))


def relabel(path, change):
    image = nib.load(path)
    labels = np.asarray(image.dataobj).copy()
    nib.save(nib.Nifti1Image(change(labels), image.affine, image.header), path)


def first_label(package):
    return read_package(package).cases[0].labels


def test_every_changed_byte_is_found(package):
    for path in sorted(p for p in package.rglob("*") if p.is_file() and p.name != "manifest.json"):
        before = path.read_bytes()
        path.write_bytes(before[:-2] + bytes([before[-2] ^ 1]) + before[-1:])
        assert check_package(package) != [], path
        path.write_bytes(before)
    assert check_package(package) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda p: first_label(p).unlink(), "is missing"),
        (lambda p: (p / "imagesTr" / "more.nii.gz").write_text("?"), "not in the manifest"),
        (lambda p: (p / "manifest.json").write_text("[]"), "manifest.json"),
        (lambda p: shutil.rmtree(p), "manifest.json"),
    ],
)
def test_missing_and_additional_files_are_found(package, change, problem):
    change(package)
    (found,) = check_package(package)
    assert problem in found


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda labels: np.where(labels == 2, 9, labels).astype(np.uint8), "[9]"),
        (lambda labels: np.zeros_like(labels), "ignore label is not exactly"),
        (lambda labels: labels[:-1], "same place"),
    ],
)
def test_wrong_labels_are_found_behind_a_matching_manifest(package, change, problem):
    relabel(first_label(package), change)
    rewrite_manifest(package)
    assert problem in " ".join(check_package(package))


def test_an_image_in_another_place_than_its_labels_is_found(package):
    path = read_package(package).cases[0].images[0]
    image = nib.load(path)
    moved = image.affine.copy()
    moved[0, 3] += 1.0
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), path)
    rewrite_manifest(package)
    (found,) = check_package(package)
    assert "same place" in found


def test_another_image_under_a_case_s_name_is_found(package):
    first, second = read_package(package).cases
    shutil.copy(second.images[0], first.images[0])
    rewrite_manifest(package)
    (found,) = check_package(package)
    assert "not the one" in found


def test_a_link_out_of_the_package_is_found(package, tmp_path):
    label = first_label(package)
    shutil.move(label, tmp_path / "elsewhere.nii.gz")
    label.symlink_to(tmp_path / "elsewhere.nii.gz")
    (found,) = check_package(package)
    assert "link" in found


def test_a_case_s_name_cannot_lead_out_of_the_package(package):
    lines = (package / "corrections.jsonl").read_text("utf-8").splitlines()
    record = {**json.loads(lines[0]), "case": "../../secret"}
    (package / "corrections.jsonl").write_text(json.dumps(record) + "\n" + lines[1] + "\n")
    rewrite_manifest(package)
    (found,) = check_package(package)
    assert "no name for a case" in found


def test_a_known_image_is_found_whatever_its_name_type_and_axes(package):
    volume = new_volume(1)
    turned = volume.data.astype(np.float64)[:, ::-1].transpose(2, 0, 1)
    affine = volume.affine.copy()
    affine[:3, 3] = volume.geometry.to_world((0, SHAPE[1] - 1, 0))
    affine[:3, 1] *= -1
    affine[:3, :3] = affine[:3, [2, 0, 1]]
    copy = Volume(turned, affine, name="another")
    assert copy.geometry.to_world((3, 2, 1)) == pytest.approx(
        volume.geometry.to_world((2, SHAPE[1] - 2, 3))
    )
    assert content_digest(copy) == content_digest(volume)
    assert content_digest(new_volume(2)) != content_digest(volume)
    (found,) = check_package(package, {content_digest(copy): "hold-out case 12"})
    assert "hold-out case 12" in found


def test_a_newer_package_is_refused(package):
    manifest = json.loads((package / "manifest.json").read_text("utf-8"))
    (package / "manifest.json").write_text(json.dumps({**manifest, "version": 2}))
    assert "update napari-ka2er" in check_package(package)[0]


@pytest.mark.slow
@pytest.mark.parametrize("shear", [0.0, 0.4])
@pytest.mark.parametrize("reviewed", [three_slices(), WHOLE])
def test_nnunet_accepts_the_dataset(tmp_path, monkeypatch, capfd, shear, reviewed):
    verify = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    cases = [correction(seed, reviewed, affine=oblique(shear)) for seed in (0, 1)]
    package = export_package(tmp_path / "Dataset123_organs", cases)
    verify.verify_dataset_integrity(str(package), num_processes=1)
    told = capfd.readouterr().out
    assert "Done" in told
    assert "Warning" not in told
    assert "Error" not in told
