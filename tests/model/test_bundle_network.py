import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.bundle_network import BundleNetwork


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_image_with_voxels_that_are_no_finite_numbers_is_refused(student_folder, bad):
    """Every label's logit would be NaN, and the largest channel a label in all voxels."""
    network = BundleNetwork(str(student_folder), "two", "distilled")
    network.has_weights.fill_(True)
    image = torch.rand(1, 1, 12, 14, 16)
    image[0, 0, 3, 4, 5] = bad
    with pytest.raises(UserError, match=r"finite voxels.* of 2688 in image"):
        network(MetaTensor(image, np.eye(4)))
