"""The systems that are compared: how each student is taught, and in which mode it is asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from napari_ka2er.model.config import has_shortcut

ExpertKind = Literal["trained", "untrained", "none"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to teach a student.

    Parameters
    ----------
    amalgamation : str
        See `napari_ka2er.model.config.StudentConfig`.
    experts : str
        Which experts' features it is given: trained, untrained or none.
    soft : bool
        Whether the trained experts' probabilities are targets too.
    teaching : tuple of (str, float)
        Fields of `ka2er_training.teaching.Teaching` that differ from its defaults.
    rate : float
        Factor on the preset's learning rate.
    """

    amalgamation: str = "attention"
    experts: ExpertKind = "trained"
    soft: bool = True
    teaching: tuple[tuple[str, float], ...] = ()
    rate: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return plain data that decides the student."""
        data = {**asdict(self), "teaching": dict(self.teaching)}
        # What came later enters only where it is used: the others' cells stay what they were.
        if self.rate == 1:
            del data["rate"]
        return {**data, "shortcut": 1} if has_shortcut(self.amalgamation) else data


VARIANTS = {
    "ka2er": Variant(),
    "joint": Variant("none", "none", False, (("distillation", 0.0),)),
    # The amalgamation's layers learn at twice the rate: is that all of their gain?
    "joint fast": Variant("none", "none", False, (("distillation", 0.0),), 2.0),
    "uniform": Variant("uniform"),
    "bottleneck": Variant("bottleneck"),
    "logits": Variant("none", "none", True, (("distillation", 1.0), ("label_weight", 0.0))),
    # Not in the paper's comparison, but without it nobody could tell the attention's part of a gain
    # from the soft targets' part.
    "labels+logits": Variant("none", "none"),
    # As the sample student is taught: distilled mode has to be learned, and learns slowly.
    "ka2er alone": Variant(teaching=(("alone", 0.5), ("mixed_from", 0.0))),
    # No soft targets: an untrained expert's would be noise, and the control easily passed.
    "untrained": Variant("attention", "untrained", False, (("distillation", 0.0),)),
    # The control's network without a single feature of any expert: what its layers alone gain.
    "layers": Variant(
        "attention",
        "untrained",
        False,
        (("distillation", 0.0), ("alignment", 0.0), ("alone", 1.0), ("mixed_from", 0.0)),
    ),
}


@dataclass(frozen=True, slots=True)
class System:
    """One line of the tables.

    Parameters
    ----------
    name : str
        As it is printed.
    variant : str
        Key of `VARIANTS`; empty for systems without a student.
    mode : str
        The student's mode; or ``"expert"``, ``"ensemble"``.
    """

    name: str
    variant: str = field(default="")
    mode: str = "full"


EXPERTS = System("expert of the task (oracle routing)", mode="expert")
# How convergence is judged: a schedule of half the length must lead to the same Dice.
HALF_EXPERTS = System("expert of the task, half the schedule", mode="half expert")
# Or, the other way round: what would twice the schedule have brought?
TWICE_EXPERTS = System("expert of the task, twice the schedule", mode="twice expert")
ENSEMBLE = System("probability ensemble of the experts", mode="ensemble")
JOINT = System("joint SwinUNETR, no experts", "joint", "distilled")
KA2ER = tuple(System(f"KA²ER {mode}", "ka2er", mode) for mode in ("full", "sparse", "distilled"))
CONTROL = System("amalgamating untrained experts (control)", "untrained")
LAYERS = System("the control's layers, no experts at all", "layers", "distilled")
# The simpler systems that KA²ER is compared with, and the control.
RIVALS = (
    System("uniform averaging", "uniform"),
    System("amalgamation at the bottleneck only", "bottleneck"),
    System("logit-only distillation", "logits", "distilled"),
    System("SwinUNETR, labels and logits", "labels+logits", "distilled"),
    CONTROL,
)
# The last two only tell what the control's gain is due to.
BASELINES = (*RIVALS, LAYERS, System("joint SwinUNETR, twice the rate", "joint fast", "distilled"))
SYSTEMS = (EXPERTS, HALF_EXPERTS, TWICE_EXPERTS, ENSEMBLE, JOINT, *BASELINES, *KA2ER)

LABELS_AND_LOGITS = RIVALS[3]
# What the labels are worth to an expert; the experts behind the students have seen them all.
FEW_LABEL_EXPERTS = System("expert of the task, trained on these cases alone", mode="expert")
# Within a table, what a run that is stopped should not lack comes first.
FEW_LABEL_SYSTEMS = (
    JOINT,
    LABELS_AND_LOGITS,
    *KA2ER,
    *(system for system in RIVALS if system is not LABELS_AND_LOGITS),
    FEW_LABEL_EXPERTS,
)
ALONE_SYSTEMS = tuple(
    System(f"KA²ER {mode}, half of the windows alone", "ka2er alone", mode)
    for mode in ("full", "sparse", "distilled")
)
LONG_SYSTEMS = (JOINT, CONTROL, *KA2ER, *ALONE_SYSTEMS)
SHIFT_SYSTEMS = (EXPERTS, JOINT, *KA2ER, *RIVALS, ENSEMBLE)
