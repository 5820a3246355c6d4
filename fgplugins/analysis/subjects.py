"""What reports and timings compare: a model of either zoo, in one of three forms.

``NAME`` is a config, a timm model or a checkpoint that says what it is of. Behind a colon stands
the form: ``NAME:paper`` computes the method in the paper's order of operations, ``NAME:backbone``
has average pooling and a linear classifier in the method's place.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.analysis.complexity import set_paper_order
from fgplugins.analysis.loading import key_values, load_model
from fgplugins.errors import UserError
from fgplugins.methods import get_method
from fgplugins.utils.loaded import LoadedModel

__all__ = [
    'FORMS',
    'Subject',
    'add_versus_arguments',
    'inherited',
    'load_subject',
    'split_form',
    'timm_name',
]

FORMS = ('ours', 'paper', 'backbone')
INHERITED = ('num_classes', 'in_chans', 'img_size')  # by another timm model
WEIGHTS = ('.pth', '.pt', '.tar')


@dataclass
class Subject:
    """A model in a form.

    Attributes:
        label: as the user wrote it, and as reports call it.
        form: one of `FORMS`.
        loaded: the model, with the form in place.
        arguments: names of the hyper-parameters of the method it was built with.
        trained: whether its weights come from a checkpoint.
    """

    label: str
    form: str
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
            from fgplugins.zoo_timm.task import LossStep

            step = LossStep(model)
        else:
            return lambda x, target: F.cross_entropy(model(x), target)
        return lambda x, target: sum(step(x, target).values())


def add_versus_arguments(parser: argparse.ArgumentParser) -> None:
    """How a command line names a second model, and its settings."""
    parser.add_argument(
        '--versus',
        metavar='MODEL',
        help='a second model to compare with: a config, a timm name, NAME:paper or NAME:backbone; '
        'a form alone, as :backbone, is the first model in that form',
    )
    parser.add_argument(
        '--versus-kwargs',
        nargs='+',
        metavar='KEY=VALUE',
        help="--model-kwargs of the second model (the first's num_classes and in_chans)",
    )
    parser.add_argument(
        '--versus-cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='--cfg-options of the second model',
    )


def split_form(spec: str) -> tuple[str, str]:
    """``'warn:paper'`` -> ('warn', 'paper'), ``'warn'`` -> ('warn', 'ours').

    Raises:
        UserError: for a form that there is none of.
    """
    name, colon, form = spec.rpartition(':')
    if not colon or Path(spec).exists():
        return spec, 'ours'
    if timm_name(spec) and not (form in FORMS and timm_name(name)):  # local-dir:folder
        return spec, 'ours'
    if form not in FORMS:
        raise UserError(
            f'{spec!r}: a form is one of {", ".join(FORMS)}, as in {name or spec}:paper'
        )
    return name, form


def load_subject(
    spec: str,
    model_kwargs: list[str] | None = None,
    cfg_options: list[str] | None = None,
    checkpoint: str | None = None,
) -> Subject:
    """Build a model and put it into the form that stands behind its name.

    Raises:
        UserError: if it cannot be built, or is a plain network, which has one form only.
    """
    name, form = split_form(spec)
    is_checkpoint = name.endswith(WEIGHTS) and checkpoint is None
    if is_checkpoint:
        loaded = _from_checkpoint(name, model_kwargs, cfg_options)
    else:
        loaded = load_model(name, checkpoint, model_kwargs, cfg_options)
    method = loaded.method
    # every method takes (in_channels, num_classes) first
    arguments = () if method is None else tuple(inspect.signature(type(method)).parameters)[2:]
    if form != 'ours' and method is None:
        raise UserError(f'{spec!r}: {name} is a plain network and has no method: leave {form} out')
    if form == 'paper':
        set_paper_order(method)
    elif form == 'backbone':
        loaded.method = get_method('gap')(method.in_channels, method.num_classes).eval()
        for parent in loaded.model.modules():
            for child_name, child in parent.named_children():
                if child is method:
                    setattr(parent, child_name, loaded.method)
    label = loaded.name if form == 'ours' else f'{loaded.name}:{form}'
    return Subject(label, form, loaded, arguments, is_checkpoint or checkpoint is not None)


def inherited(
    first: str,
    second: str,
    settings: tuple[list[str] | None, list[str] | None],
    own: tuple[list[str] | None, list[str] | None],
) -> tuple[str, list[str], list[str]]:
    """A second model's name and settings, where the user left some of them to the first.

    The first model in another form (``:paper``) has all its settings, and its own besides; another
    timm model has the same classes and images unless it has settings of its own.

    Args:
        first: name of the first model.
        second: name of the second, or a form.
        settings: --model-kwargs and --cfg-options of the first.
        own: those of the second.

    Returns:
        Its name, --model-kwargs and --cfg-options.
    """
    kwargs, options = (list(given or []) for given in settings)
    own_kwargs, own_options = (list(given or []) for given in own)
    name, _ = split_form(first)
    if second.startswith(':'):
        second = f'{name}{second}'
    if split_form(second)[0] == name:
        return second, [*kwargs, *own_kwargs], [*options, *own_options]
    if own_kwargs or own_options or not timm_name(split_form(second)[0]):
        return second, own_kwargs, own_options
    return second, [k for k in kwargs if k.split('=')[0] in INHERITED], []


def timm_name(name: str) -> bool:
    """Whether a name is a timm model's."""
    from fgplugins.zoo_timm.names import is_timm_name

    return is_timm_name(name)


def _from_checkpoint(
    path: str, model_kwargs: list[str] | None, cfg_options: list[str] | None
) -> LoadedModel:
    """The model that a checkpoint was saved of: mmengine keeps its config, timm its name."""
    from fgplugins.zoo_timm import checkpoints

    if not Path(path).is_file():
        raise UserError(f'checkpoint {path!r} is not a file')
    try:
        architecture = checkpoints.read_checkpoint(path).arch
    except UserError:
        architecture = None  # mmengine's keep more than tensors, which its reader knows
    if architecture:
        if not timm_name(architecture):
            raise UserError(f'checkpoint {path!r} is of {architecture!r}, which is no timm model')
        return load_model(architecture, path, model_kwargs, cfg_options)
    try:
        from fgplugins.zoo_mmpretrain.running import checkpoints
    except ImportError as error:
        raise UserError(f'checkpoint {path!r} cannot be read: {error}') from None
    content = checkpoints.read_checkpoint(path)
    cfg = checkpoints.saved_config(content, path)
    if cfg is None:
        raise UserError(
            f'checkpoint {path!r} does not say what it is of: name the config or the timm model, '
            f'and pass --checkpoint {path}'
        )
    if model_kwargs:
        raise UserError(
            f'--model-kwargs is for timm models; {path!r} is of a config: --cfg-options'
        )
    from fgplugins.zoo_mmpretrain.loading import load_classifier
    from fgplugins.zoo_mmpretrain.running.configs import override

    override(cfg, key_values('--cfg-options', cfg_options or []))
    return load_classifier(Path(path).stem, cfg, path, content)
