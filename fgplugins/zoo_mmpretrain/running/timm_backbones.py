"""``--backbone NAME``: any network of timm's in a config, with what it asks of the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from fgplugins.errors import UserError
from fgplugins.networks.names import look_up_network
from fgplugins.zoo_mmpretrain.running.settings import all_datasets, pipeline_size, short_type

__all__ = ['resize', 'set_backbone']

SIZES = ('crop_size', 'scale')  # of a pipeline's steps, in pixels


def set_backbone(cfg: Config, name: str) -> list[str]:
    """Put a network of timm's into a config: its levels, mean and deviation, and its only size.

    Args:
        cfg: changed in place.
        name: of any kind that ``timm.create_model`` takes.

    Returns:
        Notes on what changed in the images.

    Raises:
        UserError: if timm does not know it, or the config's model cannot stand on it.
    """
    try:
        settings = look_up_network(name)
    except ValueError as error:
        raise UserError(f'--backbone {error}') from None
    model = cfg.get('model') or {}
    if short_type(model) != 'FineGrainedClassifier':
        raise UserError(
            f'--backbone {name}: model.type={model.get("type")!r} has its own network; it must be '
            "'FineGrainedClassifier'"
        )
    channels = (model.get('backbone') or {}).get('in_channels', 3)
    given = {} if channels == 3 else {'in_channels': channels}
    model.backbone = ConfigDict(type='TimmNetwork', model_name=name, **given)
    model.pop('neck', None)
    for key in ('in_channels', 'embedding_channels'):
        model.get('head', {}).pop(key, None)
    cfg.pretrained_weights = None  # those were of another network
    if settings is None:
        return []
    notes = []
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor')
    if preprocessor is not None and channels == len(settings.mean) == 3:
        new = {
            key: [round(255 * v, 3) for v in values]
            for key, values in (('mean', settings.mean), ('std', settings.std))
        }
        if any(list(preprocessor.get(key) or ()) != values for key, values in new.items()):
            mean, std = (', '.join(f'{v:g}' for v in values) for values in new.values())
            notes.append(f"{name}'s own normalisation of colours: mean {mean}, deviation {std}")
            preprocessor.update(new)
    if settings.fixed_input_size:
        notes += _take_only_size(cfg, name, settings.input_size[1:])
    return notes


def resize(cfg: Config, size: Sequence[int]) -> list[tuple[int, int]]:
    """Scale all sizes of the pipelines, so that they end with another size of images.

    Args:
        cfg: changed in place.
        size: (height, width).

    Returns:
        The sizes that others had before.
    """
    changed = []
    for dataset in all_datasets(cfg):
        pipeline = dataset.get('pipeline') or []
        before = pipeline_size(pipeline)
        if before == tuple(size):
            continue
        for step in pipeline:
            for key in SIZES:
                if key in step:
                    step[key] = _scaled(step[key], size[0] / before[0])
        changed.append(before)
    return list(dict.fromkeys(changed))


def _take_only_size(cfg: Config, name: str, size: Sequence[int]) -> list[str]:
    """Give a network the only size that it takes."""
    notes = [
        f'images of {size[0]} x {size[1]} in place of {height} x {width}: {name} takes no others'
        for height, width in resize(cfg, size)
    ]
    head = cfg.model.get('head') or {}
    if head.get('view_size') is not None:
        head.pop('view_size')
        notes.append(f'head.view_size is left out: {name} takes no other size')
    return notes


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_scaled(v, factor) for v in value)
    return round(value * factor) if isinstance(value, int) and value > 0 else value
