"""Train a model from a config.

python tools/train.py configs/warn_cnn_digits.py
python tools/train.py configs/warn_r50_cub.py --data-root ~/birds --pretrained
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from fgplugins.cli import main_guard, need_mmpretrain
from fgplugins.errors import UserError

need_mmpretrain()

from mmengine.registry import RUNNERS  # noqa: E402
from mmengine.runner import Runner, find_latest_checkpoint  # noqa: E402

from fgplugins.zoo_mmpretrain import running  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    running.add_config_arguments(parser)
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


def set_pretrained(cfg: running.Config, weights: str | None) -> dict | None:
    """Start the backbone from given or published weights, or say that it starts from none.

    Returns:
        The weights of a file by name, to be checked against the backbone once it is built.
    """
    published, backbone = cfg.get('pretrained_weights'), cfg.model.backbone
    if weights is None:
        if published and 'init_cfg' not in backbone:
            print(
                'note: the backbone starts from random weights; --pretrained loads '
                f'{published}, --pretrained FILE loads a file'
            )
        return None
    source = published if weights == 'config' else weights
    if source is None:
        raise UserError('--pretrained: this config names no weights; give a file or URL')
    if '://' in source:
        if backbone.type == 'TIMMBackbone':
            raise UserError('--pretrained of a TIMMBackbone takes a file; or set pretrained=True')
        backbone.init_cfg = dict(type='Pretrained', checkpoint=source)
        return None
    if not Path(source).is_file():
        raise UserError(f'--pretrained {source!r} is not a file')
    content = running.read_checkpoint(source)
    content = content.get('state_dict', content)
    if any(key.startswith('backbone.') for key in content):  # of a run of ours or of the zoo
        backbone.init_cfg = dict(type='Pretrained', checkpoint=source, prefix='backbone.')
        return {k.removeprefix('backbone.'): v for k, v in content.items()}
    if backbone.type == 'TIMMBackbone':
        backbone.pretrained = True
        backbone.pretrained_cfg_overlay = dict(file=source)
    else:
        backbone.init_cfg = dict(type='Pretrained', checkpoint=source)
    return content


def check_pretrained(weights: dict, backbone: running.nn.Module, source: str) -> None:
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


def find_resume(cfg: running.Config, resume: str | None) -> str | None:
    """The checkpoint to go on from."""
    if resume is None:
        return cfg.get('load_from')
    cfg.resume = True
    if resume == 'auto':
        found = find_latest_checkpoint(cfg.work_dir) if Path(cfg.work_dir).is_dir() else None
        if found is None:
            print(f'note: no checkpoint in {cfg.work_dir} to resume from; starting anew')
        cfg.load_from = None
        return found
    cfg.load_from = resume
    return resume


def print_summary(runner: Runner) -> None:
    """What came out, and where it lies."""
    folder = Path(runner.work_dir)
    scalars = runner.message_hub.log_scalars
    lines, when = [], f'on the test data after the last epoch ({runner.epoch})'
    if 'val/accuracy/top1' in scalars:
        lines.append(f'top-1 {when}: {scalars["val/accuracy/top1"].current():.2f} %')
    else:
        for name in scalars:
            if name.startswith('val/') and name.count('/') > 1:  # val/time and its kin have one
                lines.append(f'{name.removeprefix("val/")} {when}: {scalars[name].current():.2f}')
    latest = find_latest_checkpoint(runner.work_dir)
    files = {
        'checkpoint': Path(latest) if latest else None,
        'log': Path(runner.log_dir) / f'{runner.timestamp}.log',
        'attention maps': folder / 'attention_maps.png',
    }
    lines += [f'{name}: {path}' for name, path in files.items() if path and path.exists()]
    print('\n' + '\n'.join(lines))


def main() -> None:
    args = parse_args()
    cfg = running.load_config(args)
    running.set_launcher(cfg, args.launcher)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=args.seed)
    if args.amp:
        running.set_amp(cfg)
    if args.auto_scale_lr:
        cfg.auto_scale_lr.enable = True
    running.prepare_loaders(cfg)
    weights = set_pretrained(cfg, args.pretrained)

    # everything that can be wrong is tried before a file is written
    running.match_classes(cfg, ('train', 'val'), args.cfg_options)
    model = running.check_model(cfg)
    if weights is not None:
        check_pretrained(weights, model.backbone, args.pretrained)
    elif args.pretrained:
        with running.user_errors('--pretrained'):
            model.init_weights()  # downloads
    checkpoint = find_resume(cfg, args.resume)
    if checkpoint:
        running.check_checkpoint(checkpoint, model, complete=bool(cfg.get('resume')))
    del model

    with running.harmless_checkpoints():
        with running.user_errors('runner'):
            runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        # what train() would build is built here, where mistakes are the user's
        with running.user_errors('train_cfg'):
            _ = runner.train_loop
        with running.user_errors('optim_wrapper'):
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        try:
            runner.train()
        except KeyboardInterrupt:
            print(
                f'\ninterrupted in epoch {runner.epoch + 1}; finished epochs are in '
                f'{runner.work_dir}; go on with --resume and the same arguments'
            )
            raise
    if running.is_main_process():
        print_summary(runner)


if __name__ == '__main__':
    main_guard(main)
