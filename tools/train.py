"""Train a model from a config.

python tools/train.py configs/warn_cnn_digits.py
python tools/train.py configs/warn_r50_cub.py --data-root ~/birds --pretrained
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import os
from contextlib import nullcontext
from pathlib import Path

from fgplugins.errors import UserError
from fgplugins.utils.command_line import main_guard, need_room

need_room('fgplugins.zoo_mmpretrain')

from mmengine.registry import RUNNERS
from mmengine.runner import IterBasedTrainLoop, Runner

from fgplugins.zoo_mmpretrain.running import checkpoints, configs, work_folder
from fgplugins.zoo_mmpretrain.running.settings import drop_pretrained, short_type


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    configs.add_config_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a path, from the newest one in the work directory',
    )
    parser.add_argument(
        '--pretrained',
        nargs='?',
        const='config',
        metavar='WEIGHTS',
        help="start the backbone from a file or URL; without one, from the config's published "
        'weights, which are then downloaded',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--seed', type=int, help='seed of everything random (0)')
    parser.add_argument('--no-validate', action='store_true', help='do not test after each epoch')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the rate by batch size and processes'
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='see README'
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by launchers'
    )
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def has_published_weights(name: str) -> bool:
    """Whether timm knows where weights of a network are."""
    import timm

    if ':' in name:
        return True  # a hub's, or a folder's
    found = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return bool(found and found.has_weights)


def set_pretrained(cfg: configs.Config, weights: str | None) -> dict | None:
    """Start the backbone from given or published weights, or say that it starts from none.

    Returns:
        The weights of a file by name, to be checked against the backbone once it is built.
    """
    published, backbone = cfg.get('pretrained_weights'), cfg.model.get('backbone') or {}
    is_timms = short_type(backbone) == 'TIMMBackbone'
    if is_timms and published is None and has_published_weights(backbone.get('model_name')):
        published = f"timm's weights of {backbone.model_name}"
    if weights is None:
        if published and not any(backbone.get(key) for key in ('init_cfg', 'pretrained')):
            print(
                'note: the backbone starts from random weights; --pretrained downloads '
                f'{published}, --pretrained FILE loads a file'
            )
        return None
    if weights == 'config' and is_timms and published:
        backbone.pretrained = True  # timm knows where they are
        return None
    source = published if weights == 'config' else weights
    if source is None:
        raise UserError('--pretrained: this config names no weights; give a file or URL')
    if '://' in source:
        if is_timms:
            backbone.pretrained = True
            backbone.pretrained_cfg_overlay = dict(url=source, hf_hub_id=None)
        else:
            backbone.init_cfg = dict(type='Pretrained', checkpoint=source)
        return None
    if not Path(source).is_file():
        raise UserError(f'--pretrained {source!r} is not a file')
    content = checkpoints.weights_of(checkpoints.read_checkpoint(source))
    if any(key.startswith('backbone.') for key in content):  # of a run of ours or of the zoo
        backbone.init_cfg = dict(type='Pretrained', checkpoint=source, prefix='backbone.')
        return {k.removeprefix('backbone.'): v for k, v in content.items()}
    if is_timms:
        backbone.pretrained = True
        backbone.pretrained_cfg_overlay = dict(file=source)
    else:
        backbone.init_cfg = dict(type='Pretrained', checkpoint=source)
    return content


def check_pretrained(weights: dict, backbone: configs.nn.Module, source: str) -> None:
    """Refuse a file that lacks a weight of the backbone or has it in another shape.

    Loaders of both zoos skip such weights without a word. timm flattens some names.
    """

    def plain(key: str) -> str:
        for prefix in ('timm_model.', 'model.'):
            key = key.removeprefix(prefix)
        return key.replace('_', '.')

    given = {plain(k): v.shape for k, v in weights.items()}
    for key, value in backbone.state_dict().items():
        if given.get(plain(key)) != value.shape:
            has = 'lacks it' if plain(key) not in given else f'has {tuple(given[plain(key)])}'
            raise UserError(
                f'--pretrained {source!r} does not fit the backbone: {key} is '
                f'{tuple(value.shape)}, the file {has}'
            )


def has_initial_weights(settings: object) -> bool:
    """Whether a model's config names a checkpoint that a part of it starts from."""
    if isinstance(settings, (list, tuple)):
        return any(has_initial_weights(part) for part in settings)
    if not isinstance(settings, dict):
        return False
    if short_type(settings) == 'Pretrained' or settings.get('pretrained'):
        return True
    return any(has_initial_weights(part) for part in settings.values())


