"""Train a model from a config.

python tools/train.py configs/warn_cnn_digits.py
python tools/train.py configs/warn_r50_cub.py --data-root ~/birds --pretrained
python tools/train.py configs/warn_r50_cub.py --data-root ~/birds --pretrained --control
python tools/train.py configs/warn_r50_cub.py --data-root ~/birds --backbone convnext_tiny
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from fgplugins.utils.arguments import add_config_arguments, add_launcher_arguments
from fgplugins.utils.command_line import (
    check_output_folder,
    command_parser,
    main_guard,
    require_module,
)
from fgplugins.utils.run_arguments import (
    add_choice_arguments,
    add_display_arguments,
    add_run_arguments,
    add_tracking_arguments,
)

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import Tensor


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser)
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
    parser.add_argument(
        '--backbone',
        metavar='NAME',
        help="any network of timm in place of the config's: its levels, mean and deviation, and "
        'its size of images where it takes one only',
    )
    parser.add_argument(
        '--control',
        action='store_true',
        help="train the network itself by the config's recipe, without its method",
    )
    parser.add_argument(
        '--val-share',
        type=float,
        metavar='SHARE',
        help="validate on this share of each class's training images, as 0.1, where the folder has "
        'no val/; the test images are left to tools/test.py',
    )
    add_run_arguments(parser)
    add_choice_arguments(parser)
    add_tracking_arguments(parser)
    add_display_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--seed', type=int, help='seed of everything random (0)')
    parser.add_argument('--no-validate', action='store_true', help='do not test after each epoch')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the rate by batch size and processes'
    )
    add_launcher_arguments(parser)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def prepare_config(args: argparse.Namespace) -> Config:
    from fgplugins.zoo_mmpretrain.running import (
        choosing,
        configs,
        data,
        launching,
        options,
        tracking,
    )

    options.set_device(args.device)
    cfg = configs.load_config(args)
    check_output_folder('--work-dir', cfg.work_dir)
    launching.check_length(cfg)
    launching.set_launcher(cfg, args.launcher)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=args.seed)
    if args.amp:
        launching.set_amp(cfg)
    if args.auto_scale_lr:
        launching.set_rate_scaling(cfg)
    choosing.set_choices(cfg, args.save_best, args.early_stop)
    for note in tracking.set_tracking(cfg, args.track):
        print(f'note: {note}')
    data.prepare_loaders(cfg)
    launching.add_hooks(cfg)
    return cfg


def choose_start(cfg: Config, args: argparse.Namespace) -> dict[str, Tensor] | None:
    """Settle what the training starts from; the weights of a file are read to be checked."""
    from fgplugins.zoo_mmpretrain.running import initial_weights, resuming

    resuming.set_resume(cfg, args.resume)
    if resuming.is_resumed(cfg):
        initial_weights.drop_pretrained(cfg.model)  # the checkpoint has all of its own
        return None
    return initial_weights.set_pretrained(cfg, args.pretrained)


def check_run(cfg: Config, args: argparse.Namespace, weights: dict[str, Tensor] | None) -> bool:
    """Try all that can be wrong before a file is written; whether the training is finished."""
    from fgplugins.zoo_mmpretrain.running import (
        checkpoints,
        data,
        initial_weights,
        launching,
        models,
        resuming,
    )

    checkpoint, resumed = cfg.get('load_from'), resuming.is_resumed(cfg)
    content, known = checkpoints.read_checkpoint(checkpoint) if checkpoint else {}, None
    if resumed:
        resuming.check_resume(content, checkpoint, cfg)
        known = checkpoint, checkpoints.class_names(content)
    else:
        resuming.check_sources(cfg, checkpoint, args.pretrained)
    built = data.match_classes(cfg, ('train', 'val'), args.cfg_options, known)
    if launching.is_main_process():
        data.check_images(cfg, built)
    model = models.check_model(cfg)
    for dataset in built.values():
        models.check_input(model, dataset)
    if not resumed:
        initial_weights.check_initial_weights(cfg, model, weights, args.pretrained)
    if checkpoint:
        left_out = () if resumed else cfg.get('pretrained_leaves_out') or ()
        complete = resumed or bool(left_out)
        checkpoints.check_checkpoint(content, checkpoint, model, complete, left_out=left_out)
    return resumed and resuming.is_finished(cfg, content['meta'], checkpoint)


def main() -> None:
    args = parse_args()
    require_module('fgplugins.zoo_mmpretrain')

    from fgplugins.zoo_mmpretrain.running import launching, terminal, training, work_folder

    with terminal.preparing(args.display):
        cfg = prepare_config(args)
        weights = choose_start(cfg, args)
        finished = check_run(cfg, args, weights)
    writes = launching.is_main_process()
    with work_folder.only_run_in(cfg.work_dir) if writes else nullcontext():
        training.train(cfg, finished, args.display)


if __name__ == '__main__':
    main_guard(main)
