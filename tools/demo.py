r"""Drop an image on a page, and see what several trained models make of it, side by side.

    python tools/demo.py work_dirs/warn_r50_cub/epoch_100.pth
    python tools/demo.py warn.pth gap.pth --port 8000

A checkpoint is named as for tools/predict.py: a file of either zoo, a folder of tools/publish.py,
or the folder of a comparison, which stands for its best. They are read as data. The page is for
this machine alone, unless --host says otherwise, and asks nothing of any network.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse

from fgplugins.errors import UserError
from fgplugins.utils.command_line import command_parser, main_guard, require_module


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('checkpoints', nargs='+', metavar='CHECKPOINT', help='a column of the page')
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to serve at (127.0.0.1, this machine alone; 0.0.0.0 is every machine that '
        'reaches this one)',
    )
    parser.add_argument(
        '--port', type=int, metavar='N', help='port to serve at (the first free one from 7860 on)'
    )
    parser.add_argument('--top-k', type=int, default=5, metavar='K', help='classes named (5)')
    parser.add_argument('--device', default='auto', help='auto (a GPU if there is one), cpu, cuda')
    return parser.parse_args()


def check_args(args: argparse.Namespace) -> None:
    if args.top_k < 1:
        raise UserError(f'--top-k {args.top_k}: must be at least 1')
    if args.port is not None and not 1 <= args.port <= 65535:
        raise UserError(f'--port {args.port}: must be between 1 and 65535')


def main() -> None:
    args = parse_args()
    check_args(args)

    from fgplugins.demo.server import alone, check_address, need_gradio, serve

    need_gradio()
    check_address(args.host, args.port)
    with alone():
        require_module('fgplugins.demo.looking')

        from fgplugins.demo.looking import open_trained
        from fgplugins.serving.models import choose_device

        device = choose_device(args.device)
        models = [open_trained(checkpoint, device) for checkpoint in args.checkpoints]

        from fgplugins.demo.page import build_page

        serve(build_page(models, args.top_k), args.host, args.port)


if __name__ == '__main__':
    main_guard(main)
