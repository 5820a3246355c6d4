"""A model as it is, in the paper's order (``:paper``) or without its method (``:backbone``).

``NAME`` is a config, a timm model, or a checkpoint that names its model. The form follows a colon:
``NAME:paper`` computes the method in the paper's order of operations, ``NAME:backbone`` has in the
method's place the network's own classifier, or for a method that does not use it average pooling
and a linear one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.analysis.complexity import set_paper_order
from fgplugins.analysis.loading import load_checkpoint, load_model
from fgplugins.errors import UserError
from fgplugins.methods import get_method
from fgplugins.networks.names import is_timm_name
from fgplugins.utils.loaded import LoadedModel
from fgplugins.zoo_timm.task import LossStep

__all__ = [
    'FORMS',
    'ModelForm',
    'complete_second',
    'load_form',
    'split_form',
]

FORMS = ('ours', 'paper', 'backbone')
SHARED = ('num_classes', 'in_chans', 'img_size')  # settings that a second timm model takes over
WEIGHTS = ('.pth', '.pt', '.tar')


@dataclass
class ModelForm:
    """A model in one of its forms.

    Attributes:
        label: what reports call it: its name, and the form where that is not ours.
        kind: one of `FORMS`.
        loaded: the model in this form.
        arguments: names of the hyper-parameters of the method it was built with.
        trained: whether its weights come from a checkpoint.
    """

    label: str
    kind: str
    loaded: LoadedModel
    arguments: tuple[str, ...] = ()
    trained: bool = False

    @property
    def model(self) -> nn.Module:
        return self.loaded.model

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Images (N, C, H, W) and classes (N,) -> the loss that training minimises."""
        model, method = self.model, self.loaded.method
        if hasattr(model, 'extract_feat'):  # MMPretrain's classifiers
            from mmpretrain.structures import DataSample

            def step(x: Tensor, target: Tensor) -> dict[str, Tensor]:
                samples = [DataSample().set_gt_label(label) for label in target.unbind()]
                terms = model(x, samples, mode='loss')
                return {name: value for name, value in terms.items() if 'loss' in name}
        elif method is not None:
            step = LossStep(model)
        else:
            return lambda x, target: F.cross_entropy(model(x), target)
        return lambda x, target: sum(step(x, target).values())


def split_form(spec: str) -> tuple[str, str]:
    """``'warn:paper'`` -> ('warn', 'paper'), ``'warn'`` -> ('warn', 'ours').

    Raises:
        UserError: for a form that there is not.
    """
    name, colon, form = spec.rpartition(':')
    if not colon or Path(spec).exists():
        return spec, 'ours'
    if is_timm_name(spec) and not (form in FORMS and is_timm_name(name)):  # local-dir:folder
        return spec, 'ours'
    if form not in FORMS:
        raise UserError(
            f'{spec!r}: a form is one of {", ".join(FORMS)}, as in {name or spec}:paper'
        )
    return name, form


def load_form(
    spec: str,
    model_kwargs: list[str] | None = None,
    cfg_options: list[str] | None = None,
    checkpoint: str | None = None,
) -> ModelForm:
    """Build a model and put it into the form that follows its name.

    Args:
        spec: the name of the model, or a checkpoint, with or without a form.
        model_kwargs: KEY=VALUE of a timm model.
        cfg_options: KEY=VALUE of a config.
        checkpoint: file of weights.

    Raises:
        UserError: if it cannot be built, or is a plain network, which has one form only.
    """
    name, form = split_form(spec)
    is_checkpoint = name.endswith(WEIGHTS) and checkpoint is None
    if is_checkpoint:
        loaded = load_checkpoint(name, model_kwargs, cfg_options)
    else:
        loaded = load_model(name, checkpoint, model_kwargs, cfg_options)
    method = loaded.method
    arguments = () if method is None else tuple(p.name for p in method.hyperparameters())
    if form != 'ours' and method is None:
        raise UserError(f'{spec!r}: {name} is a plain network and has no method: leave {form} out')
    if form == 'paper':
        set_paper_order(method)
    elif form == 'backbone':
        D = method.embedding_channels
        loaded.method = get_method('gap')(method.in_channels, method.num_classes, D).eval()
        if method.embedding_classifier:
            loaded.method.classifier = method.get_submodule(method.embedding_classifier)
        for parent in loaded.model.modules():
            for child_name, child in parent.named_children():
                if child is method:
                    setattr(parent, child_name, loaded.method)
    label = loaded.name if form == 'ours' else f'{loaded.name}:{form}'
    return ModelForm(label, form, loaded, arguments, is_checkpoint or checkpoint is not None)


def complete_second(
    first: str,
    second: str,
    settings: tuple[list[str] | None, list[str] | None],
    own: tuple[list[str] | None, list[str] | None],
) -> tuple[str, list[str], list[str]]:
    """Complete the second model's name and settings by those of the first.

    The first model in another form (``:paper``) takes over all settings and adds its own. Another
    timm model takes over the classes and the images, unless it has settings of its own.

    Args:
        first: name of the first model.
        second: name of the second, or a form alone.
        settings: --model-kwargs and --cfg-options of the first.
        own: those of the second.

    Returns:
        The second model's name, --model-kwargs and --cfg-options.
    """
    kwargs, options = (list(given or []) for given in settings)
    own_kwargs, own_options = (list(given or []) for given in own)
    name, _ = split_form(first)
    if second.startswith(':'):
        second = f'{name}{second}'
    if split_form(second)[0] == name:
        return second, [*kwargs, *own_kwargs], [*options, *own_options]
    if own_kwargs or own_options or not is_timm_name(split_form(second)[0]):
        return second, own_kwargs, own_options
    return second, [k for k in kwargs if k.split('=')[0] in SHARED], []
