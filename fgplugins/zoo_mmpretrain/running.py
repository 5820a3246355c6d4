"""What the command lines over configs share: all is checked before anything is written."""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dist import get_dist_info
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from torch import nn

import fgplugins
from fgplugins.cli import one_line
from fgplugins.errors import UserError, did_you_mean

__all__ = [
    'add_config_arguments',
    'check_checkpoint',
    'check_model',
    'configs_folder',
    'find_config',
    'load_config',
    'match_classes',
    'prepare_loaders',
    'read_checkpoint',
    'set_amp',
    'set_launcher',
    'shipped_configs',
    'user_errors',
]

SPLITS = ('train', 'val', 'test')
# what mmengine's runner reads of a config besides its own arguments
RUNNER_SECTIONS = (
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
)
# what MMPretrain's own data sets expect; their errors only say what was not found
ZOO_LAYOUTS = {
    'ImageNet': 'train/<class>/*.JPEG and val/<class>/*.JPEG',
    'VOC': 'JPEGImages/*.jpg, Annotations/*.xml, ImageSets/Main/train.txt and val.txt',
}


# ---------------------------------------------------------------- errors of the user's, in one line


def _one_line(error: BaseException) -> str:
    """`one_line`, and for an unregistered type the names that are close to it."""
    text = one_line(error)
    missing = re.match(r"['\"]?(\S+) is not in the (\S+)::(.+?) registry", text)
    if missing:
        name, _, registry = missing.groups()
        return f'type={name!r} is not a registered {registry}' + did_you_mean(
            name, _registered(registry)
        )
    return text


def _registered(name: str) -> list[str]:
    """Everything known under a registry's name, in MMPretrain, mmengine and here."""
    import mmpretrain.registry as zoo

    found: set[str] = set()
    for registry in vars(zoo).values():
        while getattr(registry, 'name', None) == name:
            found.update(registry.module_dict)
            registry = registry.parent
    return sorted(found)


@contextmanager
def user_errors(what: str) -> Iterator[None]:
    """Turn what goes wrong while a user's settings are tried into a `UserError` that names them."""
    try:
        yield
    except UserError:
        raise
    except (
        AssertionError,
        AttributeError,
        ImportError,
        KeyError,
        OSError,
        RuntimeError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        if os.environ.get('FGPLUGINS_TRACEBACK'):
            raise
        raise UserError(f'{what}: {_one_line(error)}') from error


# ----------------------------------------------------------------------------------- configurations


def configs_folder() -> Path:
    """The configs: inside the installed package, or beside it in a checkout."""
    package = Path(fgplugins.__file__).parent
    shipped = package / '.mim' / 'configs'
    return shipped if shipped.is_dir() else package.parent / 'configs'


def shipped_configs() -> list[str]:
    """The names that `find_config` takes besides files."""
    return sorted(f.stem for f in configs_folder().glob('*.py'))


def find_config(name: str) -> Path:
    """A config by path, or by the name of one that is shipped (with or without .py).

    Raises:
        UserError: if there is none; the message lists names that are close.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = configs_folder() / f'{path.name.removesuffix(".py")}.py'
    if shipped.is_file():
        return shipped
    names = shipped_configs()
    close = difflib.get_close_matches(path.stem, names, 3) or names
    raise UserError(f'config {name!r} is not a file; shipped ones: {", ".join(close)}')


class Overrides(DictAction):
    """``KEY=VALUE`` ...; mmengine's action, with a user's error for what reads otherwise."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: list[str],
        option_string: str | None = None,
    ) -> None:
        wrong = next((value for value in values if '=' not in value), None)
        if wrong is not None:
            raise UserError(f'{option_string} {wrong!r}: must read KEY=VALUE')
        super().__call__(parser, namespace, values, option_string)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every command over a config takes."""
    parser.add_argument('config', help='config file, or the name of a shipped one')
    parser.add_argument('--work-dir', help='where logs and checkpoints go (work_dirs/<config>)')
    parser.add_argument(
        '--data-root', help='folder of the data; its classes are counted and used for the model'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Overrides,
        metavar='KEY=VALUE',
        help='override settings of the config, as train_cfg.max_epochs=2',
    )


def load_config(args: argparse.Namespace) -> Config:
    """Read the config named on the command line, with its overrides, work and data folders."""
    path = find_config(args.config)
    with user_errors(f'config {path}'):
        cfg = Config.fromfile(path)
        if args.cfg_options:
            _check_overrides(cfg, args.cfg_options)
            cfg.merge_from_dict(args.cfg_options)
            _say_schedule(cfg, args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs') / path.stem)
    if Path(cfg.work_dir).exists() and not Path(cfg.work_dir).is_dir():
        raise UserError(f'--work-dir {cfg.work_dir} is a file, not a folder')
    if args.data_root is not None:
        for dataset in _datasets(cfg):
            dataset.data_root = args.data_root
    if DefaultScope.get_current_instance() is None:
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return cfg


def _check_overrides(cfg: Config, overrides: dict[str, object]) -> None:
    """Refuse to override what neither the config has nor mmengine's runner reads.

    Raises:
        UserError: naming sections that are close.
    """
    known = {*cfg, *inspect.signature(Runner).parameters, *RUNNER_SECTIONS}
    for key in overrides:
        section = key.split('.')[0]
        if section not in known:
            hint = did_you_mean(section, known)
            raise UserError(f'--cfg-options {key}: the config has no {section!r}{hint}')


def _say_schedule(cfg: Config, overrides: dict[str, object]) -> None:
    """Tell who changes the number of epochs that the rate's schedule was laid out for another."""
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    if 'train_cfg.max_epochs' not in overrides:
        return
    schedulers = cfg.get('param_scheduler') or []
    listed = isinstance(schedulers, (list, tuple))
    for i, scheduler in enumerate(schedulers if listed else [schedulers]):
        name = f'param_scheduler.{i}' if listed else 'param_scheduler'
        length = scheduler.get('T_max')
        if length is None or not scheduler.get('by_epoch', True):
            continue
        fitting = epochs - scheduler.get('begin', 0)
        if length != fitting and f'{name}.T_max' not in overrides:
            print(
                f'note: train_cfg.max_epochs={epochs}, but the rate falls over {length} epochs: '
                f'add {name}.T_max={fitting} to let it fall over the whole training'
            )


