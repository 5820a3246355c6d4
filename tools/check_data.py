"""Check a folder of images before a training: counts, broken files, duplicates, sizes.

    fgplugins check_data ~/birds
    fgplugins check_data ~/birds --json birds.json

Every image is decoded. Duplicates are looked for within and across training, validation and test
images: the same file, the same pixels, and near-duplicates, as a copy that was resized or saved
again. The exit code is 0 if nothing is to be mended, 1 if something is, and 2 if the folder cannot
be read at all.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import json
import os
import sys
from pathlib import Path

from fgplugins.errors import UserError
from fgplugins.utils.command_line import check_outputs, command_parser, main_guard


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('folder', help='the folder, in any layout that training reads, or only one '
                        'folder per class; or a split file')  # fmt: skip
    parser.add_argument('--json', metavar='FILE', help='write all that was found, too')
    parser.add_argument(
        '--near',
        type=int,
        default=24,
        metavar='BITS',
        help='how many of 256 bits may differ between near-duplicates (24); 0 to 48',
    )
    parser.add_argument(
        '--workers', type=int, metavar='N', help='threads that decode (one for each CPU core)'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_outputs(args, 'json')
    if not 0 <= args.near <= 48:
        raise UserError(f'--near {args.near}: must be between 0 and 48, of 256 bits')
    if args.workers is not None and args.workers < 1:
        raise UserError(f'--workers {args.workers}: must be 1 or more')
    from fgplugins.data.folder_check import check_folder
    from fgplugins.data.folder_report import folder_report
    from fgplugins.utils.progress_bar import progress_bar

    with progress_bar('reading images') as progress:
        found = check_folder(args.folder, args.near, args.workers or os.cpu_count() or 1, progress)
    print(folder_report(found))
    if args.json:
        text = json.dumps(found.as_json(), indent=1)
        Path(args.json).write_text(text + '\n', encoding='utf-8')
        print(f'all of it: {args.json}')
    sys.exit(any(finding.level == 'mend' for finding in found.findings))


if __name__ == '__main__':
    main_guard(main)
