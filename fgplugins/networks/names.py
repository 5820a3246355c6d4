"""Names of timm's models: an architecture, one with a tag, a hub's or a folder's.

``resnet18``, ``resnet18.a1_in1k``, ``hf-hub:owner/name``, ``local-dir:/path/to/folder``
"""

from __future__ import annotations

from pathlib import Path

import timm
from timm.models import load_model_config_from_hf, parse_model_name
from timm.models._hub import load_model_config_from_path
from timm.models._pretrained import PretrainedCfg

from fgplugins.errors import did_you_mean

__all__ = ['is_timm_name', 'look_up', 'look_up_network']


def is_timm_name(name: str) -> bool:
    """Whether a name is a timm model's, rather than a file's or another kind of model's."""
    try:
        source, rest = parse_model_name(name)
    except ValueError:
        return False
    known = source is not None or timm.is_model(rest.split('.')[0])
    return known and not Path(name).is_file()


def look_up(name: str, cache_dir: str | Path | None = None) -> tuple[str, PretrainedCfg | None]:
    """The architecture that a name stands for, and the settings of its weights, if there are any.

    Args:
        name: of any kind that ``timm.create_model`` takes.
        cache_dir: of the hub's files.

    Raises:
        ValueError: in one line, if there is no such model.
    """
    try:
        source, rest = parse_model_name(name)
    except ValueError as error:
        raise ValueError(f'{name!r}: {error}') from None
    if source is None:
        architecture, _, tag = name.partition('.')
        if not timm.is_model(architecture):
            hint = did_you_mean(name, timm.list_models()) or '; timm.list_models() names them all'
            raise ValueError(f'{name!r} is not a timm model{hint}')
        try:
            return architecture, timm.get_pretrained_cfg(name)
        except RuntimeError:
            tags = [n.partition('.')[2] for n in timm.list_pretrained(f'{architecture}.*')]
            raise ValueError(
                f'{name!r}: {architecture} has no weights {tag!r}; there are: {", ".join(tags)}'
            ) from None
    try:
        if source == 'local-dir':
            cfg, architecture, _ = load_model_config_from_path(rest)
        else:
            cfg, architecture, _ = load_model_config_from_hf(rest, cache_dir=cache_dir)
        found = PretrainedCfg(**cfg)
    except Exception as error:  # a hub raises many types
        reason = ' '.join(str(error).split()) or 'it is missing'
        place = 'its config.json' if source == 'local-dir' else 'config.json from the hub'
        raise ValueError(f'{name!r}: {place} cannot be read: {reason[:200]}') from None
    if not timm.is_model(architecture):
        raise ValueError(f'{name!r}: its architecture {architecture!r} is not a timm model')
    return architecture, found


def look_up_network(name: str, cache_dir: str | Path | None = None) -> PretrainedCfg | None:
    """The settings of the weights of a network that a method can stand on, if there are any.

    Args:
        name: of any kind that ``timm.create_model`` takes.
        cache_dir: of the hub's files.

    Raises:
        ValueError: if there is no such network, or it has a method on top already.
    """
    architecture, settings = look_up(name, cache_dir)
    plain = getattr(timm.model_entrypoint(architecture), 'backbone', None)
    if plain:
        raise ValueError(
            f'{name!r} has a method on top already: give {plain!r}, or another plain network'
        )
    return settings
