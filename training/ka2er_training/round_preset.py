"""Which preset a round's student is trained with: that of the student it goes on from."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from ka2er_training.plan import PRESETS, preset
from ka2er_training.registry import student_folder
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.student_card import read_student_json
from napari_ka2er.model.config import StudentConfig

if TYPE_CHECKING:
    from ka2er_training.plan import StudentPreset
    from ka2er_training.round_state import RoundOptions
    from ka2er_training.workspace import Workspace

# What a student's sizes tell of its preset; its threshold may be set by hand.
_SIZES = ("feature_size", "attention_window", "width", "heads", "dense_width", "merge_width")


def with_preset(workspace: Workspace, options: RoundOptions) -> RoundOptions:
    """Return the options with a preset, that of the current student if none was given.

    Parameters
    ----------
    workspace : Workspace
        With a current student.
    options : RoundOptions
        Of a round that is to begin.

    Raises
    ------
    UserError
        If there is no such preset, or a student of another one is to be trained on.
    """
    config = config_of(workspace)
    if options.preset is None:
        return dataclasses.replace(options, preset=preset_of(config))
    sizes = preset(options.preset)
    if not options.from_scratch and not _is_of(config, sizes) and _exact(config):
        wanted = f"--preset {preset_of(config)}, which the current student is of"
        raise UserError(wanted, options.preset, "leave it out, or add --from-scratch")
    return options


def config_of(workspace: Workspace, version: str | None = None) -> StudentConfig:
    """Return the configuration of a student, the current one by default."""
    return StudentConfig.from_json(read_student_json(student_folder(workspace, version))["config"])


def preset_of(config: StudentConfig) -> str:
    """Return the name of the preset that a student is of, or else that of the nearest size."""
    if found := _exact(config):
        return found[0]
    own = math.log(config.feature_size * config.width)
    away = {n: abs(math.log(p.feature_size * p.width) - own) for n, p in PRESETS.items()}
    return min(away, key=lambda name: away[name])


def _exact(config: StudentConfig) -> list[str]:
    return [name for name, sizes in PRESETS.items() if _is_of(config, sizes)]


def _is_of(config: StudentConfig, sizes: StudentPreset) -> bool:
    return all(getattr(config, name) == getattr(sizes, name) for name in _SIZES)
