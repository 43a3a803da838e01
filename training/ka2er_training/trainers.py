"""nnU-Net trainers with a schedule from a preset, and checkpoints that survive a kill."""

from __future__ import annotations

import os
from contextlib import nullcontext
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch._dynamo import OptimizedModule

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ka2er_training.presets import Preset


class WarmUpPolyLR(PolyLRScheduler):
    """nnU-Net's polynomial fall of the learning rate, after a linear rise over the first epochs."""

    def __init__(self, optimizer: torch.optim.Optimizer, preset: Preset) -> None:
        self.warm_up = preset.warm_up
        super().__init__(optimizer, preset.learning_rate, preset.epochs)

    def step(self, current_step: int | None = None) -> None:
        """Set the learning rate of an epoch."""
        epoch = self.ctr if current_step in (None, -1) else current_step
        super().step(current_step)
        for group in self.optimizer.param_groups:
            group["lr"] *= min(1.0, (epoch + 1) / (self.warm_up + 1))


class Float32Loss(torch.nn.Module):
    """Compute a loss of deep supervision in single precision, whatever the network ran in."""

    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Any, targets: Any) -> torch.Tensor:
        """Return the loss of one or several outputs."""
        is_list = isinstance(outputs, list | tuple)
        outputs = [one.float() for one in outputs] if is_list else outputs.float()
        value: torch.Tensor = self.loss(outputs, targets)
        return value


class Ka2erTrainer(nnUNetTrainer):
    """nnU-Net's trainer with cross-entropy and Dice, foreground weighted as the preset says.

    Only what is not the network differs from `nnUNetTrainer`, so the checkpoints name that class
    and plain ``nnUNetv2_predict`` reads them without this package.
    """

    preset: Preset
    report: Callable[[dict[str, Any]], None]
    cross_entropy: torch.nn.CrossEntropyLoss | None = None
    replayed: tuple[list[str], list[str]] | None = None

    def configure(self, preset: Preset, report: Callable[[dict[str, Any]], None]) -> None:
        """Take over a preset's schedule, and where to report each epoch to."""
        self.preset, self.report = preset, report
        self.num_epochs = preset.epochs
        self.num_iterations_per_epoch = preset.iterations
        self.num_val_iterations_per_epoch = preset.val_iterations
        self.save_every = preset.save_every
        self.initial_lr = preset.learning_rate

    def replay(self, cases: list[str], corrected: set[str], share: float) -> None:
        """Train on these cases, so that `share` of the patches come from corrected ones."""
        self.replayed = repeated(cases, corrected, share), list(cases)

    def do_split(self) -> tuple[list[str], list[str]]:
        """Return the cases for training and for nnU-Net's running Dice.

        Corrected cases are listed several times: the loaders' workers start as soon as they are
        made, so that probabilities could only be given by a copy of nnU-Net's whole method.
        """
        split: tuple[list[str], list[str]] = self.replayed or super().do_split()
        return split

    @property
    def plain_network(self) -> torch.nn.Module:
        """The network without what distributed training and compilation put around it."""
        network = self.network.module if self.is_ddp else self.network
        plain: torch.nn.Module = (
            network._orig_mod if isinstance(network, OptimizedModule) else network
        )
        return plain

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, WarmUpPolyLR]:
        """Return the preset's optimizer and its schedule."""
        if self.preset.optimizer == "sgd":
            optimizer, _ = super().configure_optimizers()
        else:
            optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr)
        return optimizer, WarmUpPolyLR(optimizer, self.preset)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        """Return nnU-Net's augmentation settings, without mirroring if the preset says so."""
        rotation, dummy_2d, patch, mirror = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if not self.preset.mirror:
            mirror = self.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, patch, mirror

    def _build_loss(self) -> torch.nn.Module:
        """Return nnU-Net's own loss with labels weighted against background."""
        loss = super()._build_loss()
        inner = loss.loss if isinstance(loss, DeepSupervisionWrapper) else loss
        self.cross_entropy = None if self.label_manager.has_regions else inner.ce
        return Float32Loss(loss)

    def on_train_epoch_start(self) -> None:
        """Begin an epoch, with the labels weighted as is due."""
        super().on_train_epoch_start()
        if self.cross_entropy is not None and self.preset.foreground_weight != 1:
            self.cross_entropy.weight = self._weights()

    def _weights(self) -> torch.Tensor:
        """Return the cross-entropy's weight per class, background first.

        The labels' weight keeps them from vanishing early on, but makes masks too large (a fifth
        too many voxels on hippocampi): over three quarters of the training it falls to 1.
        """
        rest = max(0.0, 1 - self.current_epoch / (0.75 * self.num_epochs))
        weight = 1 + (self.preset.foreground_weight - 1) * rest
        weights = torch.full((self.label_manager.num_segmentation_heads,), weight)
        weights[0] = 1.0
        return weights.to(self.device)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one step of the optimizer."""
        with self._precision():
            outcome: dict[str, Any] = super().train_step(batch)
        return outcome

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return loss and overlap on one batch."""
        with self._precision():
            outcome: dict[str, Any] = super().validation_step(batch)
        return outcome

    def _precision(self) -> AbstractContextManager[object]:
        """Return bfloat16 on CPUs that compute with it: 2.6 times faster for these convolutions."""
        if self.device.type == "cpu" and computes_bfloat16():
            return torch.autocast("cpu", torch.bfloat16)
        return nullcontext()

    def on_epoch_end(self) -> None:
        """Finish an epoch and report it."""
        super().on_epoch_end()
        latest = {
            key: self.logger.get_value(key, step=-1)
            for key in ("train_losses", "dice_per_class_or_region")
        }
        started, ended = (
            self.logger.get_value(f"epoch_{end}_timestamps", step=-1) for end in ("start", "end")
        )
        self.report(
            {
                "epoch": self.current_epoch,
                "of": self.num_epochs,
                "loss": float(latest["train_losses"]),
                "dice": [float(value) for value in latest["dice_per_class_or_region"]],
                "seconds": float(ended - started),
            }
        )

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint as nnU-Net does, but under a temporary name that is then renamed."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        checkpoint = {
            "network_weights": self.plain_network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": nnUNetTrainer.__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
        }
        partial = f"{filename}.part"
        torch.save(checkpoint, partial)
        os.replace(partial, filename)


