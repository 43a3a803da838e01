import hashlib
import json
import os
import pickle
import shutil
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.model.folders import make_student_folder
from tests.model.students import small_student

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.catalogue import Download, find_student, sample_folder
from napari_ka2er.model.checkpoint import load_student, save_student, sha256_of


@pytest.fixture
def copy(student_folder, tmp_path):
    return shutil.copytree(student_folder, tmp_path / "copy")


def edit(folder, **changes):
    path = folder / "student.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}))


def test_a_student_comes_back_as_it_was(tmp_path):
    student = small_student(awake=True)
    save_student(tmp_path / "s", student, {"version": "v0007", "notes": "n"})
    loaded = load_student(tmp_path / "s")
    assert loaded.card == {"version": "v0007", "notes": "n"}
    assert loaded.config == student.config
    for name, tensor in student.state_dict().items():
        torch.testing.assert_close(loaded.student.state_dict()[name], tensor, rtol=0, atol=0)
    assert not loaded.student.training
    assert not any(p.requires_grad for p in loaded.student.parameters())


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_others_in_the_laboratory_can_read_a_student_and_its_experts(tmp_path):
    folder = make_student_folder(tmp_path / "student")
    made = [folder, *folder.rglob("*")]
    assert {path.name for path in made} >= {"student.safetensors", "expert.safetensors"}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in made)


