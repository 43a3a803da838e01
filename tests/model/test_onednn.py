import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from napari_ka2er.model.onednn import Convolution, onednn_twin, take_onednn
from napari_ka2er.model.refinement import Refinement


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def plain_and_fast(*args, **more):
    torch.manual_seed(0)
    plain = nn.Conv3d(*args, **more)
    fast = Convolution(*args, **more)
    fast.load_state_dict(plain.state_dict())
    return plain, fast


def outcome(network, x):
    x = x.clone().requires_grad_()
    y = network(x)
    gradients = torch.autograd.grad(y.square().sum(), [x, *network.parameters()])
    return [y, *gradients]


def operations(call):
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        call()
    return {event.key for event in seen.key_averages()}


SETTINGS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (1, 3, 3), "padding": (0, 1, 1), "stride": (1, 2, 2), "bias": False},
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 2},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_a_small_volume_gives_the_same_and_so_do_its_gradients(threads, settings, layout):
    plain, fast = plain_and_fast(6, 4, **settings)
    x = torch.randn(1, 6, 9, 12, 7).contiguous(memory_format=layout)
    for want, got in zip(outcome(plain, x), outcome(fast, x), strict=True):
        torch.testing.assert_close(got, want, atol=2e-5, rtol=2e-5)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), plain(x), atol=2e-5, rtol=2e-5)


def test_neither_pass_takes_the_plain_loops(threads):
    plain, fast = plain_and_fast(6, 4, kernel_size=3, padding=1)
    x = torch.randn(1, 6, 8, 12, 10)
    slow = {"aten::slow_conv3d_forward", "aten::_slow_conv2d_forward"}
    if threads == 1:  # with more, on some machines it takes oneDNN by itself
        assert operations(lambda: outcome(plain, x)) & slow, (
            "PyTorch has mended it: onednn.py can go"
        )
    assert not operations(lambda: outcome(fast, x)) & slow
    assert not operations(lambda: torch.no_grad()(fast)(x)) & slow


def test_a_network_keeps_its_parameters_and_what_is_no_plain_convolution():
    class Own(nn.Conv3d):
        pass

    network = nn.Sequential(
        nn.Conv3d(2, 3, 3),
        nn.Conv3d(3, 3, 3, padding=1, padding_mode="circular"),
        Own(3, 3, 1),
        nn.Conv2d(3, 3, 1),
    )
    before = {name: id(p) for name, p in network.named_parameters()}
    assert take_onednn(network) is network
    assert [type(m) for m in network] == [Convolution, nn.Conv3d, Own, nn.Conv2d]
    assert {name: id(p) for name, p in network.named_parameters()} == before


def test_a_refinement_is_that_of_plain_convolutions(threads):
    torch.manual_seed(0)
    network = Refinement(5, 8).eval()
    nn.init.normal_(network.head.weight)
    x, context = torch.randn(1, 5, 24, 16, 20), torch.randn(1, 8)
    with torch.inference_mode():
        fast = network(x, context)
        for module in network.modules():
            if type(module) is Convolution:
                module.__class__ = nn.Conv3d
        torch.testing.assert_close(fast, network(x, context), atol=1e-4, rtol=1e-4)


def test_a_twin_has_the_same_tensors_and_leaves_the_first_as_it_is(threads):
    first = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.BatchNorm3d(3)).eval()
    twin = onednn_twin(first)
    assert [type(m) for m in first] == [nn.Conv3d, nn.BatchNorm3d]
    assert type(twin[0]) is Convolution
    x = torch.randn(1, 1, 5, 6, 7)
    first.load_state_dict({name: t + 1 for name, t in first.state_dict().items()})
    assert [p.data_ptr() for p in twin.parameters()] == [p.data_ptr() for p in first.parameters()]
    with torch.no_grad():
        torch.testing.assert_close(twin(x), first(x), atol=1e-5, rtol=1e-5)
