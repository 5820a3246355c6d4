"""``--epochs N``: a config's whole schedule, stretched or shortened to another number of epochs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from mmengine.config import Config, ConfigDict

from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.running.settings import short_type

__all__ = ['stretch']

MANY = 10  # falls of the rate
NEVER = 10**9  # mmengine's ``end`` of a scheduler without one
# hooks with a schedule of their own: the setting, its default and the least it may become
HOOKS = {
    'RestrictionScheduleHook': (('begin', 50, 1), ('period', 45, 1)),
    'EMAHook': (('begin_epoch', 0, 0),),
}


def stretch(cfg: Config, epochs: int) -> str | None:
    """Change a training's length, and all that is counted in epochs with it.

    Args:
        cfg: changed in place.
        epochs: the new number.

    Returns:
        A line that says what the schedule became; None if the config has that length already.

    Raises:
        UserError: if the config does not count epochs.
    """
    train = cfg.get('train_cfg') or {}
    before = train.get('max_epochs')
    if not isinstance(before, int) or before < 1:
        counted = f'max_iters={train["max_iters"]}' if train.get('max_iters') else train
        raise UserError(f'--epochs {epochs}: the config counts no epochs: train_cfg: {counted}')
    if before == epochs:
        return None
    train.max_epochs = epochs
    if train.get('val_begin', 1) > 1:
        train.val_begin = max(1, _rounded(train.val_begin * epochs / before))
    changes = [_stretch_scheduler(s, epochs / before, epochs) for s in _schedulers(cfg)]
    changes += [_stretch_hook(hook, epochs / before) for hook in cfg.get('custom_hooks') or []]
    changes = [change for change in changes if change]
    what = '; '.join(changes)
    note = f'{epochs} {"epoch" if epochs == 1 else "epochs"} in place of {before}'
    return f'{note}, the schedule with them: {what}' if what else note


def _schedulers(cfg: Config) -> Iterator[ConfigDict]:
    """The schedulers of a config: of one optimizer or, by its name, of each of several."""
    found = [cfg.get('param_scheduler') or []]
    while found:
        one = found.pop(0)
        if isinstance(one, dict) and 'type' in one:
            yield one
        else:
            found[:0] = one.values() if isinstance(one, dict) else one


def _rounded(number: float) -> int:
    """The nearest whole number; a half goes up."""
    return int(number + 0.5)


def _short(number: float) -> float:
    return float(f'{number:.4g}')


def _stretch_scheduler(scheduler: ConfigDict, factor: float, epochs: int) -> str:
    """Scale what one scheduler counts in epochs, or in iterations.

    What it counts from its beginning is scaled as a place in the training, so that schedulers that
    follow each other still do.
    """
    old = scheduler.to_dict()
    name = short_type(scheduler)
    begin = old.get('begin', 0)
    start = _rounded(begin * factor)
    remarks: list[str] = []

    def place(count: int) -> int:
        """Steps after the new beginning of what came ``count`` steps after the old one."""
        return _rounded((begin + count) * factor) - start

    if begin:
        scheduler.begin = start
    if old.get('end', NEVER) < NEVER:
        remarks += _set_end(scheduler, place(old['end'] - begin), name)
    for key in ('T_max', 'total_steps'):
        if old.get(key):
            scheduler[key] = max(1, place(old[key]))
    if old.get('periods'):
        ends = [place(end) for end in accumulate(old['periods'])]
        lengths = [end - last for end, last in zip(ends, [0, *ends], strict=False)]
        scheduler.periods = [max(1, length) for length in lengths]
    if old.get('step_size'):
        steps = old['step_size'] * factor
        scheduler.step_size = max(1, _rounded(steps))
        if steps < 1 or epochs / steps >= MANY:
            # where the rate falls often, how far it falls matters more than how often
            power = scheduler.step_size / steps
            scheduler.gamma = _short(old.get('gamma', 0.1) ** power)
    if name.startswith('Exponential') and 'gamma' in old:
        scheduler.gamma = _short(old['gamma'] ** (1 / factor))
    if name.startswith('ReduceOnPlateau'):
        scheduler.patience = max(1, _rounded(old.get('patience', 10) * factor))
    if old.get('milestones'):
        last = epochs - start if old.get('by_epoch', True) else NEVER
        scheduler.milestones, lost = _milestones(old['milestones'], place, last)
        remarks += lost
    return _change(name, old, scheduler, remarks)


def _set_end(scheduler: ConfigDict, length: int, name: str) -> list[str]:
    """Set where a scheduler ends; a warm-up shorter than half a step is switched off."""
    begin, least = scheduler.get('begin', 0), 1
    if name.startswith(('Linear', 'Constant')) and not scheduler.get('convert_to_iter_based'):
        least = 2  # mmengine's reach their last factor with their last step, and need two for that
    scheduler.end = begin + max(least, length)
    if length or least == 1:
        return []
    factors = ('start_factor', 'end_factor') if name.startswith('Linear') else ('factor',)
    scheduler.update({key: 1.0 for key in factors if key != 'end_factor' or key in scheduler})
    return ['shorter than a step: it falls out']


def _milestones(before: list[int], place: object, last: int) -> tuple[list[int], list[str]]:
    """The steps that still are steps of their own, and a remark on the others."""
    kept: list[int] = []
    lost = []
    for milestone in before:
        new = max(1, place(milestone))
        if new < last and (not kept or new > kept[-1]):
            kept.append(new)
        else:
            lost.append(milestone)
    several = 'steps' if len(lost) > 1 else 'step'
    fall = 'fall out' if len(lost) > 1 else 'falls out'
    return kept, [f'the {several} at {", ".join(map(str, lost))} {fall}'] if lost else []


def _stretch_hook(hook: ConfigDict, factor: float) -> str:
    old = hook.to_dict()
    name = short_type(hook)
    for key, default, least in HOOKS.get(name, ()):
        value = old.get(key, default)
        if isinstance(value, int) and value > 0:
            hook[key] = max(least, _rounded(value * factor))
            old.setdefault(key, default)
    return _change(name, old, hook, [])


def _change(name: str, old: dict, new: ConfigDict, remarks: list[str]) -> str:
    """What changed in a component's settings, as ``StepLR step_size 30 -> 15``; none if nothing."""
    changed = [
        f'{key} {old[key]} -> {value}' if key in old else f'{key} {value}'
        for key, value in new.to_dict().items()
        if old.get(key) != value
    ]
    remark = f' ({"; ".join(remarks)})' if remarks else ''
    return f'{name} {", ".join(changed)}{remark}' if changed or remarks else ''
