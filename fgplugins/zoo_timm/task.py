"""Training a composed model by its method's own loss, in timm's terms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.task import ClassificationTask, TrainingTask
from timm.utils.model import unwrap_model
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.errors import UserError
from fgplugins.methods.art import RestrictionSchedule
from fgplugins.methods.base import Given
from fgplugins.zoo_timm.composed import ComposedModel

__all__ = ['LossStep', 'MethodTask', 'classification_task', 'target_smoothing']


class LossStep(nn.Module):
    """The forward pass up to the loss, in one module: what DDP and torch.compile have to wrap.

    It also holds what exists in training only: a method's regularizer and the second network that
    this looks through, which starts as a copy of the backbone.

    Args:
        model: the model to train.
    """

    def __init__(self, model: ComposedModel) -> None:
        super().__init__()
        model.check_method()
        self.model = model
        self.second = self.regularizer = None
        if model.method.has_regularizer:
            weight = next(model.parameters())
            self.second = copy.deepcopy(model.backbone)
            self.regularizer = model.method.regularizer(model.find_view_size())
            self.regularizer.to(weight.device, weight.dtype)

    def forward(self, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The method's named loss terms of a batch."""
        method = self.model.method
        features, given = method.split(method.features_for_loss(self.model.read, x))
        terms = method.loss(features, target, **given)
        if self.regularizer is not None:
            terms |= self.regularizer(x, features, target, self.read_second, **given)
        return terms

    def read_second(self, x: Tensor) -> Given:
        """What the second network gives, as `ComposedModel.read`."""
        return self.model.reading(self.second, x)

    def training_only(self) -> dict[str, Tensor]:
        """The weights that are not the model's."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith('model.')}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[float, ...]]:
        """The model's groups by depth, under this module's names; the second network's alike."""
        find = self.model.group_matcher(coarse=coarse)

        def matcher(name: str) -> tuple[float, ...]:
            part, _, rest = name.partition('.')
            return find({'model': rest, 'second': f'backbone.{rest}'}.get(part, name))

        return matcher

    def no_weight_decay(self) -> set[str]:
        """The model's, under this module's names."""
        names = self.model.no_weight_decay()
        second = {name.replace('backbone.', 'second.', 1) for name in names}
        return {f'model.{name}' for name in names} | (second if self.second is not None else set())


def target_smoothing(criterion: object, criterion_kwargs: dict[str, Any] | None) -> float:
    """How much label smoothing a criterion of timm's stands for.

    A method brings its own loss; of a classification criterion only what it does to the targets
    carries over.

    Raises:
        ValueError: if the criterion is more than cross-entropy of smoothed or soft targets.
    """
    kwargs = {k: v for k, v in (criterion_kwargs or {}).items() if v}
    if kwargs.pop('loss_type', 'ce') == 'ce' and not set(kwargs) - {'smoothing', 'soft_targets'}:
        if criterion is None:
            return 0.0 if kwargs.get('soft_targets') else float(kwargs.get('smoothing', 0.0))
        if isinstance(criterion, LabelSmoothingCrossEntropy):
            return criterion.smoothing
        if isinstance(criterion, SoftTargetCrossEntropy):
            return 0.0
        if isinstance(criterion, nn.CrossEntropyLoss) and criterion.weight is None:
            return criterion.label_smoothing
    name = type(criterion).__name__ if criterion is not None else f'{criterion_kwargs}'
    raise ValueError(
        f'criterion {name}: an fgplugins method brings its own loss; only cross-entropy, label '
        'smoothing and Mixup/CutMix targets can be combined with it'
    )


class _NamedClasses:
    """A task whose checkpoints hold the names of the classes, where they are known."""

    class_names: list[str] | None = None

    def get_checkpoint_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The task's entries of a checkpoint, and the names."""
        state = super().get_checkpoint_state(*args, **kwargs)
        named = state and self.class_names
        return {**state, 'class_names': self.class_names} if named else state


class _PlainTask(_NamedClasses, ClassificationTask):
    pass


