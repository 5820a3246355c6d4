"""Test a trained model.

python tools/test.py configs/warn_cnn_digits.py work_dirs/warn_cnn_digits/epoch_10.pth
python tools/test.py configs/siou_r50_cub.py work_dirs/siou_r50_cub/epoch_90.pth --terms
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import json
import math
import os
from pathlib import Path

from fgplugins.errors import UserError
from fgplugins.utils.command_line import check_outputs, main_guard, need_room

need_room('fgplugins.zoo_mmpretrain')

from mmengine.evaluator import DumpResults
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from fgplugins.zoo_mmpretrain import evaluation
from fgplugins.zoo_mmpretrain.running import checkpoints, configs
from fgplugins.zoo_mmpretrain.running.settings import drop_pretrained


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    configs.add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='write every prediction to this .pkl file')
    parser.add_argument('--json', metavar='FILE', help='write the metrics and terms to this file')
    parser.add_argument(
        '--terms', action='store_true', help="also print the mean of each term of the method's loss"
    )
    views = parser.add_mutually_exclusive_group()
    views.add_argument(
        '--tta',
        action='store_true',
        help="average the scores of the config's tta_pipeline (ten crops for ImageNet); without "
        'one, of the image and its mirror image',
    )
    views.add_argument(
        '--uncropped',
        action='store_true',
        help='whole images, one at a time: leave out the crop of the test pipeline',
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


def check_args(args: argparse.Namespace) -> None:
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {args.out}: must end in .pkl')
    check_outputs(args, 'out', 'json')
    if args.terms and args.tta:
        raise UserError('--terms is of one view of each image: run it without --tta')
    if args.terms and args.launcher != 'none':
        raise UserError('--terms runs in one process: run it without --launcher')


def plain(value: object) -> object:
    """A metric as JSON has it, which knows neither tensors nor NumPy's numbers, nor NaN."""
    if hasattr(value, 'tolist'):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (bool, str, type(None))) else str(value)


def shown(value: object, digits: int) -> str:
    """A metric in one line; a table in lines of its own."""
    if isinstance(value, list) and any(isinstance(row, list) for row in value):
        return '\n' + '\n'.join(shown(row, digits) for row in value)
    if isinstance(value, list):
        return ', '.join(shown(v, digits) for v in value)
    if isinstance(value, float):
        return f'{value:.{digits}f}'
    return 'nan' if value is None else str(value)


def print_numbers(numbers: dict[str, object], digits: int) -> None:
    for name, value in numbers.items():
        print(f'{name}: {shown(plain(value), digits)}')


def main() -> None:
    args = parse_args()
    check_args(args)
    cfg = configs.load_config(args)
    if not args.work_dir:
        cfg.work_dir = str(Path(cfg.work_dir) / 'test')  # a training's own files stay as they are
    configs.set_launcher(cfg, args.launcher)
    configs.prepare_loaders(cfg)
    if args.uncropped:
        evaluation.set_uncropped(cfg)
    if not args.terms:
        evaluation.set_deployed(cfg)
    drop_pretrained(cfg.model)  # the checkpoint has all of its own
    content = checkpoints.read_checkpoint(args.checkpoint)
    known = (args.checkpoint, checkpoints.class_names(content))
    data = configs.match_classes(cfg, ('test',), args.cfg_options, known)
    if configs.is_main_process():
        configs.check_images(cfg, data)
    model = configs.check_model(cfg)
    configs.check_input(model, data['test'])
    checkpoints.check_checkpoint(content, args.checkpoint, model)
    del model
    if args.tta:
        evaluation.set_tta(cfg)

    cfg.load_from, cfg.resume = args.checkpoint, False
    with checkpoints.harmless_checkpoints():
        with configs.user_errors('runner'):
            runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        with configs.user_errors('test_evaluator'):
            _ = runner.test_loop
        if args.out:
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        with configs.logged_errors(runner):
            metrics = runner.test()
    terms = evaluation.mean_terms(runner.model, runner.test_dataloader) if args.terms else {}
    if configs.is_main_process():
        print()
        print_numbers(metrics, digits=2)
        if terms:
            print('\nterms of the loss, mean over the test images:')
            print_numbers(terms, digits=4)
        if args.json:
            content = {
                'config': args.config,
                'checkpoint': args.checkpoint,
                'views': 'tta' if args.tta else 'uncropped' if args.uncropped else 'one',
                'metrics': {k: plain(v) for k, v in metrics.items()},
                'terms': {k: plain(v) for k, v in terms.items()},
            }
            Path(args.json).write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main_guard(main)
