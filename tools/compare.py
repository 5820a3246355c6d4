"""Which attention helps on a folder of images: every method and seed trained, tested, compared.

    fgplugins compare ~/birds --quick
    fgplugins compare ~/birds --methods gap warn clan --seeds 5 --out birds
    fgplugins compare digits --quick

The same command again finishes what is missing; with more methods or seeds it adds to what is
there. --quick trains every method on the maps of a frozen backbone, which are computed once. The
answer is in OUT/report: results.md says it in a sentence, and index.html, which a browser opens,
shows where each method looks. 'digits' is a folder of handwritten digits that the package makes.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import shlex
import sys

from fgplugins.errors import UserError
from fgplugins.utils.command_line import command_parser, main_guard, require_module
from fgplugins.utils.run_arguments import add_display_arguments


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('folder', help='the folder, in any layout that training reads, or only one '
                        'folder per class; a split file; or digits')  # fmt: skip
    parser.add_argument(
        '--backbone',
        nargs='+',
        default=[],
        metavar='NAME',
        help='networks of timm with published weights (on a GPU resnet50, else '
        'tf_efficientnet_lite0)',
    )
    parser.add_argument(
        '--methods',
        nargs='+',
        default=[],
        metavar='NAME',
        help='methods, or variants as warn:heads=2; the control gap is always there (all)',
    )
    parser.add_argument(
        '--seeds', type=int, default=5, metavar='N', help='trainings of each, 0 to N-1 (5)'
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='freeze the backbone: minutes, for methods that need no more than its maps',
    )
    parser.add_argument('--out', metavar='DIR', help='where all of it goes (compare_FOLDER)')
    parser.add_argument('--epochs', type=int, metavar='N', help="another length than the recipe's")
    parser.add_argument('--batch-size', type=int, metavar='N', help='images of a training step')
    parser.add_argument('--lr', type=float, metavar='RATE', help='base rate, of every method')
    parser.add_argument(
        '--size', type=int, metavar='N', help='side of the images, for networks that take any'
    )
    parser.add_argument(
        '--tune',
        type=int,
        default=0,
        metavar='N',
        help='first try N rates and lengths of each method, the control too, on the validation '
        'images',
    )
    add_jobs_arguments(parser)
    parser.add_argument(
        '--dry-run', action='store_true', help='say what would be run, and write nothing'
    )
    parser.add_argument(
        '--no-page', action='store_true', help='leave out OUT/report/index.html (fgplugins report)'
    )
    add_display_arguments(parser)
    return parser.parse_args()


def add_jobs_arguments(parser: argparse.ArgumentParser) -> None:
    jobs = parser.add_argument_group('where it runs')
    jobs.add_argument(
        '--jobs', choices=['local', 'slurm'], default='local', help='this machine, or a cluster'
    )
    jobs.add_argument(
        '--devices',
        nargs='+',
        metavar='DEVICE',
        help="one process at a time on each: 'cuda:0 cuda:1', or 'cpu cpu', which share the cores "
        '(every GPU, or one process a core, 8 at most)',
    )
    jobs.add_argument('--partition', help="slurm's")
    jobs.add_argument('--gpus', type=int, default=1, metavar='N', help='of a slurm job (1)')
    jobs.add_argument('--cpus', type=int, default=4, metavar='N', help='cores of a slurm job (4)')
    jobs.add_argument('--hours', type=float, default=12, metavar='H', help='of a slurm job (12)')
    jobs.add_argument(
        '--at-once', type=int, default=16, metavar='N', help='slurm jobs at a time (16)'
    )
    jobs.add_argument(
        '--slurm', nargs='+', default=[], metavar='KEY=VALUE', help='more options of sbatch'
    )


def check_args(args: argparse.Namespace) -> None:
    """Refuse what no folder would make right."""
    for name, least in (('seeds', 1), ('tune', 0), ('gpus', 0), ('cpus', 1), ('at_once', 1)):
        value = getattr(args, name)
        if value < least:
            option = name.replace('_', '-')
            raise UserError(f'--{option} {value}: must be a whole number, {least} or more')
    if args.hours <= 0:
        raise UserError(f'--hours {args.hours:g}: must be above 0')
    if args.jobs == 'slurm' and args.devices:
        raise UserError('--devices is for --jobs local; a slurm job has --gpus and --cpus')


def main() -> None:
    args = parse_args()
    check_args(args)
    args.command = shlex.join(['fgplugins', 'compare', *sys.argv[1:]])
    require_module('fgplugins.zoo_mmpretrain')  # which says what to install
    require_module('fgplugins.page.command')

    from fgplugins.compare.command import compare
    from fgplugins.page.command import write_page

    if args.no_page:
        compare(args)
    else:
        compare(args, lambda root: print(write_page([root])))


if __name__ == '__main__':
    main_guard(main)
