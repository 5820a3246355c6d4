"""A trained model by its file alone: a checkpoint of either zoo, or what was published of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from fgplugins.analysis.loading import key_values, load_checkpoint, load_model
from fgplugins.errors import UserError, one_line
from fgplugins.methods import get_method, list_methods
from fgplugins.networks.names import is_timm_name
from fgplugins.utils.loaded import LoadedModel
from fgplugins.zoo_timm.loading import load_timm

BEST = Path('report', 'best.pth')  # of a comparison

__all__ = [
    'BEST',
    'best_of',
    'choose_device',
    'class_names',
    'load_trained',
    'method_of',
    'network_of',
]


def load_trained(
    checkpoint: str,
    model: str | None = None,
    model_kwargs: Sequence[str] = (),
    size: int | None = None,
) -> LoadedModel:
    """The model that a file is of, with its classes and the way its images are prepared.

    Args:
        checkpoint: a checkpoint of `tools/train.py` or of timm's script, a file of
            `tools/deploy.py`, a folder of `tools/publish.py`, one on a hub, as
            ``hf-hub:owner/name``, or the folder of a comparison, which stands for its best.
        model: the config or timm model, for a file that does not say it.
        model_kwargs: KEY=VALUE of a timm model.
        size: side of a timm model's images, if other than it was trained with.

    Raises:
        UserError: if it cannot be read, or does not say what it is of.
    """
    given = [*model_kwargs, *([] if size is None else [f'img_size={size}'])]
    checkpoint = best_of(checkpoint)
    path = Path(checkpoint)
    if path.is_dir() and not (path / 'config.json').is_file():
        raise UserError(
            f'checkpoint {checkpoint!r} is a folder without config.json: give a file of weights, '
            'or a folder of tools/publish.py'
        )
    try:
        if model is not None:
            return load_model(model, checkpoint, given)
        if path.is_dir() or (':' in checkpoint and is_timm_name(checkpoint)):
            name = f'local-dir:{checkpoint}' if path.is_dir() else checkpoint
            return load_timm(
                name, None, {'pretrained': True, **key_values('--model-kwargs', given)}
            )
        advice = 'name the config or the timm model by --model'
        return load_checkpoint(checkpoint, given, pipeline=True, advice=advice)
    except UserError as error:
        if size is not None and ' is for timm models' in str(error):
            raise UserError(
                f'--size {size} is for timm models; that of a config is in its test pipeline'
            ) from None
        raise


def best_of(checkpoint: str) -> str:
    """The best checkpoint of a comparison's folder; any other name as it is.

    Raises:
        UserError: if the comparison has none yet.
    """
    folder = Path(checkpoint)
    if not (folder / 'comparison.json').is_file():
        return checkpoint
    file = folder / BEST
    if not file.is_file():
        raise UserError(
            f'{checkpoint!r} is a comparison without a finished cell: run its command again'
        )
    return str(file)


def class_names(loaded: LoadedModel) -> list[str]:
    """The names of a model's classes; numbers where they are not known."""
    if loaded.classes:
        return loaded.classes
    device = next(loaded.model.parameters()).device
    with torch.inference_mode():
        scores = loaded.model(torch.zeros(1, *loaded.input_size, device=device))
    return [str(label) for label in range(scores.shape[1])]


def choose_device(name: str) -> torch.device:
    """A device by its name; 'auto' is an accelerator where there is one.

    Raises:
        UserError: if there is no such device here.
    """
    if name == 'auto':
        return torch.accelerator.current_accelerator(check_available=True) or torch.device('cpu')
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (AssertionError, RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f'--device {name}: {one_line(error, 120)}: auto, or cpu, would work'
        ) from None
    return device


def method_of(loaded: LoadedModel) -> str | None:
    """The key of the method that is on a model; None for a plain network."""
    return next((k for k in list_methods() if type(loaded.method) is get_method(k)), None)


def network_of(loaded: LoadedModel) -> str:
    """The name of the network that a model stands on, or is."""
    model = loaded.model
    if loaded.config is None:
        own = getattr(model, 'pretrained_cfg', {}).get('architecture') or loaded.name
        return getattr(model, 'backbone_name', own)
    settings = loaded.config.model
    found = settings if 'model_name' in settings else settings.get('backbone', {})
    return found.get('model_name') or str(found.get('type')).rsplit('.', 1)[-1]
