"""The page of a comparison, to be opened in a browser: the answer, and where each method looks.

    fgplugins report birds
    fgplugins report birds --single-file
    fgplugins report birds_resnet50 birds_convnext --out both

birds is the --out folder of fgplugins compare, which makes this page in the end, too. It is
birds/report/index.html, with pictures in birds/report/page; it needs no network. Maps are computed
for a sample of the test images: of every class, those first that a method changes.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
from pathlib import Path

from fgplugins.errors import UserError
from fgplugins.utils.command_line import command_parser, main_guard, require_module


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('folders', nargs='+', metavar='DIR', help='folders of comparisons')
    parser.add_argument(
        '--out', metavar='DIR', help="where the page goes (the comparison's report, if it is one)"
    )
    parser.add_argument(
        '--maps', type=int, default=200, metavar='N', help='test images with maps (200)'
    )
    parser.add_argument(
        '--thumbnails',
        type=int,
        default=5000,
        metavar='N',
        help='test images with a picture (5000)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the choice of images (0)')
    parser.add_argument('--device', default='auto', help='where maps are computed (auto)')
    parser.add_argument(
        '--single-file',
        action='store_true',
        help='put all of it into report.html, to send it to somebody',
    )
    parser.add_argument(
        '--most-mb', type=float, default=25, metavar='MB', help='of that file at most (25)'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    for name in ('maps', 'thumbnails', 'seed'):
        if getattr(args, name) < 0:
            raise UserError(f'--{name} {getattr(args, name)}: must be a whole number, 0 or more')
    if len(args.folders) > 1 and not args.out:
        raise UserError(
            f'{len(args.folders)} comparisons on one page: --out DIR says where it goes'
        )
    require_module('fgplugins.zoo_mmpretrain')  # which says what to install
    require_module('fgplugins.page.command')

    from fgplugins.page.command import Settings, write_page

    settings = Settings(
        args.maps, args.thumbnails, args.seed, args.device, args.single_file, args.most_mb
    )
    roots = [Path(folder).expanduser() for folder in args.folders]
    out = Path(args.out).expanduser() if args.out else None
    print(write_page(roots, out, settings))


if __name__ == '__main__':
    main_guard(main)