def _datasets(cfg: Config) -> list[ConfigDict]:
    """The innermost data set of each split, inside whatever wrappers."""
    found = []
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            dataset = loader.dataset
            while 'dataset' in dataset:
                dataset = dataset.dataset
            found.append(dataset)
    return found


@contextmanager
def _say_layout(dataset: ConfigDict) -> Iterator[None]:
    """Add to what MMPretrain says of a folder that it cannot read how the folder should look."""
    layout = ZOO_LAYOUTS.get(str(dataset.get('type')).rsplit('.', 1)[-1])
    try:
        yield
    except OSError as error:
        if layout is None:
            raise
        raise UserError(
            f'{_one_line(error)}; data root {dataset.get("data_root")!r} should hold {layout}: '
            'pass --data-root'
        ) from error


def match_classes(
    cfg: Config, splits: tuple[str, ...], overrides: dict | None = None
) -> dict[str, object]:
    """Build the data sets, so that what is wrong with them is said first; fit the model to them.

    The number of classes of the head is counted in the data, unless ``--cfg-options`` gives one.

    Args:
        cfg: changed in place.
        splits: which of 'train', 'val', 'test' will be used.
        overrides: what the user gave by ``--cfg-options``.

    Returns:
        The built data sets by split.

    Raises:
        UserError: if a data set cannot be built, or has another number of classes than demanded.
    """
    from mmpretrain.registry import DATASETS

    built = {}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            with user_errors(f'{split} data'), _say_layout(loader.dataset):
                built[split] = DATASETS.build(loader.dataset)
                if len(built[split]) == 0:
                    raise UserError(f'the {split} data are empty')
    if not built:
        raise UserError(f'the config has no data for {" or ".join(splits)}')
    counts = {s: len(d.metainfo['classes']) for s, d in built.items() if d.metainfo.get('classes')}
    head = cfg.model.get('head') or {}
    if not counts or 'num_classes' not in head:
        return built
    if len(set(counts.values())) > 1:
        raise UserError(f'the splits differ in their number of classes: {counts}')
    count = next(iter(counts.values()))
    demanded = (overrides or {}).get('model.head.num_classes')
    if demanded is not None and demanded != count:
        raise UserError(f'model.head.num_classes={demanded}, but the data have {count} classes')
    if head.num_classes != count:
        print(f'num_classes: {count}, counted in the data (the config says {head.num_classes})')
        head.num_classes = count
        if 'data_preprocessor' in cfg and 'num_classes' in cfg.data_preprocessor:
            cfg.data_preprocessor.num_classes = count
    return built


