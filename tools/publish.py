r"""Publish a trained model as a folder that timm loads, with a card that says what it is.

    python tools/publish.py work_dirs/warn_r50_cub/epoch_100.pth warn_birds
    python tools/publish.py last.pth.tar birds --results test.json

Then timm.create_model('local-dir:warn_birds', pretrained=True), after `import fgplugins`; the same
files on a hub load by 'hf-hub:owner/name'. gap, siou and art are published as the plain network,
which timm loads without fgplugins. Written only if what is loaded gives the same scores bit for
bit.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
from pathlib import Path

from fgplugins.errors import UserError
from fgplugins.utils.command_line import check_output_folder, command_parser, main_guard


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('checkpoint', help='trained weights, or the folder of a comparison')
    parser.add_argument('folder', metavar='DIR', help='the folder to make')
    parser.add_argument(
        '--results', metavar='FILE', help='of tools/test.py --json (what the log beside it says)'
    )
    parser.add_argument(
        '--model',
        metavar='NAME',
        help='the config or timm model, for a file of weights that does not say what it is of',
    )
    parser.add_argument(
        '--model-kwargs',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help='arguments of a timm model, as backbone=resnet18 num_classes=200',
    )
    return parser.parse_args()


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be made, before any work is done."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f'DIR {folder}: is there already, and not empty: give a new folder')
    if not folder.absolute().parent.is_dir():
        raise UserError(f'DIR {folder}: there is no folder {folder.parent}')
    check_output_folder('DIR', folder)


def main() -> None:
    args = parse_args()
    folder = Path(args.folder)
    check_folder(folder)
    from fgplugins.serving.models import load_trained
    from fgplugins.serving.publishing import publish
    from fgplugins.serving.results import find_results, read_results

    results = read_results(args.results) if args.results else find_results(args.checkpoint)
    loaded = load_trained(args.checkpoint, args.model, args.model_kwargs)
    model = publish(loaded, folder, results)
    for file in sorted(folder.iterdir()):
        print(f'{file}: {file.stat().st_size / 2**20:.1f} MiB')
    print(f'{type(model).__name__}, scores equal bit for bit: {folder}')
    before = 'import fgplugins, timm' if hasattr(model, 'method') else 'import timm'
    print(f"use: {before}; timm.create_model('local-dir:{folder}', pretrained=True)")
    print(f'add the licence to {folder / "README.md"} before you share it')


if __name__ == '__main__':
    main_guard(main)