class Ka2erTrainerCE(Ka2erTrainer):
    """The paper's expert loss: cross-entropy alone, unweighted, with deep supervision."""

    def _build_loss(self) -> torch.nn.Module:
        """Return cross-entropy over the outputs of deep supervision."""
        ignored = self.label_manager.ignore_label
        if self.label_manager.has_regions:
            message = "cross-entropy over labels, but the dataset has overlapping regions"
            raise RuntimeError(message)
        loss = RobustCrossEntropyLoss(ignore_index=ignored if ignored is not None else -100)
        if not self.enable_deep_supervision:
            return Float32Loss(loss)
        weights = [0.5**level for level in range(len(self._get_deep_supervision_scales()))]
        weights[-1] = 0.0 if len(weights) > 1 else 1.0
        return Float32Loss(DeepSupervisionWrapper(loss, [w / sum(weights) for w in weights]))


def repeated(cases: list[str], corrected: set[str], share: float) -> list[str]:
    """Return cases, each so often that `share` of the list are corrected ones, or nearly so."""
    new = [case for case in cases if case in corrected]
    old = [case for case in cases if case not in corrected]
    if not new or not old:
        return list(cases)
    if share in (0, 1):
        return new if share else old
    odds = share * len(old) / ((1 - share) * len(new))
    per_new = Fraction(odds).limit_denominator(20) or Fraction(1, 20)
    return new * per_new.numerator + old * per_new.denominator


def computes_bfloat16() -> bool:
    """Return whether this CPU has instructions for bfloat16; without them it is very slow."""
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))
