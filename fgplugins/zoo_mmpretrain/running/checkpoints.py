"""Checkpoint files: read without running any code in them, and compared with a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from fgplugins.errors import UserError, one_line
from fgplugins.zoo_mmpretrain.classifier import TRAINING_ONLY, FineGrainedClassifier
from fgplugins.zoo_mmpretrain.heads import MethodHead
from fgplugins.zoo_mmpretrain.running.saved_settings import saved_head, saved_meta, saved_network

__all__ = [
    'check_checkpoint',
    'class_names',
    'harmless_checkpoints',
    'read_checkpoint',
    'weights_of',
]


# ------------------------------------------------------------------------------------ reading files


def _history_method(owner: object, name: str) -> object:
    """``getattr`` as the pickle of mmengine's message hub uses it, and no more."""
    if owner is not HistoryBuffer or name.startswith('_'):
        raise UserError(f'the checkpoint asks for {owner!r}.{name}')
    return getattr(owner, name)


def _harmless() -> list[object]:
    """What mmengine's checkpoints hold besides tensors."""
    import numpy as np

    core = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    numbers = [type(np.dtype(kind)) for kind in ('f4', 'f8', 'i4', 'i8', 'u4', 'u8', 'b1')]
    return [
        (_history_method, 'builtins.getattr'),
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        core._reconstruct,
        core.scalar,
        *numbers,
    ]


@contextmanager
def harmless_checkpoints() -> Iterator[None]:
    """Inside, ``torch.load`` reads mmengine's checkpoints and runs no code, whoever calls it.

    mmengine reads a file that holds more than data a second time with code allowed; torch's own
    switch forbids that.
    """
    switch = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
    before = os.environ.get(switch)
    os.environ[switch] = '1'
    try:
        with torch.serialization.safe_globals(_harmless()):
            yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


def read_checkpoint(path: str) -> dict:
    """A checkpoint file, without running any code it may carry.

    Raises:
        UserError: if the file is absent, damaged, or holds more than data.
    """
    if not Path(path).is_file():
        raise UserError(f'checkpoint {path!r} is not a file')
    try:
        with harmless_checkpoints():
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'checkpoint {path!r} cannot be read: {one_line(error, 200)}') from None
    if not isinstance(checkpoint, dict):
        raise UserError(f'checkpoint {path!r} holds a {type(checkpoint).__name__}, not weights')
    _check_shape(checkpoint, path)
    return checkpoint


def _check_shape(checkpoint: dict, path: str) -> None:
    """Refuse entries that are not what mmengine puts there.

    Raises:
        UserError: naming the entry.
    """
    meta = checkpoint.get('meta')
    data = meta.get('dataset_meta') if isinstance(meta, dict) else None
    names = data.get('classes') if isinstance(data, dict) else None
    weights = checkpoint.get('state_dict', checkpoint)
    demands = [
        ('meta', meta, meta is None or isinstance(meta, dict)),
        ('meta.dataset_meta', data, data is None or isinstance(data, dict)),
        ('meta.dataset_meta.classes', names, names is None or isinstance(names, (list, tuple))),
        (
            'state_dict',
            weights,
            isinstance(weights, dict) and all(isinstance(key, str) for key in weights),
        ),
    ]
    for key in ('message_hub', 'optimizer'):
        demands.append((key, checkpoint.get(key), isinstance(checkpoint.get(key, {}), dict)))
    for key in ('epoch', 'iter'):
        number = (meta if isinstance(meta, dict) else {}).get(key, 0)
        demands.append((f'meta.{key}', number, type(number) is int and number >= 0))
    for place, value, right in demands:
        if not right:
            raise UserError(f'checkpoint {path!r} is damaged: {place} is {value!r:.60}')


def weights_of(checkpoint: dict) -> dict[str, Tensor]:
    """The weights by name, without the prefix that a wrapper for several processes adds."""
    weights = checkpoint.get('state_dict', checkpoint)
    return {key.removeprefix('module.'): value for key, value in weights.items()}


def class_names(checkpoint: dict) -> tuple[str, ...] | None:
    """The names of the classes that a checkpoint was trained on, in order; None if not kept."""
    names = (saved_meta(checkpoint).get('dataset_meta') or {}).get('classes')
    return tuple(str(name) for name in names) if names else None


# --------------------------------------------------------------------------------------- what fits


def check_checkpoint(
    checkpoint: dict,
    path: str,
    model: nn.Module,
    complete: bool = True,
    any_method: bool = False,
    left_out: Sequence[str] = (),
) -> None:
    """Refuse a checkpoint that was not made for this model.

    Args:
        checkpoint: what `read_checkpoint` gave.
        path: of the file.
        model: what it should fit.
        complete: it must be a checkpoint of this very model; else one that part of the model
            starts from.
        any_method: it may be of another method that has the same weights.
        left_out: beginnings of the names of weights that are not taken from it.

    Raises:
        UserError: naming the number of classes, the method, or the first weight that does not fit.
    """
    weights, own = (
        {k: v for k, v in found.items() if not k.startswith(tuple(left_out))}
        for found in (weights_of(checkpoint), model.state_dict())
    )
    head, saved = type(getattr(model, 'head', None)), saved_head(checkpoint)
    if issubclass(head, MethodHead) and saved not in (None, head.__name__) and not any_method:
        raise UserError(
            f'checkpoint {path!r} is of another method: it was trained with {saved}, the model has '
            f'{head.__name__}: use its own config'
        )
    network, backbone = saved_network(checkpoint), getattr(model, 'backbone', None)
    built = getattr(backbone, 'model_name', type(backbone).__name__)
    if complete and network and backbone is not None and built not in (network, 'TIMMBackbone'):
        raise UserError(
            f'checkpoint {path!r} is of {network}, the model of {built}: use the config that was '
            'saved beside it'
        )
    wrong = [k for k in own if k in weights and weights[k].shape != own[k].shape]
    if wrong:
        theirs = len(class_names(checkpoint) or ())
        ours = getattr(getattr(model, 'head', None), 'num_classes', None)
        if theirs and ours and theirs != ours:
            raise UserError(
                f'checkpoint {path!r} is of {theirs} classes, the model has {ours}: '
                'use the data or config it was trained with'
            )
        raise UserError(
            f'checkpoint {path!r} does not fit: {wrong[0]} is {tuple(weights[wrong[0]].shape)} '
            f'in it and {tuple(own[wrong[0]].shape)} in the model'
        )
    missing = [k for k in own if k not in weights]
    if missing and (complete or len(missing) == len(own)):
        raise UserError(f'checkpoint {path!r} is of another model: it lacks {_first_of(missing)}')
    besides = [k for k in weights if k not in own and not k.startswith(TRAINING_ONLY)]
    if besides and complete and isinstance(model, FineGrainedClassifier):
        raise UserError(
            f'checkpoint {path!r} is of another model: besides what this one has, it holds '
            f'{_first_of(besides)}'
        )


def _first_of(names: list[str]) -> str:
    return names[0] + (f' and {len(names) - 1} more' if len(names) > 1 else '')