def test_half_precision_halves_the_file_and_loads_as_single(tmp_path):
    student = small_student()
    save_student(tmp_path / "full", student, {})
    save_student(tmp_path / "half", student, {}, half=True)
    sizes = [(tmp_path / n / "student.safetensors").stat().st_size for n in ("half", "full")]
    assert sizes[0] < 0.51 * sizes[1]
    loaded = load_student(tmp_path / "half").student
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for a, b in zip(loaded.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_no_weight_is_stored_twice(tmp_path):
    student = small_student()
    save_student(tmp_path / "s", student, {})
    stored = load_file(tmp_path / "s" / "student.safetensors")
    n_stored = sum(t.numel() for t in stored.values() if t.is_floating_point())
    buffers = sum(b.numel() for b in student.buffers() if b.is_floating_point())
    assert n_stored == sum(p.numel() for p in student.parameters()) + buffers


def test_digests_follow_weights_and_configuration(student_folder, copy):
    same = load_student(copy).digest
    assert same == load_student(student_folder).digest
    data = json.loads((copy / "student.json").read_text("utf-8"))
    data["config"]["sparse_threshold"] = 0.5
    (copy / "student.json").write_text(json.dumps(data))
    assert load_student(copy).digest != same


def test_an_older_student_is_replaced_as_a_whole_and_nothing_is_left_beside(tmp_path):
    save_student(tmp_path / "s", small_student(), {"notes": "old"})
    (tmp_path / "s" / "stale.txt").write_text("")
    save_student(tmp_path / "s", small_student(), {"notes": "new"})
    assert load_student(tmp_path / "s").card == {"notes": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [
        "student.json",
        "student.safetensors",
    ]


def test_a_failed_save_leaves_the_older_student(tmp_path):
    save_student(tmp_path / "s", small_student(), {"notes": "old"})
    with pytest.raises(UserError, match="place to write"):
        save_student(tmp_path / "s", small_student(), {}, experts={"one": tmp_path / "absent"})
    assert load_student(tmp_path / "s").card == {"notes": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_unknown_keys_of_a_card_are_refused(tmp_path):
    with pytest.raises(UserError, match="metric_s"):
        save_student(tmp_path / "s", small_student(), {"metric_s": 1})
    assert not list(tmp_path.iterdir())


def drop_weights(folder):
    (folder / "student.safetensors").unlink()


def truncate_weights(folder):
    path = folder / "student.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def pickle_weights(folder):
    with (folder / "student.safetensors").open("wb") as file:
        pickle.dump({"a": 1}, file)


def torch_weights(folder):
    torch.save({"a": torch.zeros(1)}, folder / "student.safetensors")


def other_weights(folder):
    path = folder / "student.safetensors"
    save_file({**load_file(path), "stranger": torch.zeros(1)}, path)


def unfitting_weights(folder):
    other_weights(folder)
    edit(folder, weights={"sha256": sha256_of(folder / "student.safetensors")})


def unknown_setting(folder):
    config = json.loads((folder / "student.json").read_text("utf-8"))["config"]
    edit(folder, config={**config, "colour": 3})


BROKEN = {
    "no json": (lambda f: (f / "student.json").unlink(), "student.json"),
    "no weights": (drop_weights, "no such file"),
    "truncated weights": (truncate_weights, "damaged"),
    "a pickle": (pickle_weights, "pickle"),
    "a torch archive": (torch_weights, "pickle"),
    "others' weights": (other_weights, "fetch"),
    "unfitting weights": (unfitting_weights, "stranger"),
    "future format": (lambda f: edit(f, format_version=99), "version 99"),
    "older format": (lambda f: edit(f, format_version=1), "ka2er amalgamate"),
    "no version": (lambda f: edit(f, format_version=None), "version None"),
    "another format": (lambda f: edit(f, format="monai"), "something else"),
    "no config": (
        lambda f: (f / "student.json").write_text('{"format": "ka2er-student"}'),
        "wanted",
    ),
    "broken json": (lambda f: (f / "student.json").write_text("{"), "JSON"),
    "a list": (lambda f: (f / "student.json").write_text("[]"), "something else"),
    "binary json": (lambda f: (f / "student.json").write_bytes(b"\xff\xfe"), "JSON"),
    "unknown setting": (unknown_setting, "colour"),
    "a card that is none": (lambda f: edit(f, card=[1]), "card"),
}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("heads", 7),
        ("heads", 0),
        ("heads", -1),
        ("feature_size", "x"),
        ("feature_size", 7),
        ("width", 2.5),
        ("dense_width", 0),
        ("use_v2", "yes"),
        ("sparse_threshold", "x"),
        ("amalgamation", "magic"),
        ("amalgamation", ["attention"]),
    ],
)
def test_settings_that_no_student_can_be_built_from_are_refused(copy, setting, value):
    config = json.loads((copy / "student.json").read_text("utf-8"))["config"]
    edit(copy, config={**config, setting: value})
    with pytest.raises(UserError, match="can be built from") as caught:
        load_student(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_student_is_refused_in_one_line(copy, kind):
    spoil, message = BROKEN[kind]
    spoil(copy)
    with pytest.raises(UserError, match=message) as caught:
        load_student(copy)
    assert "\n" not in str(caught.value)


def test_weights_whose_length_looks_like_a_pickle_s_mark_are_read(copy):
    """One student in 32 has a header whose length ends in the byte 0x80."""
    path = copy / "student.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    padded = length + (0x80 - length) % 256
    path.write_bytes(
        padded.to_bytes(8, "little") + data[8 : 8 + length].ljust(padded) + data[8 + length :]
    )
    edit(copy, weights={"sha256": sha256_of(path)})
    assert path.read_bytes()[:1] == b"\x80"
    assert load_student(copy).student is not None


def test_experts_are_loaded_when_asked_for_and_checked(student_folder, copy):
    experts = load_student(student_folder).experts
    assert list(experts) == ["one", "two"]
    assert experts["two"].task.name == "two"
    assert experts["two"] is experts["two"]
    shutil.rmtree(copy / "experts" / "one")
    shutil.copytree(copy / "experts" / "two", copy / "experts" / "one")
    shutil.rmtree(copy / "experts" / "two")
    broken = load_student(copy).experts
    assert broken.missing == ("two",)
    with pytest.raises(UserError, match="distilled"):
        broken["two"]
    with pytest.raises(UserError, match="digest"):
        broken["one"]


@pytest.fixture
def server(student_folder, tmp_path, monkeypatch):
    """A web server with a student as a zip archive, and an empty cache."""
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in student_folder.rglob("*"):
            archive.write(path, path.relative_to(student_folder.parent))
    monkeypatch.setattr("pooch.os_cache", lambda _: tmp_path / "cache")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/s.zip", tmp_path / "s.zip"
        running.shutdown()


def test_a_published_student_is_downloaded_once_and_checked(server, student_folder):
    url, archive = server
    known = {"published": Download(url, hashlib.sha256(archive.read_bytes()).hexdigest())}
    folder = find_student("published", known)
    assert load_student(folder).digest == load_student(student_folder).digest
    archive.unlink()
    assert find_student("published", known) == folder


def test_a_download_that_is_not_what_was_published_is_refused(server):
    url, _ = server
    with pytest.raises(UserError, match="hash"):
        find_student("published", {"published": Download(url, "0" * 64)})
    with pytest.raises(UserError, match="404"):
        find_student("published", {"published": Download(f"{url}.absent", "0" * 64)})


def test_students_are_found_by_folder_and_by_name(student_folder, tmp_path):
    assert find_student(str(student_folder)) == student_folder
    assert find_student("sample") == sample_folder() / "student"
    with pytest.raises(UserError, match="sample"):
        find_student("nothing-like-it")
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(UserError, match="folder"):
        find_student(str(tmp_path / "model.pt"))