class MethodTask(_NamedClasses, TrainingTask):
    """Trains a `ComposedModel` by the sum of its method's loss terms.

    The result holds ``loss`` and each term by its name; there is no ``output``, since the scores of
    a training step are not part of a method's contract.

    Args:
        model: the model to train.
        criterion: read for its label smoothing only; see `target_smoothing`.
        criterion_kwargs: likewise, as timm passes them.
        device: of the task.
        dtype: of the task.
        verbose: log what is trained.
        restriction_schedule: when art's L_res is on; `set_epoch` must then be called for every
            epoch. None: always.

    Raises:
        ValueError: for a schedule of a model without that term.
    """

    def __init__(
        self,
        model: ComposedModel,
        criterion: nn.Module | None = None,
        criterion_kwargs: dict[str, Any] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
        restriction_schedule: RestrictionSchedule | None = None,
    ) -> None:
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        self.trainable_module = LossStep(model)
        self.smoothing = target_smoothing(criterion, criterion_kwargs)
        self.steps = 0
        self.restriction_schedule = restriction_schedule
        self.epoch: int | None = None
        if restriction_schedule is not None:
            self._apply_schedule(0)

    def set_epoch(self, epoch: int) -> None:
        """Say that an epoch begins, the first of which is 0: what a schedule has is switched."""
        self.epoch = epoch
        if self.restriction_schedule is not None:
            self._apply_schedule(epoch)

    def _apply_schedule(self, epoch: int) -> None:
        step = unwrap_model(self.get_trainable_module())
        self.restriction_schedule.set_epoch(step.regularizer, epoch, step.model.method_name)

    def prepare_distributed(self, device_ids: list | None = None, **ddp_kwargs: Any) -> MethodTask:
        """Wrap the loss step in DistributedDataParallel."""
        if device_ids and torch.device(device_ids[0]).type == 'cpu':
            device_ids = None
        self.trainable_module = nn.parallel.DistributedDataParallel(
            self.trainable_module, device_ids=device_ids, **ddp_kwargs
        )
        return self

    def compile(
        self, backend: str = 'inductor', mode: str | None = None, **compile_kwargs: Any
    ) -> nn.Module:
        """Compile the loss step for training and the bare model for testing.

        Raises:
            ValueError: if the method takes gradients inside its loss, which cannot be compiled.
        """
        model = self.get_eval_model()
        if model.method.needs_gradient_path:
            raise ValueError(
                f'{model.method_name} takes gradients inside its loss, which torch.compile cannot '
                'differentiate: train without it, and compile the trained model'
            )
        self.trainable_module = torch.compile(
            self.trainable_module, backend=backend, mode=mode, **compile_kwargs
        )
        self.eval_model = torch.compile(model, backend=backend, mode=mode, **compile_kwargs)
        return self.eval_model

    def get_eval_model(
        self, module: nn.Module | None = None, ema: bool = False
    ) -> nn.Module | None:
        """The bare model, whose state dict has no wrapper's name in it."""
        compiled = getattr(self, 'eval_model_ema' if ema else 'eval_model', None)
        if module is None and compiled is not None:
            return compiled
        module = self.get_trainable_module(ema=ema) if module is None else module
        return None if module is None else unwrap_model(module).model

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """What is clipped; without the classifiers if ``exclude_head``, as timm has it for AGC."""
        step = unwrap_model(self.get_trainable_module())
        if not exclude_head:
            return list(step.parameters())
        names = getattr(step.model, 'pretrained_cfg', {}).get('classifier') or ()
        heads = tuple(f'model.{n}.' for n in ([names] if isinstance(names, str) else names))
        heads += ('regularizer.',)  # it classifies, too
        return [p for name, p in step.named_parameters() if not name.startswith(heads)]

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """What exists in training only, for checkpoints to resume from."""
        module = self.get_trainable_module(ema=ema) if module is None else module
        return {} if module is None else unwrap_model(module).training_only()

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Take up what `get_task_state` gave.

        Raises:
            RuntimeError: if ``strict`` and the weights are not those of this task.
        """
        module = self.get_trainable_module(ema=ema) if module is None else module
        step = unwrap_model(module)
        own = set(step.training_only())
        if strict and own != set(state or {}):
            missing = sorted(own ^ set(state or {}))[0]
            raise RuntimeError(
                f'the checkpoint does not fit what {step.model.method_name} trains besides the '
                f'model: {missing}'
            )
        if state:
            step.load_state_dict(state, strict=False)

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """``loss`` and its terms for images (N, C, H, W) and labels (N,) or (N, Y).

        Raises:
            UserError: if a term is not finite, so that all weights would be lost with it; or if
                there is a schedule and nobody said which epoch it is.
        """
        if self.restriction_schedule is not None and self.epoch is None:
            raise UserError(
                'restriction schedule: the training loop does not say which epoch it is: call '
                'task.set_epoch(epoch) before each'
            )
        if self.smoothing and target.ndim == 1:
            classes = self.get_eval_model().num_classes
            target = F.one_hot(target, classes).to(input.dtype)
            target = target * (1 - self.smoothing) + self.smoothing / classes
        terms = self.trainable_module(input, target)
        loss = torch.stack(list(terms.values())).sum()
        self.steps += 1
        if not loss.isfinite():
            name, value = next(
                ((k, v) for k, v in terms.items() if not v.isfinite()), ('their sum', loss)
            )
            raise UserError(
                f'the loss is not finite at step {self.steps} of this run: {name} is '
                f'{value.item()}; lower the learning rate, clip gradients, or leave out half '
                'precision'
            )
        return {'loss': loss, **terms}


def classification_task(
    model: nn.Module,
    *args: Any,
    restriction_schedule: RestrictionSchedule | None = None,
    **kwargs: Any,
) -> TrainingTask:
    """Timm's ``ClassificationTask``, or a `MethodTask` if the model is a composed one.

    Raises:
        ValueError: for a schedule of a model that has no use for it.
    """
    if isinstance(model, ComposedModel):
        return MethodTask(model, *args, restriction_schedule=restriction_schedule, **kwargs)
    if restriction_schedule is not None:
        restriction_schedule.set_epoch(None, 0, type(model).__name__)
    return _PlainTask(model, *args, **kwargs)
