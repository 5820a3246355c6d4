"""What a user's settings amount to: which have an effect, which were inherited, which do not fit.

A config inherits from others, and ``--cfg-options`` override it. mmengine merges all of it key by
key, so that a component of another type keeps the settings of the one it replaces.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmpretrain.registry as zoo
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from fgplugins.errors import UserError, did_you_mean
from fgplugins.zoo_mmpretrain import registry as ours
from fgplugins.zoo_mmpretrain.heads import MethodHead

__all__ = [
    'accepted_arguments',
    'check_overrides',
    'drop_inherited',
    'drop_pretrained',
    'leaf_datasets',
    'name_types',
    'registered_names',
    'short_type',
]

# what is read of a config besides the arguments of mmengine's runner: by the runner itself, by
# MMPretrain, and by the tools
READ_SECTIONS = (
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'data_preprocessor',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'pretrained_weights',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
)
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


# --------------------------------------------------------------------------------- types as classes


def name_types(settings: Any) -> Any:
    """Settings with every class or function replaced by the path that mmengine finds it by.

    What is saved of a config, and what looks at its types, then needs no more than strings.
    """
    if isinstance(settings, dict):
        return {key: name_types(value) for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return type(settings)(name_types(value) for value in settings)
    named = inspect.isclass(settings) or inspect.isfunction(settings)
    if named and '<' not in settings.__qualname__:  # what has a path to be found by
        return f'{settings.__module__}.{settings.__qualname__}'
    return settings


# ------------------------------------------------------------------------------------ what is read


def check_overrides(cfg: Config, overrides: dict[str, object]) -> None:
    """Refuse to override what the config lacks, or what nothing reads any more.

    Variables of a config file, such as ``test_pipeline``, are copied to where they are used when
    the file is read; to change them later changes nothing.

    Raises:
        UserError: naming the places that are read, or sections that are close.
    """
    read = {*inspect.signature(Runner).parameters, *READ_SECTIONS}
    for key in overrides:
        section, _, rest = key.partition('.')
        if section in read:
            continue
        if section not in cfg:
            hint = did_you_mean(section, {*cfg, *read})
            raise UserError(f'--cfg-options {key}: the config has no {section!r}{hint}')
        copies = [
            place
            for place in _places(cfg, cfg[section])
            if place.split('.')[0] in read and not place.startswith(f'{section}.')
        ]
        use = ', '.join(f'{place}.{rest}' if rest else place for place in copies[:3])
        raise UserError(
            f'--cfg-options {key}: has no effect, since {section!r} is a variable of the config '
            f'file that nothing reads afterwards' + (f': override {use} instead' if use else '')
        )


def _places(settings: Any, value: Any, path: str = '') -> Iterator[str]:
    """Where in the settings a value stands, as ``test_dataloader.dataset.pipeline``."""
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(settings, (dict, Config)):
        items = iter(settings.items())
    elif isinstance(settings, (list, tuple)):
        items = iter(enumerate(settings))
    for key, inner in items:
        place = f'{path}.{key}' if path else str(key)
        if type(inner) is type(value) and inner == value:
            yield place
        else:
            yield from _places(inner, value, place)


# -------------------------------------------------------------------------------- where weights are


def drop_pretrained(model: ConfigDict) -> None:
    """Leave out where a model's initial weights come from, once it has its own.

    Args:
        model: the config's; changed in place.
    """
    for key in ('pretrained', 'pretrained_cfg_overlay', 'checkpoint_path'):
        model.pop(key, None)
    initial = model.get('init_cfg')
    if isinstance(initial, dict) and short_type(initial) == 'Pretrained':
        del model['init_cfg']
    for value in model.values():
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, dict):
                drop_pretrained(part)


def short_type(settings: dict) -> str:
    """The name of a component's type without the path or scope in front."""
    return str(settings.get('type')).rsplit('.', 1)[-1]


# ------------------------------------------------------------------------------ what was inherited


@dataclass
class _Assignment:
    """What one file, or the command line, sets of a component.

    Attributes:
        keys: the names of the settings; None if they cannot be read off the file.
        deletes: whether it starts from none of the inherited settings.
    """

    keys: set[str] | None
    deletes: bool = False


def drop_inherited(cfg: Config, file: Path, overrides: dict[str, object]) -> list[str]:
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
        except RuntimeError:  # nothing of that name: said when it is built
            cls = None
        accepted = None if cls is None else accepted_arguments(cls)
        if accepted is None:
            continue
        if isinstance(settings.get('in_channels'), int) and issubclass(cls, MethodHead):
            accepted -= {'in_channels'}  # one number is of the zoo's heads; ours ask the backbone
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
    """What a config file sets of a component, after all that its bases set."""
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


# ------------------------------------------------------------------------------ what is registered


def registered_names(registry: str) -> set[str]:
    """Everything known under a registry's name, in MMPretrain, mmengine and here."""
    found: set[str] = set()
    for place in (*vars(zoo).values(), *vars(ours).values()):
        while getattr(place, 'name', None) == registry:
            found.update(place.module_dict)
            place = place.parent
    return found


def leaf_datasets(dataset: ConfigDict) -> list[ConfigDict]:
    """The data sets at the bottom of whatever wrappers: repeated, concatenated, in folds.

    A wrapper is a data set with another one among its settings.
    """
    known = registered_names('dataset')
    inner: list[ConfigDict] = []
    for key, value in dataset.items():
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if key != 'pipeline' and isinstance(part, dict):
                inner += leaf_datasets(part) if short_type(part) in known else []
    return inner or [dataset]
