"""Divide a folder of images into training, validation and test images, in a file.

    fgplugins split_data ~/birds --val 0.2 --test 0.2
    fgplugins split_data ~/birds --test 0.2 --group '(nest[0-9]+)_'

No image is copied or moved: split.json in the folder lists them, and all tools read the folder by
it. Each class keeps the shares. Copies of a picture, and images of one --group, are never parted. A
folder that has test/ already keeps it: give --val alone.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import os
from pathlib import Path

from fgplugins.errors import UserError
from fgplugins.utils.command_line import check_outputs, command_parser, main_guard


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('folder', help='the folder, with a folder for each class')
    parser.add_argument(
        '--val', type=float, default=0, metavar='SHARE', help='of the images, to validate on'
    )
    parser.add_argument(
        '--test', type=float, default=0, metavar='SHARE', help='of the images, to test on'
    )
    parser.add_argument(
        '--group',
        metavar='REGEX',
        help='searched for in the paths of the images: what its first group matches, or all of it, '
        'names the images that must stay together',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the choice (0)')
    parser.add_argument(
        '--ignore-duplicates',
        action='store_true',
        help='copies of a picture may part: no image is read then',
    )
    parser.add_argument('--out', metavar='FILE', help='the file (split.json in the folder)')
    parser.add_argument('--overwrite', action='store_true', help='replace a split file')
    parser.add_argument(
        '--workers', type=int, metavar='N', help='threads that decode (one for each CPU core)'
    )
    return parser.parse_args()


def check_args(args: argparse.Namespace) -> None:
    """Refuse what cannot be done, before an image is read."""
    from fgplugins.data.split_files import SPLIT_FILE
    from fgplugins.data.splitting import check_shares

    check_shares(args.val, args.test)
    folder = Path(args.folder).expanduser()
    if not folder.is_dir():
        raise UserError(f'folder {args.folder!r} is not there')
    args.out = args.out or str(folder / SPLIT_FILE)
    check_outputs(args, 'out')
    if not args.out.endswith('.json'):
        raise UserError(f'--out {args.out}: must end in .json')
    if Path(args.out).exists() and not args.overwrite:
        raise UserError(f'--out {args.out}: is there already: --overwrite replaces it')
    if args.workers is not None and args.workers < 1:
        raise UserError(f'--workers {args.workers}: must be 1 or more')


def main() -> None:
    args = parse_args()
    check_args(args)
    from fgplugins.data.duplicates import NEAR
    from fgplugins.data.folder_report import division_report
    from fgplugins.data.split_files import SPLIT_FILE, write_split_file
    from fgplugins.data.splitting import divide_folder
    from fgplugins.utils.progress_bar import progress_bar

    near = None if args.ignore_duplicates else NEAR
    asked = {name: getattr(args, name) for name in ('val', 'test', 'group', 'seed')}
    asked['near'] = near
    folder, out = Path(args.folder).expanduser(), Path(args.out)
    with progress_bar('reading images') as progress:
        division = divide_folder(
            args.folder, **asked, workers=args.workers or os.cpu_count() or 1, progress=progress
        )
    write_split_file(out, folder, division.parts, division.together, asked)
    print(division_report(division))
    root = folder if out.absolute() == (folder / SPLIT_FILE).absolute() else out
    print(f'\nwritten: {out}\nuse: fgplugins train CONFIG --data-root {root}')


if __name__ == '__main__':
    main_guard(main)
