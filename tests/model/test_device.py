import pytest
import torch

from napari_ka2er.core.errors import UserError
from napari_ka2er.model import device as module
from napari_ka2er.model.device import autocast, place, resolve_device


def test_auto_is_the_fastest_device_there_is():
    kind = resolve_device("auto").type
    if torch.cuda.is_available():
        assert kind == "cuda"
    else:
        assert kind == ("mps" if torch.backends.mps.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:1", "mps:0", "", "cuda:-1", "cuda:"])
def test_an_unknown_device_is_refused_in_one_line(name):
    with pytest.raises(UserError, match="auto, cpu, cuda"):
        resolve_device(name)


@pytest.mark.parametrize(("count", "name"), [(0, "cuda"), (1, "cuda:1"), (2, "cuda:2")])
def test_an_absent_cuda_device_is_refused(monkeypatch, count, name):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError, match=f"{count} CUDA devices"):
        resolve_device(name)


def test_a_present_cuda_device_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


def test_an_absent_mps_device_is_refused(monkeypatch):
    monkeypatch.setattr(module.torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="without it"):
        resolve_device("mps")


def test_the_cpu_computes_in_single_precision():
    network = place(torch.nn.Conv3d(1, 2, 3), resolve_device("cpu"))
    with autocast(torch.device("cpu")):
        assert network(torch.zeros(1, 1, 4, 4, 4)).dtype == torch.float32


@pytest.mark.gpu
def test_cuda_computes_in_half_precision_with_channels_last():
    network = place(torch.nn.Conv3d(1, 4, 3), resolve_device("cuda"))
    assert network.weight.is_contiguous(memory_format=torch.channels_last_3d)
    with autocast(torch.device("cuda")):
        result = network(torch.zeros(1, 1, 8, 8, 8, device="cuda"))
    assert result.dtype in (torch.bfloat16, torch.float16)
