"""What the command lines over configs share: all is checked before anything is written."""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_dist_info
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, MODELS
from torch import nn
from tqdm import tqdm

from fgplugins.data.classes import check_same_classes
from fgplugins.data.images import check_readable
from fgplugins.data.layouts import has_validation
from fgplugins.errors import UserError, did_you_mean, one_line
from fgplugins.utils.modes import in_testing
from fgplugins.utils.shipped import shipped_configs, shipped_folder
from fgplugins.zoo_mmpretrain.datasets import FineGrainedImages
from fgplugins.zoo_mmpretrain.running.checkpoints import harmless_checkpoints
from fgplugins.zoo_mmpretrain.running.settings import (
    check_overrides,
    drop_inherited,
    leaf_datasets,
    name_types,
    registered_names,
    short_type,
)
from fgplugins.zoo_mmpretrain.running.work_folder import is_run
from fgplugins.zoo_mmpretrain.transforms import LoadImage

__all__ = [
    'add_config_arguments',
    'add_hooks',
    'check_images',
    'check_input',
    'check_length',
    'check_model',
    'find_config',
    'is_main_process',
    'load_config',
    'logged_errors',
    'match_classes',
    'override',
    'prepare_loaders',
    'set_amp',
    'set_launcher',
    'user_errors',
]

SPLITS = ('train', 'val', 'test')
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
            name, sorted(registered_names(registry))
        )
    return text


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
        IndexError,
        KeyError,
        OSError,
        RuntimeError,
        SyntaxError,
        TypeError,
        UnpicklingError,
        ValueError,
    ) as error:
        if os.environ.get('FGPLUGINS_TRACEBACK'):
            raise
        raise UserError(f'{what}: {_one_line(error)}') from error


@contextmanager
def logged_errors(runner: Runner) -> Iterator[None]:
    """Turn what goes wrong during a run into one line; the whole of it lies beside the log."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if os.environ.get('FGPLUGINS_TRACEBACK'):
            raise
        file = Path(runner.log_dir) / 'traceback.txt'
        file.write_text(traceback.format_exc(), encoding='utf-8')
        text = _one_line(error)[:300]
        iteration = runner.message_hub.get_info('iter', None)
        when = '' if iteration is None else f' in iteration {iteration + 1}'
        raise UserError(f'stopped{when}: {type(error).__name__}: {text}; where: {file}') from error


# ----------------------------------------------------------------------------------- configurations


def find_config(name: str) -> Path:
    """A config by path, or by the name of one that is shipped (with or without .py).

    Raises:
        UserError: if there is none; the message lists names that are close.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_folder('configs') / f'{path.name.removesuffix(".py")}.py'
    if shipped.is_file():
        return shipped
    names = shipped_configs()
    close = difflib.get_close_matches(path.stem, names, 3) or names
    raise UserError(f'config {name!r} is not a file; shipped ones: {", ".join(close)}')


class Overrides(DictAction):
    """``KEY=VALUE`` ...; mmengine's action, which also takes what Python writes and plain text."""

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
        options = dict(getattr(namespace, self.dest, None) or {})
        options |= {key: self._parse(text) for key, text in (v.split('=', 1) for v in values)}
        setattr(namespace, self.dest, options)

    def _parse(self, text: str) -> object:
        if text[:1] in ('{', '[', '(', '"', "'"):
            with suppress(ValueError, SyntaxError):
                return ast.literal_eval(text)
        try:
            return self._parse_iterable(text)  # lists without brackets, as 1,2,3
        except (AssertionError, RecursionError):
            return text


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
    overrides = args.cfg_options or {}
    with user_errors(f'config {path}'):
        cfg = Config.fromfile(path)
        cfg = Config(name_types(cfg.to_dict()), filename=cfg.filename)
    override(cfg, overrides)
    for section in ('model', *(f'{split}_dataloader' for split in SPLITS)):
        if cfg.get(section) is not None and not isinstance(cfg[section], dict):
            raise UserError(f'{section}={cfg[section]!r}: must be a dict')
    if not cfg.get('model'):
        raise UserError(f'config {path}: it has no model')
    for note in drop_inherited(cfg, path, overrides):
        print(f'note: {note}')
    _say_schedule(cfg, overrides)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif is_run(path.parent):  # the config of a run, in its folder wherever that is now
        cfg.work_dir = str(path.parent)
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs') / path.stem)
    if Path(cfg.work_dir).exists() and not Path(cfg.work_dir).is_dir():
        raise UserError(f'--work-dir {cfg.work_dir} is a file, not a folder')
    if args.data_root is not None:
        for dataset in _datasets(cfg):
            dataset.data_root = args.data_root
    _validate_on_own_images(cfg)
    return cfg