def find_resume(cfg: configs.Config, resume: str | None) -> str | None:
    """The checkpoint to go on from."""
    if resume is None:
        return cfg.get('load_from')
    cfg.resume = True
    if resume == 'auto':
        found = work_folder.latest_checkpoint(cfg.work_dir)
        if found is None:
            print(f'note: no checkpoint in {cfg.work_dir} to resume from; starting anew')
        resume = None if found is None else str(found)
    cfg.load_from = resume
    return resume


def check_resume(content: dict, path: str, cfg: configs.Config) -> None:
    """Refuse a checkpoint that this training cannot go on from.

    Raises:
        UserError: if it holds no more than weights, or counted epochs where the config counts
            iterations, or the other way round.
    """
    lacking = [key for key in ('optimizer', 'message_hub') if key not in content]
    meta = content.get('meta')
    if lacking or not isinstance(meta, dict) or not {'epoch', 'iter'} <= set(meta):
        raise UserError(
            f'--resume {path!r}: it holds weights, but not the state of a training: start from it '
            f'by --cfg-options load_from={path}'
        )
    by_iterations = bool(cfg.train_cfg.get('max_iters'))
    saved = checkpoints.counts_iterations(content)
    if saved is not None and saved != by_iterations:
        units = ('iterations', 'epochs') if saved else ('epochs', 'iterations')
        raise UserError(
            f'--resume {path!r}: its training counted {units[0]}, the config counts {units[1]}: '
            'use the config that was saved in its folder'
        )


def check_sources(cfg: configs.Config, *files: str | None) -> None:
    """Refuse to start from a file that the new run would set aside.

    Raises:
        UserError: naming the file.
    """
    for file in files:
        inside = file and Path(file).resolve().parent == Path(cfg.work_dir).resolve()
        if inside and work_folder.is_result(Path(file)):
            raise UserError(
                f'{file} lies in the work folder of this run, which sets such files aside: give '
                'another --work-dir'
            )


def is_finished(cfg: configs.Config, meta: dict) -> bool:
    """Whether a checkpoint is of the last epoch, or iteration, that the config asks for."""
    key = 'iter' if cfg.train_cfg.get('max_iters') else 'epoch'
    return meta[key] >= (cfg.train_cfg.get(f'max_{key}s') or float('inf'))


def print_summary(runner: Runner) -> None:
    """What came out, and where it lies."""
    folder = Path(runner.work_dir)
    tested = runner.val_loop.dataloader.dataset if runner.val_loop else None
    data = 'validation' if getattr(tested, 'choice', {}).get('split') == 'val' else 'test'
    loop = runner.train_loop
    unit = 'iteration' if isinstance(loop, IterBasedTrainLoop) else 'epoch'
    count = runner.iter if unit == 'iteration' else runner.epoch
    end = f'after the last {unit} ({count})'
    when = f'on the {data} data {end}'
    lines = [] if runner.val_loop else [f'not tested {end}: there is no validation']
    for name, scalar in runner.message_hub.log_scalars.items():
        if name == 'val/accuracy/top1':
            lines.append(f'top-1 {when}: {scalar.current():.2f} %')
        elif name.startswith('val/') and name.count('/') > 1:  # val/time and its kin have one
            lines.append(f'{name.removeprefix("val/")} {when}: {scalar.current():.2f}')
    files = {
        'checkpoint': work_folder.latest_checkpoint(folder),
        'log': Path(runner.log_dir) / f'{runner.timestamp}.log',
        'attention maps': folder / 'attention_maps.png',
    }
    lines += [f'{name}: {path}' for name, path in files.items() if path and path.exists()]
    print('\n' + '\n'.join(lines))


