"""``--control``: any method's config with the network itself, `GAPHead`, in the method's place."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict
from mmpretrain.registry import MODELS

from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.heads import MethodHead
from fgplugins.zoo_mmpretrain.hooks import RestrictionScheduleHook
from fgplugins.zoo_mmpretrain.running.settings import short_type

__all__ = ['set_control']

CONTROL = 'GAPHead'


def set_control(cfg: Config, overrides: dict[str, object]) -> list[str]:
    """Put the control into the method's place, with everything else as it is.

    Args:
        cfg: changed in place, before the overrides are put into it.
        overrides: by the command line.

    Returns:
        Notes on what is left out.

    Raises:
        UserError: if the config's model has no method, or the overrides give another one.
    """
    other = next((k for k in ('model', 'model.head', 'model.head.type') if k in overrides), None)
    if other:
        raise UserError(
            f'--control --cfg-options {other}={overrides[other]}: the control takes the place of '
            'the method: leave one of them out'
        )
    head = (cfg.get('model') or {}).get('head') or {}
    cls = MODELS.get(str(head.get('type')))
    if not (isinstance(cls, type) and issubclass(cls, MethodHead)):
        raise UserError(
            f'--control: model.head.type={head.get("type")!r} is no method: the control takes the '
            'place of a head such as WARNHead'
        )
    if short_type(head) == CONTROL:
        return ['the config is of the control already']
    taken = {*MODELS.get(CONTROL).arguments(), 'type'} - {'taps', 'in_channels'}
    left_out = [key for key in head if key not in taken]
    cfg.model.head = ConfigDict({k: v for k, v in head.items() if k in taken}, type=CONTROL)
    hooks = cfg.get('custom_hooks') or []
    of_the_method = [h for h in hooks if short_type(h) == RestrictionScheduleHook.__name__]
    cfg.custom_hooks = [h for h in hooks if h not in of_the_method]
    left_out += [short_type(h) for h in of_the_method]
    note = f'{CONTROL} in the place of {cls.__name__}'
    return [note + (f', whose {", ".join(left_out)} is left out' if left_out else '')]
