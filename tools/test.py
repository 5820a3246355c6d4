"""Test a trained model.

python tools/test.py configs/warn_cnn_digits.py work_dirs/warn_cnn_digits/epoch_10.pth
python tools/test.py configs/siou_r50_cub.py work_dirs/siou_r50_cub/epoch_90.pth --terms
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fgplugins.errors import UserError
from fgplugins.utils.arguments import add_config_arguments, add_launcher_arguments
from fgplugins.utils.command_line import (
    check_output_folder,
    check_outputs,
    command_parser,
    main_guard,
    require_module,
)
from fgplugins.utils.run_arguments import add_display_arguments

if TYPE_CHECKING:
    from mmengine.config import Config

    from fgplugins.zoo_mmpretrain.running.results import Predictions


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out',
        metavar='DIR',
        help='folder for the tables and pictures of the results (one in the work folder); a name '
        'that ends in .pkl: also write every prediction to that file',
    )
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
    add_display_arguments(parser)
    add_launcher_arguments(parser)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def is_dump(out: str | None) -> bool:
    """Whether ``--out`` names a file for every prediction, rather than a folder."""
    return bool(out) and out.endswith(('.pkl', '.pickle'))


def check_args(args: argparse.Namespace) -> None:
    check_outputs(args, 'json', *(['out'] if is_dump(args.out) else []))
    if args.terms and args.tta:
        raise UserError('--terms is of one view of each image: run it without --tta')
    if args.terms and args.launcher != 'none':
        raise UserError('--terms runs in one process: run it without --launcher')


def prepare_config(args: argparse.Namespace) -> Config:
    from fgplugins.zoo_mmpretrain import evaluation
    from fgplugins.zoo_mmpretrain.running import choosing, configs, data, launching, tracking
    from fgplugins.zoo_mmpretrain.running.initial_weights import drop_pretrained

    cfg = configs.load_config(args)
    if not args.work_dir:
        cfg.work_dir = str(Path(cfg.work_dir) / 'test')  # a training's own files stay as they are
    launching.set_launcher(cfg, args.launcher)
    data.prepare_loaders(cfg)
    if args.uncropped:
        evaluation.set_uncropped(cfg)
    if not args.terms:
        evaluation.set_deployed(cfg)
    choosing.drop_early_stop(cfg)
    tracking.drop_tracking(cfg)
    drop_pretrained(cfg.model)  # the checkpoint has all of its own
    return cfg


def results_folder(cfg: Config, args: argparse.Namespace) -> Path:
    """Where the tables and pictures go: to ``--out``, or a folder named by the checkpoint."""
    if args.out and not is_dump(args.out):
        return check_output_folder('--out', args.out)
    folder = Path(cfg.work_dir) / Path(args.checkpoint).stem
    return check_output_folder('--work-dir', folder)


def check_run(cfg: Config, args: argparse.Namespace) -> None:
    """Try all that can be wrong before a file is written."""
    from fgplugins.zoo_mmpretrain import evaluation
    from fgplugins.zoo_mmpretrain.running import checkpoints, data, launching, models

    content = checkpoints.read_checkpoint(args.checkpoint)
    known = (args.checkpoint, checkpoints.class_names(content))
    built = data.match_classes(cfg, ('test',), args.cfg_options, known)
    if launching.is_main_process():
        data.check_images(cfg, built)
    model = models.check_model(cfg)
    models.check_input(model, built['test'])
    checkpoints.check_checkpoint(content, args.checkpoint, model)
    if args.tta:
        evaluation.set_tta(cfg)


def run_test(cfg: Config, args: argparse.Namespace) -> tuple[dict, dict, Predictions]:
    """The metrics, the terms of the loss where they are asked for, and what was predicted."""
    from mmengine.evaluator import DumpResults

    from fgplugins.zoo_mmpretrain import evaluation
    from fgplugins.zoo_mmpretrain.running import checkpoints, launching, progress, results
    from fgplugins.zoo_mmpretrain.running.errors import logged_errors, user_errors

    cfg.load_from, cfg.resume = args.checkpoint, False
    kept = results.Predictions()
    with checkpoints.harmless_checkpoints():
        runner = launching.build_runner(cfg, args.display)
        with user_errors('test_evaluator'):
            _ = runner.test_loop
        kept.dataset = runner.test_dataloader.dataset
        runner.test_evaluator.metrics.append(kept)
        if is_dump(args.out):
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        with logged_errors(runner), progress.showing(runner, args.display):
            metrics = runner.test()
    terms = evaluation.mean_terms(runner.model, runner.test_dataloader) if args.terms else {}
    return metrics, terms, kept


def report(
    args: argparse.Namespace,
    metrics: dict,
    terms: dict,
    predictions: Predictions,
    folder: Path,
) -> None:
    from fgplugins.zoo_mmpretrain.running import results
    from fgplugins.zoo_mmpretrain.running.reporting import as_json, print_numbers

    print()
    print_numbers(metrics, digits=2)
    if terms:
        print('\nterms of the loss, mean over the test images:')
        print_numbers(terms, digits=4)
    files = results.report(predictions, folder)
    if args.json:
        content = {
            'config': args.config,
            'checkpoint': args.checkpoint,
            'views': 'tta' if args.tta else 'uncropped' if args.uncropped else 'one',
            'metrics': {k: as_json(v) for k, v in metrics.items()},
            'terms': {k: as_json(v) for k, v in terms.items()},
            'files': [str(file) for file in files],
        }
        Path(args.json).write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')


def main() -> None:
    args = parse_args()
    check_args(args)
    require_module('fgplugins.zoo_mmpretrain')

    from fgplugins.zoo_mmpretrain.running import launching, terminal

    with terminal.preparing(args.display):
        cfg = prepare_config(args)
        folder = results_folder(cfg, args)
        check_run(cfg, args)
    metrics, terms, predictions = run_test(cfg, args)
    if launching.is_main_process():
        report(args, metrics, terms, predictions, folder)


if __name__ == '__main__':
    main_guard(main)
