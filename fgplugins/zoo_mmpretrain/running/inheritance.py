"""Settings that a component inherits from one of another type and does not take: left out.

A config inherits from others, and ``--cfg-options`` override it. mmengine merges all of it key by
key, so that a component of another type keeps the settings of the one it replaces.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmpretrain.registry as zoo
from mmengine.config import Config

from fgplugins.errors import UserError, did_you_mean
from fgplugins.zoo_mmpretrain.heads import MethodHead
from fgplugins.zoo_mmpretrain.running.settings import short_type

__all__ = ['accepted_arguments', 'drop_settings_of_other_types']

# components whose type a config may replace, and the registry of their types
COMPONENTS = {
    'model.backbone': 'MODELS',
    'model.neck': 'MODELS',
    'model.head': 'MODELS',
    'optim_wrapper.optimizer': 'OPTIMIZERS',
    'param_scheduler': 'PARAM_SCHEDULERS',
    'train_dataloader.dataset': 'DATASETS',
    'val_dataloader.dataset': 'DATASETS',
    'test_dataloader.dataset': 'DATASETS',
    'val_evaluator': 'METRICS',
    'test_evaluator': 'METRICS',
}


@dataclass
class _Assignment:
    """What one file, or the command line, sets of a component.

    Attributes:
        keys: the names of the settings; None if they cannot be read off the file.
        deletes: whether it starts from none of the inherited settings.
    """

    keys: set[str] | None
    deletes: bool = False


def drop_settings_of_other_types(
    cfg: Config, file: Path, overrides: dict[str, object]
) -> list[str]:
    """Leave out what a component inherits from one of another type and does not take.

    Args:
        cfg: merged; changed in place.
        file: that it was read from.
        overrides: by the command line.

    Returns:
        A note for each component that lost settings.

    Raises:
        UserError: for a setting of the user's own that a head does not take.
    """
    notes = []
    for place, registry in COMPONENTS.items():
        settings = _find(cfg, place.split('.'))
        if not isinstance(settings, dict) or not isinstance(settings.get('type'), str):
            continue
        try:
            cls = getattr(zoo, registry).get(settings['type'])
        except RuntimeError:  # no such type: building it says so
            cls = None
        accepted = None if cls is None else accepted_arguments(cls)
        if accepted is None:
            continue
        if isinstance(settings.get('in_channels'), int) and issubclass(cls, MethodHead):
            accepted -= {'in_channels'}  # for heads of the zoo; ours ask the backbone
        refused = [key for key in settings if key not in {*accepted, 'type', '_scope_'}]
        own = _own_keys(file, place, overrides) if refused else set()
        inherited = [key for key in refused if own is not None and key not in own]
        for key in inherited:
            del settings[key]
        name = short_type(settings)
        if inherited:
            notes.append(
                f'{place}: {name} does not take {", ".join(inherited)}, inherited from another '
                'type: left out'
            )
        mine = next((k for k in refused if k not in inherited and k != 'in_channels'), None)
        if mine is not None and place == 'model.head':
            hint = did_you_mean(mine, accepted) or f'; it takes {", ".join(sorted(accepted))}'
            raise UserError(
                f'{place}.{mine}: {name} has no {mine!r}{hint}. head=dict(_delete_=True, '
                f"type='{name}', ...) starts from none of the inherited settings"
            )
    return notes


def accepted_arguments(cls: Any) -> set[str] | None:
    """The names of the arguments that a class takes; None if it takes any."""
    if isinstance(cls, type) and issubclass(cls, MethodHead):
        return cls.arguments()
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters}


def _find(settings: Any, path: Sequence[str]) -> Any:
    for key in path:
        settings = settings.get(key) if isinstance(settings, (dict, Config)) else None
    return settings


def _own_keys(file: Path, place: str, overrides: dict[str, object]) -> set[str] | None:
    """The settings of a component that were given together with its type, or after it.

    Returns:
        Their names; None if they cannot be told from inherited ones.
    """
    assignments = [*_assignments(file, place.split('.')), _overridden(place, overrides)]
    own: set[str] | None = None
    for assignment in assignments:
        if assignment.keys is None:
            own = None
        elif assignment.deletes or 'type' in assignment.keys:
            own = set(assignment.keys)
        elif own is not None:
            own |= assignment.keys
    return own


def _overridden(place: str, overrides: dict[str, object]) -> _Assignment:
    keys: set[str] = set()
    for key, value in overrides.items():
        if key.startswith(f'{place}.'):
            keys.add(key.removeprefix(f'{place}.').split('.')[0])
        elif key == place and isinstance(value, dict):
            keys |= set(value)
    return _Assignment(keys - {'_delete_'}, '_delete_' in keys)


def _assignments(file: Path, path: Sequence[str]) -> list[_Assignment]:
    """What the bases of a config file, and then the file itself, set of a component."""
    found: list[_Assignment] = []
    try:
        body = ast.parse(Path(file).read_text(encoding='utf-8')).body
    except (OSError, SyntaxError, ValueError):
        return [_Assignment(None)]
    assigned = {
        statement.targets[0].id: statement.value
        for statement in body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }
    for base in _base_names(assigned.get('_base_')):
        if '::' not in base:  # another package's: whatever it sets is inherited
            found += _assignments(Path(file).parent / base, path)
    node: ast.expr | None = assigned.get(path[0])
    for key in path[1:]:
        entries = _entries(node)
        node = None if entries is None else entries.get(key)
    if node is not None:
        entries = _entries(node)
        keys = None if entries is None else set(entries)
        found.append(_Assignment(keys and keys - {'_delete_'}, '_delete_' in (keys or ())))
    return found


def _base_names(node: ast.expr | None) -> list[str]:
    if node is None:
        return []
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return []
    return [value] if isinstance(value, str) else list(value)


def _entries(node: ast.expr | None) -> dict[str, ast.expr] | None:
    """The entries of a ``dict(...)`` or ``{...}`` that is written out; None for anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        if not node.args and all(keyword.arg for keyword in node.keywords):
            return {str(keyword.arg): keyword.value for keyword in node.keywords}
    elif isinstance(node, ast.Dict) and all(isinstance(k, ast.Constant) for k in node.keys):
        return {
            str(key.value): value
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant)
        }
    return None