def _validate_on_own_images(cfg: Config) -> None:
    """Where a folder has ``val/`` besides ``test/``, the test images wait for ``tools/test.py``."""
    loader = cfg.get('val_dataloader')
    for dataset in leaf_datasets(loader.dataset) if loader else ():
        own = short_type(dataset) == FineGrainedImages.__name__ and dataset.get('split') == 'test'
        if own and has_validation(str(dataset.get('data_root'))):
            dataset.split = 'val'


def override(cfg: Config, overrides: dict[str, object]) -> None:
    """Change settings of a config in place, as ``--cfg-options`` does, under its scope.

    Raises:
        UserError: for what the config has no place for, or that would change nothing.
    """
    if DefaultScope.get_current_instance() is None:
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    with user_errors('--cfg-options'):
        check_overrides(cfg, overrides)
        cfg.merge_from_dict(overrides)


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
        if not isinstance(epochs, int):
            return  # refused by `check_length`
        fitting = epochs - scheduler.get('begin', 0)
        if length != fitting and f'{name}.T_max' not in overrides:
            print(
                f'note: train_cfg.max_epochs={epochs}, but the rate falls over {length} epochs: '
                f'add {name}.T_max={fitting} to let it fall over the whole training'
            )


def _datasets(cfg: Config) -> list[ConfigDict]:
    """The innermost data sets of each split, inside whatever wrappers."""
    loaders = (cfg.get(f'{split}_dataloader') for split in SPLITS)
    return [leaf for loader in loaders if loader for leaf in leaf_datasets(loader.dataset)]


@contextmanager
def _say_layout(dataset: ConfigDict) -> Iterator[None]:
    """Add to what MMPretrain says of a folder that it cannot read how the folder should look."""
    layout = ZOO_LAYOUTS.get(short_type(dataset))
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
    cfg: Config,
    splits: tuple[str, ...],
    overrides: dict | None = None,
    checkpoint: tuple[str, Sequence[str] | None] | None = None,
) -> dict[str, object]:
    """Build the data sets, so that what is wrong with them is said first; fit the model to them.

    The number of classes of the head is counted in the data, unless ``--cfg-options`` gives one.

    Args:
        cfg: changed in place.
        splits: which of 'train', 'val', 'test' will be used.
        overrides: what the user gave by ``--cfg-options``.
        checkpoint: path of a checkpoint that the data have to fit, and the names of its classes.
            Data whose classes are the same in another order are read in the checkpoint's order,
            where the data set can do that.

    Returns:
        The built data sets by split.

    Raises:
        UserError: if a data set cannot be built, or has other classes than demanded.
    """
    built = _build_datasets(cfg, splits)
    if not built:
        raise UserError(f'the config has no data for {" or ".join(splits)}')
    path, theirs = checkpoint or ('', None)
    if theirs and any(_reordered(theirs, d) for d in built.values()):
        for dataset in _datasets(cfg):
            if short_type(dataset) == FineGrainedImages.__name__:
                dataset.metainfo = dict(dataset.get('metainfo') or {}, classes=list(theirs))
        built = _build_datasets(cfg, splits)
        print(f'note: the classes of the data are put in the order of checkpoint {path!r}, by name')
    names = {s: tuple(d.metainfo['classes']) for s, d in built.items() if _names(d)}
    for split, ours in names.items():
        if theirs:
            owner, hint = f'checkpoint {path!r}', 'use the data it was trained on'
            check_same_classes(theirs, ours, owner, f'the {split} data', hint)
    first = next(iter(names), None)
    for split in names:
        check_same_classes(names[first], names[split], f'the {first} data', f'the {split} data')
    head = cfg.model.get('head') or {}
    if first is None or 'num_classes' not in head:
        return built
    count = len(names[first])
    _limit_topk(cfg, count)
    demanded = (overrides or {}).get('model.head.num_classes')
    if demanded is not None and demanded != count:
        raise UserError(f'model.head.num_classes={demanded}, but the data have {count} classes')
    if head.num_classes != count:
        print(f'num_classes: {count}, counted in the data (the config says {head.num_classes})')
        head.num_classes = count
        if 'data_preprocessor' in cfg and 'num_classes' in cfg.data_preprocessor:
            cfg.data_preprocessor.num_classes = count
    return built


def _limit_topk(cfg: Config, count: int) -> None:
    """Leave out accuracies among more classes than there are, as the top five of three."""
    for split in SPLITS:
        evaluator = cfg.get(f'{split}_evaluator') or {}
        for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
            topk = metric.get('topk') if isinstance(metric, dict) else None
            if isinstance(topk, (list, tuple)) and any(k > count for k in topk):
                metric.topk = tuple(k for k in topk if k <= count) or (1,)
                print(f'note: {split}_evaluator.topk={metric.topk}: there are {count} classes')


