import pytest
import torch
from tests.model.students import small_config

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.foundation import Foundation


@pytest.fixture
def swinvit(tmp_path):
    """A file with the key layout of MONAI's model_swinvit.pt, in our small size."""
    torch.manual_seed(7)
    source = Foundation(small_config()).net.swinViT
    state = {
        "module." + name.replace("mlp.linear", "mlp.fc"): tensor
        for name, tensor in source.state_dict().items()
    }
    path = tmp_path / "model_swinvit.pt"
    torch.save({"state_dict": state}, path)
    return path, source


def test_the_layout_of_model_swinvit_loads(swinvit):
    path, source = swinvit
    torch.manual_seed(0)
    foundation = Foundation(small_config())
    foundation.load_pretrained(path)
    image = torch.randn(1, 1, 32, 64, 32)
    with torch.no_grad():
        expected = source.eval()(image, True)
        got = foundation.eval().stages(image)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"encoder.weight": torch.zeros(3)}}, "layout of model_swinvit"),
        ({"weights": torch.zeros(3)}, "layout of model_swinvit"),
        (
            {"state_dict": {"module.patch_embed.proj.weight": torch.zeros(5, 1, 2, 2, 2)}},
            "feature size",
        ),
    ],
    ids=["another layout", "no state_dict", "another size"],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, content, message):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match=message):
        Foundation(small_config()).load_pretrained(path)


def test_weights_that_change_nothing_are_refused(swinvit):
    path, source = swinvit
    foundation = Foundation(small_config())
    foundation.net.swinViT.load_state_dict(source.state_dict())
    with pytest.raises(UserError, match="matches nothing"):
        foundation.load_pretrained(path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": pytest.raises}, path)
    with pytest.raises(UserError, match="tensors only"):
        Foundation(small_config()).load_pretrained(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.pt"):
        Foundation(small_config()).load_pretrained(tmp_path / "none.pt")
