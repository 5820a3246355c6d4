"""Write docs/complexity.md: every complexity figure of the five papers beside what is counted here.

    python scripts/make_complexity.py
    python scripts/make_complexity.py --check

With --check nothing is written: the command fails if the page is not what is counted.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import difflib
import sys
from pathlib import Path

from fgplugins.analysis.tables import write_text
from fgplugins.errors import UserError
from fgplugins.utils.command_line import command_parser, main_guard
from paper_tables import make_page

PAGE = Path(__file__).resolve().parent.parent / 'docs' / 'complexity.md'


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('--out', default=str(PAGE), metavar='FILE', help='the page (%(default)s)')
    parser.add_argument(
        '--check',
        action='store_true',
        help='write nothing; fail if the page is not what is counted',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    path = Path(args.out)
    if args.check and not path.is_file():
        raise UserError(f'--out {args.out!r} is not a file: write it first, without --check')
    page = make_page(lambda line: print(line, file=sys.stderr))
    if not args.check:
        write_text('--out', args.out, page)
        print(args.out)
        return
    written = path.read_text(encoding='utf-8')
    changed = list(difflib.unified_diff(written.splitlines(), page.splitlines(), lineterm='', n=0))
    if changed:
        print('\n'.join(changed[2:]))
        raise UserError(f'{args.out} is not what is counted: write it again, without --check')
    print(f'{args.out}: as counted')


if __name__ == '__main__':
    main_guard(main)