def _build_datasets(cfg: Config, splits: tuple[str, ...]) -> dict[str, object]:
    built = {}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            with user_errors(f'{split} data'), _say_layout(loader.dataset):
                built[split] = DATASETS.build(loader.dataset)
                if len(built[split]) == 0:
                    raise UserError(f'the {split} data are empty')
    return built


def _names(dataset: object) -> tuple[str, ...]:
    """The names of a data set's classes; none if it has none."""
    return tuple((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())


def _reordered(theirs: Sequence[str], dataset: object) -> bool:
    ours = _names(dataset)
    return tuple(theirs) != ours and set(theirs) == set(ours)


def check_model(cfg: Config) -> nn.Module:
    """Build the model once, before the runner creates its folder.

    Raises:
        UserError: if the config's model cannot be built.
    """
    model_cfg = ConfigDict(cfg.model.to_dict())
    if cfg.get('data_preprocessor'):
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    with harmless_checkpoints(), user_errors('model'):
        return MODELS.build(model_cfg)


def check_images(cfg: Config, built: dict[str, object]) -> None:
    """Decode every image file of the data once, so that all broken ones are said before the work.

    Data sets say what else is remarkable about their folder. What another loader reads than
    `LoadImage` is left to it.

    Args:
        cfg: the config.
        built: its data sets by split.

    Raises:
        UserError: naming the broken files.
    """
    data = []
    for split, dataset in built.items():
        for note in getattr(dataset, 'notes', ()):
            print(f'note: {note}')
        leaves = leaf_datasets(cfg[f'{split}_dataloader'].dataset)
        loaders = {short_type(step) for leaf in leaves for step in leaf.get('pipeline') or ()}
        if LoadImage.__name__ in loaders and hasattr(dataset, 'get_data_info'):
            data.append(dataset)
    with tqdm(desc='reading images', unit='', leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        check_readable(*data, progress=progress)


def check_input(model: nn.Module, dataset: object) -> None:
    """Run the backbone on one image as the pipeline gives it.

    Raises:
        UserError: if it does not take images of that size or number of channels.
    """
    with user_errors('data'):
        batch = pseudo_collate([dataset[0]])
        inputs = model.data_preprocessor(batch, training=False)['inputs']
    try:
        with torch.no_grad(), in_testing(model):
            (model.extract_feat if hasattr(model, 'extract_feat') else model)(inputs)
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        reason = _one_line(error)[:200].rstrip('.')
        raise UserError(
            f'model.backbone does not run on images of {tuple(inputs.shape[1:])}, as the pipeline '
            f'gives them: {reason}; give other sizes in the pipelines (scale, crop_size), or '
            f'model.backbone.img_size={inputs.shape[-1]} where the network takes it'
        ) from error


def prepare_loaders(cfg: Config) -> None:
    """Defaults of the data loaders, and new random numbers for their workers every epoch."""
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', False)
            loader.setdefault('worker_init_fn', ConfigDict(type='fgplugins.seed_worker'))
            loader.setdefault('collate_fn', ConfigDict(type='default_collate'))


# ---------------------------------------------------------------------------------- how it is run


def add_hooks(cfg: Config) -> None:
    """The hooks that every training has, whatever its config."""
    hooks = list(cfg.get('custom_hooks') or [])
    known = {short_type(hook) for hook in hooks if isinstance(hook, dict)}
    for name in ('FiniteGradientHook', 'WorkFolderHook'):
        if name not in known:
            hooks.append(ConfigDict(type=f'fgplugins.{name}'))
    cfg.custom_hooks = hooks


def check_length(cfg: Config) -> None:
    """Refuse a training without a step.

    Raises:
        UserError: naming the setting.
    """
    for key in ('max_epochs', 'max_iters', 'val_interval'):
        length = (cfg.get('train_cfg') or {}).get(key)
        if length is not None and (type(length) is not int or length < 1):
            raise UserError(f'train_cfg.{key}={length!r}: must be a whole number, 1 or more')
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader') or {}
        for key, least in (('batch_size', 1), ('num_workers', 0)):
            number = loader.get(key)
            if number is not None and (type(number) is not int or number < least):
                raise UserError(
                    f'{split}_dataloader.{key}={number!r}: must be a whole number, {least} or more'
                )


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
    cfg.env_cfg = cfg.get('env_cfg') or {}
    cfg.env_cfg.setdefault('dist_cfg', {})['backend'] = 'gloo'
    cfg.model_wrapper_cfg = ConfigDict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
    )


def is_main_process() -> bool:
    """Whether this is the first process, also before the others are met."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return get_dist_info()[0] == 0
    return int(os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or 0) == 0