def build_runner(cfg: configs.Config) -> Runner:
    """Mmengine's runner, with what ``train()`` would build already built: mistakes are the user's.

    What it saves of the config does not say where the initial weights came from: the checkpoints
    hold them.
    """
    with configs.user_errors('runner'):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    with configs.user_errors('train_cfg'):
        _ = runner.train_loop
    with configs.user_errors('val_evaluator'):
        _ = runner.val_loop
    with configs.user_errors('optim_wrapper'):
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    drop_pretrained(runner.cfg.model)
    if configs.is_main_process():
        runner.dump_config()
    return runner


def train(cfg: configs.Config, finished: bool, resuming: bool) -> None:
    """Train, or test once more what is trained already."""
    main_process = configs.is_main_process()
    saved = work_folder.saved_configs(cfg.work_dir)
    with checkpoints.harmless_checkpoints():
        runner = build_runner(cfg)
        if main_process and not resuming:
            aside = work_folder.set_earlier_aside(cfg.work_dir, saved, runner.timestamp)
            if aside:
                print(f'note: the files of an earlier run are set aside in {aside}')
        with configs.logged_errors(runner):
            try:
                if not finished:
                    runner.train()
                elif runner.val_loop is not None:
                    runner.val()
                else:
                    runner.load_or_resume()
            except KeyboardInterrupt:
                print(
                    f'\ninterrupted in epoch {runner.epoch + 1}; finished epochs are in '
                    f'{runner.work_dir}; go on with --resume and the same arguments'
                )
                raise
    if main_process:
        print_summary(runner)


def main() -> None:
    args = parse_args()
    cfg = configs.load_config(args)
    configs.check_length(cfg)
    configs.set_launcher(cfg, args.launcher)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=args.seed)
    if args.amp:
        configs.set_amp(cfg)
    if args.auto_scale_lr:
        if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
            raise UserError(
                '--auto-scale-lr: the config does not say for which batch size its rate is: '
                'auto_scale_lr=dict(base_batch_size=256)'
            )
        cfg.auto_scale_lr.enable = True
    configs.prepare_loaders(cfg)
    configs.add_hooks(cfg)
    checkpoint = find_resume(cfg, args.resume)
    resuming = bool(checkpoint and cfg.get('resume'))
    if resuming:
        drop_pretrained(cfg.model)  # the checkpoint has all of its own
    weights = None if resuming else set_pretrained(cfg, args.pretrained)

    # everything that can be wrong is tried before a file is written
    content, known = checkpoints.read_checkpoint(checkpoint) if checkpoint else {}, None
    if resuming:
        check_resume(content, checkpoint, cfg)
        known = checkpoint, checkpoints.class_names(content)
    else:
        check_sources(cfg, checkpoint, args.pretrained)
    data = configs.match_classes(cfg, ('train', 'val'), args.cfg_options, known)
    if configs.is_main_process():
        configs.check_images(cfg, data)
    model = configs.check_model(cfg)
    for dataset in data.values():
        configs.check_input(model, dataset)
    if weights is not None:
        check_pretrained(weights, model.backbone, args.pretrained)
    elif not resuming and has_initial_weights(cfg.model):
        what = '--pretrained' if args.pretrained else 'model.init_cfg'
        with checkpoints.harmless_checkpoints(), configs.user_errors(what):
            model.init_weights()  # reads, or downloads
    if checkpoint:
        checkpoints.check_checkpoint(content, checkpoint, model, complete=resuming)
    finished = resuming and is_finished(cfg, content['meta'])
    if finished:
        unit = 'iteration' if cfg.train_cfg.get('max_iters') else 'epoch'
        count = content['meta'][unit.replace('iteration', 'iter')]
        print(f'note: {checkpoint} is of the last {unit} already ({count}): its result')
    del model, content
    with work_folder.one_run(cfg.work_dir) if configs.is_main_process() else nullcontext():
        train(cfg, finished, resuming)


if __name__ == '__main__':
    main_guard(main)
