from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.model.trained_models import Model, make_model_folder, noisy_volume, rotated

from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.resampling import grid_of
from napari_ka2er.core.volume import Geometry, Volume
from napari_ka2er.model import expert_store
from napari_ka2er.model.alignment import align, token_geometry
from napari_ka2er.model.expert_features import decode
from napari_ka2er.model.expert_image import pad
from napari_ka2er.model.expert_look import working_spacing
from napari_ka2er.model.expert_probe import _fixed_statistics, token_centres
from napari_ka2er.model.expert_store import FeatureStore
from napari_ka2er.model.expert_view import at_tokens
from napari_ka2er.model.experts import Expert, FeatureMap, convert_expert

FINE = (0.5, 0.5, 0.5)  # a student grid fine enough for experts to keep their own spacing


@pytest.fixture(scope="module")
def expert(tmp_path_factory) -> Expert:
    model = Model(transpose=(2, 0, 1), patch=(16, 24, 16), spacing=(1.0, 1.5, 1.2))
    folder = make_model_folder(tmp_path_factory.mktemp("models") / "model", model)
    return convert_expert(folder, folder.parent / "expert", trust=False)


def part_of(geometry: Geometry, low: tuple[int, ...], size: tuple[int, ...]) -> Geometry:
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.to_world(low)
    return Geometry(size, affine)


def test_features_are_the_decoders_on_windows_of_the_preprocessed_volume(expert):
    volume = noisy_volume((20, 14, 15), (1.5, 1.2, 1.0))  # one patch, after padding
    view = expert.look(volume, FINE)
    assert view.n_windows == 1
    view.fill()
    data, _ = expert.plan.preprocess(volume, expert.plan.at_spacing(expert.spacing_mm))
    image = pad(data, view.grid)
    features = decode(expert.network, torch.from_numpy(image)[None])
    assert len(view.stages) == len(features) == 3
    for stage, feature, channels in zip(view.stages, features, (4, 6, 8), strict=True):
        assert stage.data.shape[0] == channels
        np.testing.assert_allclose(stage.data, feature[0].numpy(), atol=4e-3)


def test_features_lead_to_nnunets_own_logits_where_an_image_ends_between_tokens(expert):
    """A window that reached into padding changed every feature: .025 Dice on vertebrae."""
    volume = noisy_volume((31, 29, 22), (1.2, 1.5, 1.0))
    view = expert.look(volume, FINE)
    view.fill()
    data, _ = expert.plan.preprocess(volume, expert.plan.at_spacing(expert.spacing_mm))
    size = data.shape[1:]
    assert any(n % s for n, s in zip(size, expert.strides[-1], strict=True))
    assert any(n > p for n, p in zip(size, expert.patch_size, strict=True))
    low = np.array(view.grid.before)
    inside = tuple(slice(b, b + n) for b, n in zip(low, size, strict=True))
    found = expert.head(0)(torch.from_numpy(view.stages[0].data[(slice(None), *inside)]).float())
    wanted = np.full(found.shape, np.nan, np.float32)
    image = pad(data, view.grid)
    for index in np.ndindex(*view.windows.shape):
        place, core = view.windows.window(index), view.windows.core(index, (1, 1, 1))
        window = torch.from_numpy(np.ascontiguousarray(image[(slice(None), *place)]))[None]
        own = expert.network(window)[0].detach().numpy()
        kept = [
            slice(max(c.start, b), min(c.stop, b + n))
            for c, b, n in zip(core, low, size, strict=True)
        ]
        there = tuple(slice(k.start - b, k.stop - b) for k, b in zip(kept, low, strict=True))
        here = tuple(
            slice(k.start - p.start, k.stop - p.start) for k, p in zip(kept, place, strict=True)
        )
        wanted[(slice(None), *there)] = own[(slice(None), *here)]
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=2e-2)


