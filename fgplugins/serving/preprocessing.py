"""How a model's images are prepared, as data that a program without this package can follow.

    {'channels': 'RGB', 'size': [224, 224], 'steps': [...], 'mean': [...], 'std': [...]}

The steps make an image of that height and width; its bytes b become the network's input
``(b / 255 - mean) / std``, channel by channel, in the order of ``channels``, as (N, C, H, W).
"""

from __future__ import annotations

import math
from typing import Any

from fgplugins.errors import UserError
from fgplugins.utils.loaded import LoadedModel

__all__ = ['as_timm_data', 'describe_preprocessing', 'read_steps']

INTERPOLATIONS = ('bicubic', 'bilinear', 'lanczos', 'nearest')  # of both libraries

RESIZING_CROP = 'efficientnet_style'  # of MMPretrain's CenterCrop: it resizes, too


def describe_preprocessing(loaded: LoadedModel) -> dict[str, Any]:
    """What a model asks of its images.

    A step is ``resize`` (to 'size', or so that the 'shorter_edge' or 'longer_edge' has a length),
    ``center_crop`` or ``center_crop_or_pad`` (to a 'size'), sizes being (height, width); another
    step of a config has its own name and settings.

    Args:
        loaded: the model.

    Raises:
        UserError: if its pipeline cannot be built.
    """
    return _of_timm(loaded.data) if loaded.config is None else _of_config(loaded)


def read_steps(description: dict[str, Any]) -> str:
    """The steps in words, as for a model's card."""
    return ', then '.join(_in_words(dict(step)) for step in description['steps'])


def _in_words(step: dict[str, Any]) -> str:
    kind = step.pop('step')
    if kind not in ('resize', 'center_crop', 'center_crop_or_pad'):
        return kind + (f' ({", ".join(f"{k}={v!r}" for k, v in step.items())})' if step else '')
    edge = next((key for key in ('shorter_edge', 'longer_edge') if key in step), None)
    size = ' x '.join(map(str, step.get('size', ())))
    if kind == 'resize':
        to = f'the {edge.replace("_", " ")} to {step[edge]}' if edge else f'to {size}'
        return f'resize {to} ({step["interpolation"]}, {step["library"]})'
    return f'crop {"or pad " if kind.endswith("pad") else ""}to {size} around the centre'


def _of_timm(data: dict[str, Any]) -> dict[str, Any]:
    """Timm's transform for testing: ``timm.data.transforms_factory.transforms_imagenet_eval``."""
    channels, *size = data['input_size']
    scaled = [math.floor(side / data['crop_pct']) for side in size]
    how = {'interpolation': data['interpolation'], 'library': 'Pillow'}
    crop = {'step': 'center_crop', 'size': size}
    if data['crop_mode'] == 'squash':
        resize = {'step': 'resize', 'size': scaled}
    elif data['crop_mode'] == 'border':
        resize = {'step': 'resize', 'longer_edge': scaled[0]}
        crop = {'step': 'center_crop_or_pad', 'size': size}
    else:
        resize = {'step': 'resize', 'shorter_edge': scaled[0]}
    return {
        'channels': 'L' if channels == 1 else 'RGB',
        'size': size,
        'steps': [{**resize, **how}, crop],
        'mean': list(data['mean']),
        'std': list(data['std']),
    }


def _of_config(loaded: LoadedModel) -> dict[str, Any]:
    """A config's test pipeline, and its data preprocessor."""
    from fgplugins.zoo_mmpretrain.colours import gives_bgr
    from fgplugins.zoo_mmpretrain.running.settings import innermost_datasets

    loader = loaded.config.get('test_dataloader') or loaded.config.get('val_dataloader')
    steps = [_of_step(dict(s)) for s in innermost_datasets(loader.dataset)[0].pipeline]
    prepare, channels = loaded.model.data_preprocessor, loaded.input_size[0]
    reversed_ = gives_bgr(loaded.prepare().read.pipeline, otherwise=True) == bool(prepare.to_rgb)
    mean, std = [0.0] * channels, [1 / 255] * channels
    if getattr(prepare, '_enable_normalize', False):
        mean = [round(v / 255, 7) for v in prepare.mean.flatten().tolist()]
        std = [round(v / 255, 7) for v in prepare.std.flatten().tolist()]
    return {
        'channels': 'L' if channels == 1 else 'RGB' if reversed_ else 'BGR',
        'size': list(loaded.input_size[1:]),
        'steps': [step for step in steps if step is not None],
        'mean': mean,
        'std': std,
    }


def _of_step(settings: dict[str, Any]) -> dict[str, Any] | None:
    """A step of a test pipeline under the common names; None for one that changes no pixel."""
    kind = str(settings.pop('type')).rsplit('.', 1)[-1]
    if kind in ('CropToBox', 'LoadImage', 'LoadImageFromFile', 'PackInputs'):
        return None
    how = {
        'interpolation': settings.get('interpolation', 'bilinear'),
        'library': 'Pillow' if settings.get('backend') == 'pillow' else 'OpenCV',
    }
    size = settings.get('scale') or settings.get('crop_size')
    size = [size, size] if isinstance(size, int) else list(size or ())
    if kind == 'Resize' and size and not settings.get('keep_ratio'):
        return {'step': 'resize', 'size': size[::-1], **how}  # mmcv's scale is (width, height)
    if kind == 'ResizeEdge' and settings.get('edge', 'short') in ('short', 'long'):
        edge = 'shorter_edge' if settings.get('edge', 'short') == 'short' else 'longer_edge'
        return {'step': 'resize', edge: size[0], **how}
    if kind == 'CenterCrop' and not settings.get(RESIZING_CROP):
        return {'step': 'center_crop', 'size': size}
    return {'step': kind, **settings}


def as_timm_data(description: dict[str, Any], name: str) -> dict[str, Any]:
    """The same preparation as timm's transform does it, which resizes by Pillow.

    Args:
        description: see `describe_preprocessing`.
        name: of the model, for the message.

    Raises:
        UserError: naming what timm's transform cannot do.
    """
    size, steps = description['size'], description['steps']
    if description['channels'] == 'BGR':
        raise UserError(
            f"{name} takes blue first, which timm's models do not: train with "
            'data_preprocessor.to_rgb=True, or use tools/export.py'
        )
    resize, crop = (*steps, {'step': 'center_crop', 'size': size})[:2] if steps else ({}, {})
    edge = resize.get('shorter_edge')
    scaled = [edge, edge] if edge else resize.get('size')
    fits = (
        [step['step'] for step in steps] in (['resize'], ['resize', 'center_crop'])
        and scaled
        and crop['size'] == size
        and resize['interpolation'] in INTERPOLATIONS
    )
    share = size[0] / scaled[0] if fits else 0
    if not fits or [math.floor(side / share) for side in size] != list(scaled):
        raise UserError(
            f"{name} is tested on images by other steps than timm's transform has: "
            f'{read_steps(description) or "none"}; tools/export.py takes any, publish.py one '
            'resize to a size or of the shorter edge, and one crop in the centre'
        )
    return {
        'input_size': (len(description['mean']), *size),
        'interpolation': resize['interpolation'],
        'crop_pct': share,
        'crop_mode': 'center' if edge else 'squash',
        'mean': tuple(description['mean']),
        'std': tuple(description['std']),
    }