def check_model(cfg: Config) -> nn.Module:
    """Build the model once, before the runner creates its folder.

    Raises:
        UserError: if the config's model cannot be built.
    """
    from mmpretrain.registry import MODELS

    model_cfg = ConfigDict(cfg.model.to_dict())
    if cfg.get('data_preprocessor'):
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    with user_errors('model'):
        return MODELS.build(model_cfg)


def prepare_loaders(cfg: Config) -> None:
    """Defaults of the data loaders, and new random numbers for their workers every epoch."""
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', False)
            loader.setdefault('worker_init_fn', ConfigDict(type='fgplugins.seed_worker'))
            loader.setdefault('collate_fn', ConfigDict(type='default_collate'))


# -------------------------------------------------------------------------------------- checkpoints


def _history_method(owner: object, name: str) -> object:
    """The one use that mmengine's message hub has for ``getattr``, and no other."""
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
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints, and no code."""
    with torch.serialization.safe_globals(_harmless()):
        yield


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
        raise UserError(f'checkpoint {path!r} cannot be read: {_one_line(error)[:200]}') from None
    if not isinstance(checkpoint, dict):
        raise UserError(f'checkpoint {path!r} holds a {type(checkpoint).__name__}, not weights')
    return checkpoint


def check_checkpoint(path: str, model: nn.Module, complete: bool = True) -> dict:
    """Read a checkpoint and refuse one that was not made for this model.

    Args:
        path: the file.
        model: what it should fit.
        complete: every weight of the model must be in it.

    Returns:
        The checkpoint.

    Raises:
        UserError: naming the number of classes, or the first weight, that does not fit.
    """
    checkpoint = read_checkpoint(path)
    weights = checkpoint.get('state_dict', checkpoint)
    weights = {k.removeprefix('module.'): v for k, v in weights.items()}
    own = model.state_dict()
    wrong = [k for k in own if k in weights and weights[k].shape != own[k].shape]
    if wrong:
        classes = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
        theirs, ours = len(classes.get('classes') or ()), getattr(model.head, 'num_classes', None)
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
        raise UserError(
            f'checkpoint {path!r} is of another model: it lacks {missing[0]}'
            + (f' and {len(missing) - 1} more' if len(missing) > 1 else '')
        )
    return checkpoint


# ---------------------------------------------------------------------------------- how it is run


def set_amp(cfg: Config) -> None:
    """Mixed precision: the zoo's wrapper on a GPU, bfloat16 autocast elsewhere."""
    if torch.cuda.is_available():
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        cfg.optim_wrapper.type = 'fgplugins.AutocastOptimWrapper'
        cfg.optim_wrapper.device_type = 'cpu'


def set_launcher(cfg: Config, launcher: str) -> None:
    """Several processes: NCCL on GPUs as the zoo does it, gloo on CPUs, which its runner lacks.

    Raises:
        UserError: if the launcher's variables are not set, or it needs GPUs that are not there.
    """
    cfg.launcher = launcher
    if launcher == 'none':
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError(
            '--launcher pytorch is for torchrun: torchrun --nproc-per-node 2 tools/train.py CONFIG '
            '--launcher pytorch, or tools/dist_train.sh CONFIG 2'
        )
    if torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise UserError(f'--launcher {launcher} needs GPUs; on CPUs use torchrun and pytorch')
    torch.distributed.init_process_group(backend='gloo')
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    cfg.model_wrapper_cfg = ConfigDict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
    )


def is_main_process() -> bool:
    return get_dist_info()[0] == 0