def test_tokens_between_those_of_a_window_are_interpolated():
    values = np.arange(24, dtype=np.float32).reshape(1, 4, 3, 2) ** 1.5
    # along z the window begins at voxel 6 of a stride of 4: token 2 lies at its 0.5, token 4 at 2.5
    core = slice(2, 5), slice(1, 3), slice(0, 2)
    found = at_tokens(values, (6, 2, 0), core, (4, 2, 1))
    assert found.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(found[:, 0], (values[:, 0, :2] + values[:, 1, :2]) / 2)
    np.testing.assert_allclose(found[:, 2], (values[:, 2, :2] + values[:, 3, :2]) / 2)
    beyond = at_tokens(values, (6, 2, 0), (slice(5, 7), *core[1:]), (4, 2, 1))
    np.testing.assert_array_equal(beyond[:, 0], values[:, 3, :2])
    np.testing.assert_array_equal(beyond[:, 1], values[:, 3, :2])
    same = at_tokens(values, (8, 2, 0), core, (4, 2, 1))
    np.testing.assert_array_equal(same, values[:, :3, :2])


def test_features_do_not_depend_on_the_order_of_windows(expert):
    volume = noisy_volume()
    whole = expert.look(volume, FINE)
    whole.fill()
    pieces = expert.look(volume, FINE)
    assert pieces.n_windows == whole.n_windows == whole.cost_windows > 8
    for low in [(30, 20, 20), (0, 0, 0), (30, 0, 20), (12, 12, 3)]:
        pieces.fill(part_of(volume.geometry, low, (8, 8, 8)))
    assert 0 < pieces.cost_windows < whole.cost_windows
    pieces.fill()
    pieces.fill()
    assert pieces.cost_windows == whole.cost_windows
    for a, b in zip(whole.stages, pieces.stages, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
        assert b.filled.all()


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("spacing", [(1.6, 1.4, 1.8), (2.9, 1.2, 2.6)])
def test_a_filled_region_reads_as_if_all_were_filled(expert, turn, spacing):
    volume = noisy_volume((80, 50, 60))
    grid = grid_of(volume.geometry, spacing)
    whole, lazy = expert.look(volume, FINE), expert.look(volume, FINE)
    whole.fill()
    read_at = {1: 0, 2: 1, 4: 2, 8: 2}
    seen = 0
    for low in [(1, 0, 0), (5, 9, 4)]:
        window = part_of(grid, low, (8, 8, 8))
        if turn:
            window = Geometry(window.shape, window.affine @ np.diag([0.7, 1.2, 0.9, 1.0]))
        lazy.fill(window, read_at=read_at)
        for stride, stage in read_at.items():
            tokens = token_geometry(window, stride)
            expected, inside = align(whole.stages[stage], tokens)
            features, _ = align(lazy.stages[stage], tokens)
            seen += int(inside.sum())
            assert torch.equal(features[:, inside], expected[:, inside])
    assert seen > 100
    assert lazy.cost_windows < whole.cost_windows


def test_coarse_tokens_need_fewer_windows_than_every_voxel(expert):
    volume = noisy_volume()
    view = expert.look(volume, FINE)
    region = part_of(volume.geometry, (10, 10, 8), (4, 4, 4))
    everywhere = set(view.missing(region))
    assert set(view.missing(region, {4: 2})) < everywhere
    assert everywhere < set(view.missing())


def test_a_region_beside_the_volume_costs_nothing(expert):
    volume = noisy_volume()
    view = expert.look(volume, FINE)
    view.fill(part_of(volume.geometry, (200, 0, 0), (8, 8, 8)))
    assert view.cost_windows == 0
    assert not view.filled.any()


def test_stages_that_are_not_kept_are_not_there_and_change_nothing(expert):
    volume = noisy_volume()
    whole, coarse = expert.look(volume, FINE), expert.look(volume, FINE, stages=[1, 2])
    whole.fill()
    coarse.fill()
    assert coarse.stages[0].data.shape == (0, *whole.stages[0].data.shape[1:])
    for stage in (1, 2):
        np.testing.assert_array_equal(coarse.stages[stage].data, whole.stages[stage].data)


def test_progress_and_stopping(expert):
    view = expert.look(noisy_volume(), FINE)
    told = []
    with pytest.raises(CancelledError):
        view.fill(progress=lambda share, _: told.append(share), cancelled=lambda: len(told) == 3)
    assert view.cost_windows == view.filled.sum() == 3
    view.fill(progress=lambda share, _: told.append(share))
    assert told[-1] == 1.0
    assert view.cost_windows == view.n_windows


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 30, 3)])
def test_volumes_much_smaller_than_the_patch_have_features(expert, shape):
    volume = Volume(np.random.default_rng(0).normal(size=shape), np.diag([1.5, 1.2, 1.0, 1.0]))
    view = expert.look(volume, FINE)
    view.fill()
    for stage in view.stages:
        assert np.isfinite(stage.data).all()
        centre = volume.geometry.to_world((np.array(shape) - 1) / 2)
        index = stage.from_world[:3, :3] @ centre + stage.from_world[:3, 3]
        assert (index >= stage.field[0]).all()
        assert (index <= stage.field[1]).all()


