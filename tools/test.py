"""Test a trained model.

python tools/test.py configs/warn_cnn_digits.py work_dirs/warn_cnn_digits/epoch_10.pth
"""

from __future__ import annotations

import argparse
import os

from fgplugins.cli import main_guard, need_mmpretrain
from fgplugins.errors import UserError

need_mmpretrain()

from mmengine.evaluator import DumpResults  # noqa: E402
from mmengine.registry import RUNNERS  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from fgplugins.zoo_mmpretrain import running  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    running.add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='write every prediction to this .pkl file')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='see README'
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by launchers'
    )
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    args = parse_args()
    cfg = running.load_config(args)
    running.set_launcher(cfg, args.launcher)
    running.prepare_loaders(cfg)
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {args.out}: must end in .pkl')
    running.match_classes(cfg, ('test',), args.cfg_options)
    model = running.check_model(cfg)
    running.check_checkpoint(args.checkpoint, model)
    del model

    cfg.load_from, cfg.resume = args.checkpoint, False
    with running.harmless_checkpoints():
        with running.user_errors('runner'):
            runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        if args.out:
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        metrics = runner.test()
    if running.is_main_process():
        print('\n' + '\n'.join(f'{name}: {value:.2f}' for name, value in metrics.items()))


if __name__ == '__main__':
    main_guard(main)
