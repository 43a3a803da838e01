"""What plans.json may name.

nnU-Net imports and calls what its plans name, with the arguments they give, and plans come from
strangers: with ``"nonlin": "subprocess.Popen"`` they would run programs.  So everything that is
looked up by name is compared with lists before it is imported.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

UNET = "a U-Net of dynamic-network-architectures, encoder and decoder, in plans.json"
_LIBRARY = "dynamic_network_architectures"
# nnU-Net 2.0 to 2.3 looked for the residual one where older versions of the library had it.
_NETWORKS = {
    f"{_LIBRARY}.architectures.{name}"
    for name in (
        "unet.PlainConvUNet",
        "unet.ResidualEncoderUNet",
        "unet.ResidualUNet",
        "residual_unet.ResidualEncoderUNet",
        "residual_unet.ResidualUNet",
    )
}
_LAYERS = {
    "conv": ("Conv1d", "Conv2d", "Conv3d"),
    "instancenorm": ("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"),
    "batchnorm": ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"),
    "dropout": ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout"),
    "activation": (
        *("ReLU", "ReLU6", "LeakyReLU", "PReLU", "RReLU", "ELU", "SELU", "CELU", "GELU", "SiLU"),
        *("Mish", "Hardswish", "Softplus", "Sigmoid", "Tanh"),
    ),
}
_PARTS = {
    spelling
    for module, names in _LAYERS.items()
    for name in names
    for spelling in (
        f"torch.nn.{name}",
        f"torch.nn.modules.{name}",
        f"torch.nn.modules.{module}.{name}",
    )
} | {f"{_LIBRARY}.building_blocks.residual.{name}" for name in ("BasicBlockD", "BottleneckD")}
_RESAMPLING = "nnunetv2.preprocessing.resampling."


def check_network(architecture: Mapping[str, Any]) -> None:
    """Refuse a network of other parts than U-Nets are made of; imports nothing.

    Parameters
    ----------
    architecture : mapping
        ``architecture`` of a configuration.

    Raises
    ------
    UserError
        If the network, or a part of it, is not one of those we know, or an argument is more than
        plain numbers.
    """
    name, arguments = architecture["network_class_name"], architecture["arch_kwargs"]
    imported = architecture["_kw_requires_import"]
    if not isinstance(name, str) or name not in _NETWORKS:
        raise UserError(UNET, f"{name}"[:200], "it was not imported, as it could run code")
    for key, value in arguments.items():
        if key in imported:
            is_known = value is None or (isinstance(value, str) and value in _PARTS)
        else:
            is_known = _is_plain(value)
        if not is_known:
            wanted = "a U-Net of PyTorch's layers and plain numbers in plans.json"
            raise UserError(
                wanted, f"{key}: {value}"[:200], "it was not used, as it could run code"
            )


def _is_plain(value: Any) -> bool:
    """Return whether a value is a number, a bool, None, a list of plain ones or a flat dict."""
    if isinstance(value, dict):
        return all(_is_flat(item) for item in value.values())
    return _is_flat(value)


def _is_flat(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_flat(item) for item in value)
    return value is None or isinstance(value, bool | int | float)


def check_steps(manager: PlansManager, configuration: ConfigurationManager) -> None:
    """Refuse a label manager or preprocessing that is not nnU-Net's.

    nnU-Net looks for these names in its own packages only, where it finds whatever else their
    modules have imported.

    Raises
    ------
    UserError
        If there is no such class or function, or a function's options are more than plain values.
    """
    # nnunetv2 is an optional dependency, and who has a plan read has it.
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    settings = configuration.configuration
    _check_class(manager.label_manager_class, LabelManager, manager.plans["label_manager"])
    preprocessor = configuration.preprocessor_class
    _check_class(preprocessor, DefaultPreprocessor, settings["preprocessor_name"])
    for scheme in settings["normalization_schemes"]:
        _check_normalization(scheme)
    for step in ("resampling_fn_data", "resampling_fn_probabilities"):
        _check_resampling(settings[step], settings[f"{step}_kwargs"])


def _check_normalization(name: Any) -> None:
    from nnunetv2.preprocessing.normalization import default_normalization_schemes as schemes
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    package, folder = schemes.__name__.rpartition(".")[0], str(Path(schemes.__file__).parent)
    found = recursive_find_python_class(folder, name, package)
    _check_class(found, schemes.ImageNormalization, name)


def _check_class(found: Any, kind: type, name: Any) -> None:
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise UserError(f"a kind of {kind.__name__} of nnU-Net in plans.json", f"{name}"[:200])


def _check_resampling(name: Any, options: Any) -> None:
    from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name

    found = recursive_find_resampling_fn_by_name(name)
    if not (inspect.isfunction(found) and found.__module__.startswith(_RESAMPLING)):
        raise UserError("a resampling function of nnU-Net in plans.json", f"{name}"[:200])
    if not all(isinstance(value, str) or _is_plain(value) for value in options.values()):
        raise UserError("plain values as resampling options in plans.json", f"{options}"[:200])