def test_the_field_ends_where_the_image_ends(expert):
    volume = noisy_volume()
    low, high = (3, 0, 1), (40, 31, 30)  # what is not zero
    corners = np.array([low, high]) - 0.5
    for stage in expert.look(volume, FINE).stages:
        ends = volume.geometry.to_world(corners) @ stage.from_world[:3, :3].T
        ends = np.sort(ends + stage.from_world[:3, 3], axis=0)
        np.testing.assert_allclose(ends, stage.field)


def test_experts_work_coarser_only_for_a_student_that_sees_coarser():
    geometry = Geometry((40, 30, 20), np.diag([1.0, 1.0, 5.0, 1.0]))
    planned = (1.0, 1.0, 5.0)
    assert working_spacing(planned, geometry, (1.0, 1.0, 1.0)) == planned
    assert working_spacing(planned, geometry, (1.3, 1.3, 1.3)) == planned
    assert working_spacing(planned, geometry, (4.0, 2.0, 4.0)) == (4.0, 2.0, 5.0)
    # stored in the order x, z, y of the world: the student's Z is the volume's second axis
    swapped = np.zeros((4, 4))
    swapped[[2, 0, 1, 3], [0, 1, 2, 3]] = (1, -1, 5, 1)
    geometry = Geometry((40, 30, 20), swapped)
    assert working_spacing(planned, geometry, (4.0, 9.0, 1.0)) == (1.0, 4.0, 9.0)


def test_a_coarse_student_makes_the_expert_cheap(expert):
    volume = noisy_volume((60, 50, 45))
    fine, coarse = expert.look(volume, FINE), expert.look(volume, (3.0, 3.0, 3.0))
    assert coarse.n_windows < fine.n_windows / 4
    coarse.fill()
    pitch_mm = np.linalg.norm(np.linalg.inv(coarse.stages[0].from_world)[:3, :3], axis=0)
    np.testing.assert_allclose(pitch_mm, 3.0, rtol=0.05)


class TestCache:
    def test_features_outlive_the_view(self, expert, tmp_path):
        volume = noisy_volume()
        expected = expert.look(volume, FINE)
        expected.fill()
        told = []
        first = expert.look(volume, FINE, tmp_path)
        with pytest.raises(CancelledError):
            first.fill(progress=lambda share, _: told.append(share), cancelled=lambda: bool(told))
        del first
        second = expert.look(volume, FINE, tmp_path)
        assert second.filled.sum() == 1
        second.fill()
        assert second.cost_windows == second.n_windows - 1
        third = expert.look(volume, FINE, tmp_path)
        third.fill()
        assert third.cost_windows == 0
        for a, b in zip(expected.stages, third.stages, strict=True):
            np.testing.assert_array_equal(a.data, b.data)

    def test_another_volume_expert_spacing_or_choice_of_stages_has_its_own(self, expert, tmp_path):
        looks = [
            expert.look(noisy_volume(), FINE, tmp_path),
            expert.look(noisy_volume(seed=1), FINE, tmp_path),
            expert.look(noisy_volume(), (3.0, 3.0, 3.0), tmp_path),
            expert.look(noisy_volume(), FINE, tmp_path, stages=[2]),
            expert.look(noisy_volume(), FINE, tmp_path),
        ]
        assert len(list(tmp_path.glob("[!.]*"))) == len(looks) - 1

    def test_a_damaged_entry_is_made_anew(self, expert, tmp_path):
        volume = noisy_volume()
        expert.look(volume, FINE, tmp_path).fill()
        (entry,) = tmp_path.glob("*/entry.json")
        entry.write_text(entry.read_text("utf-8")[:20])
        view = expert.look(volume, FINE, tmp_path)
        assert not view.filled.any()
        assert [path.name for path in tmp_path.glob("[!.]*")] == [entry.parent.name]

    @pytest.mark.parametrize("damage", ["cut", "longer", "missing", "other"])
    @pytest.mark.parametrize("name", ["stage1.npy", "filled.npy"])
    def test_a_store_with_a_damaged_array_is_made_anew(self, expert, tmp_path, name, damage):
        """NumPy fills a short file up with zeros, which would be read as features."""
        volume = noisy_volume()
        expert.look(volume, FINE, tmp_path).fill()
        damage_file(next(tmp_path.glob(f"*/{name}")), damage)
        view = expert.look(volume, FINE, tmp_path)
        assert not view.filled.any()
        assert not any(stage.data.any() for stage in view.stages)

    def test_a_full_disk_is_told_before_it_ends_the_process(self, expert, tmp_path, monkeypatch):
        view = expert.look(noisy_volume(), FINE, tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(UserError, match=r"MiB for the experts' features.*cache rm"):
            view.fill()
        assert not view.filled.any()

    def test_room_is_asked_only_for_the_windows_that_run(self, expert, tmp_path, monkeypatch):
        volume = noisy_volume((80, 60, 60))
        view = expert.look(volume, FINE, tmp_path)
        n_bytes = sum(stage.data.nbytes for stage in view.stages)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=n_bytes // 2))
        before = taken(view.folder)
        view.fill(part_of(volume.geometry, (4, 4, 4), (4, 4, 4)))
        assert 0 < view.filled.sum() < view.n_windows
        assert taken(view.folder) - before < n_bytes // 2
        with pytest.raises(UserError, match="MiB for the experts' features"):
            view.fill()

    def test_a_folder_that_cannot_be_written_is_told(self, expert, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="writable cache"):
            expert.look(noisy_volume(), FINE, tmp_path / "file")

    @pytest.mark.slow
    def test_a_killed_process_leaves_what_it_finished(self, expert, tmp_path):
        script = (
            "import sys; from pathlib import Path\n"
            "from napari_ka2er.model.experts import Expert\n"
            "from tests.model.trained_models import noisy_volume\n"
            "expert = Expert.load(Path(sys.argv[1]))\n"
            "view = expert.look(noisy_volume(), (0.5, 0.5, 0.5), Path(sys.argv[2]))\n"
            "view.fill(progress=lambda *_: print('window', flush=True))\n"
        )
        command = [sys.executable, "-c", script, str(expert.folder), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path.cwd()) as process:
            for _ in range(4):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        view = expert.look(noisy_volume(), FINE, tmp_path)
        n_done = int(view.filled.sum())
        assert 4 <= n_done < view.n_windows
        expected = expert.look(noisy_volume(), FINE)
        expected.fill()
        for a, b in zip(expected.stages, view.stages, strict=True):
            np.testing.assert_array_equal(a.data[:, b.filled], b.data[:, b.filled])
        view.fill()
        assert view.cost_windows == view.n_windows - n_done


def damage_file(path: Path, damage: str) -> None:
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        path.write_bytes(bytes(len(content)))
    else:
        path.write_bytes(content[: len(content) // 4] if damage == "cut" else content + bytes(8))


def taken(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def test_a_window_counts_as_filled_only_after_its_values_are_written(tmp_path):
    store = FeatureStore.on_disk(tmp_path, {0: (1, 4, 4, 4)}, (1, 1, 1), {"volume": "a"})
    whole = (slice(None),) * 3
    with pytest.raises(ValueError, match="broadcast"):
        store.write((0, 0, 0), {0: (whole, np.zeros((1, 4, 4, 5)))})
    assert not store.filled.any()
    store.write((0, 0, 0), {0: (whole, np.ones((1, 4, 4, 4)))})
    again = FeatureStore.on_disk(tmp_path, {0: (1, 4, 4, 4)}, (1, 1, 1), {"volume": "a"})
    assert again.filled.all()
    assert (again.maps[0] == 1).all()
    assert json.loads((again.folder / "entry.json").read_text("utf-8"))["volume"] == "a"


def test_two_that_make_one_store_at_once_do_not_destroy_each_other_s(tmp_path, monkeypatch):
    """One of them finds no store, is held up, and another one makes it and fills it meanwhile."""
    arguments = (tmp_path, {0: (1, 4, 4, 4)}, (1, 1, 1), {"volume": "a"})
    belongs, others = expert_store._belongs, []

    def fill():
        whole = (slice(None),) * 3
        FeatureStore.on_disk(*arguments).write((0, 0, 0), {0: (whole, np.ones((1, 4, 4, 4)))})

    def held_up(folder, identity):
        found = belongs(folder, identity)
        if not others:
            others.append(Thread(target=fill))
            others[0].start()
            others[0].join(timeout=1)
        return found

    monkeypatch.setattr(expert_store, "_belongs", held_up)
    store = FeatureStore.on_disk(*arguments)
    others[0].join(timeout=10)
    assert store.filled.all()
    assert (store.maps[0] == 1).all()
    assert (FeatureStore.on_disk(*arguments).maps[0] == 1).all()


LATTICES = {
    "plain": ("PlainConvUNet", (0, 1, 2), (1.0, 1.0, 1.0), ((1, 1, 1), (2, 2, 2), (2, 2, 2))),
    "residual, transposed, anisotropic": (
        "ResidualEncoderUNet",
        (2, 0, 1),
        (2.0, 1.0, 1.0),
        ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    ),
}


@pytest.mark.parametrize("name", LATTICES)
def test_a_bright_blob_is_seen_where_it_is(tmp_path, name):
    """What a blob changes in each feature map lies about the blob, in a rotated, cropped volume."""
    architecture, transpose, spacing, strides = LATTICES[name]
    model = Model(
        architecture=architecture,
        transpose=transpose,
        spacing=spacing,
        strides=strides,
        patch=(32, 32, 32),
        normalization="CTNormalization",  # does not depend on the blob
    )
    folder = make_model_folder(tmp_path / "model", model)
    expert = convert_expert(folder, tmp_path / "expert", trust=False)
    make_symmetric(expert.network)
    expert.token_centres = token_centres(expert.network, model.patch, expert.strides)
    generator = np.random.default_rng(0)
    data = 40 + 60 * generator.normal(size=(26, 28, 25))
    data[:2], data[:, :, -3:] = 0, 0
    geometry = Geometry(data.shape, rotated((1.2, 1.0, 1.1)))
    misses = []
    with _fixed_statistics(expert.looking):
        before = features_of(expert, Volume(data, geometry.affine))
        for _ in range(8):
            blob = geometry.to_world(np.array(data.shape) * generator.uniform(0.42, 0.58, 3))
            away = geometry.to_world(np.moveaxis(np.indices(data.shape), 0, -1)) - blob
            bright = 150 * np.exp(-(away**2).sum(axis=-1) / (2 * 2.0**2)) * (data != 0)
            after = features_of(expert, Volume(data + bright, geometry.affine))
            misses.append(
                [
                    _centroid(np.subtract(b.data, a.data, dtype=np.float32))
                    - (a.from_world @ [*blob, 1.0])[:3]
                    for a, b in zip(before, after, strict=True)
                ]
            )
    voxels = np.abs(np.mean(misses, axis=0)) * np.array(expert.strides)
    assert voxels.max() < 0.3


def features_of(expert: Expert, volume: Volume) -> tuple[FeatureMap, ...]:
    view = expert.look(volume, FINE)
    view.fill()
    assert view.n_windows == 1
    return view.stages


def make_symmetric(network: torch.nn.Module) -> None:
    """Give every convolution a symmetric kernel, so that features look about their centres."""
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            mixed = torch.randn(layer.weight.shape[:2], generator=generator)
            kernel = torch.ones(())
            for n in layer.weight.shape[2:]:
                profile = [1.0, 2.0, 1.0] if n == 3 else [1.0] * n
                kernel = kernel[..., None] * torch.tensor(profile)
            layer.weight.copy_(mixed[:, :, None, None, None] * kernel)


def _centroid(change: np.ndarray) -> np.ndarray:
    """Return the index about which features (C, z, y, x) have changed."""
    strength = (change**2).sum(axis=0)
    strength = np.where(strength > 0.05 * strength.max(), strength, 0)  # not the noise
    return (np.indices(strength.shape) * strength).sum(axis=(1, 2, 3)) / strength.sum()
