"""Write docs/tables.md: every row of the five papers' tables, and the config that runs it.

    python scripts/make_tables.py
    python scripts/make_tables.py --check

With --check nothing is written: the command fails if the page is not what the configs say.
"""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path

from fgplugins.analysis.tables import write_text
from fgplugins.errors import UserError
from fgplugins.utils.command_line import command_parser, main_guard
from paper_results import make_page

PAGE = Path(__file__).resolve().parent.parent / 'docs' / 'tables.md'


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        '--check',
        action='store_true',
        help='write nothing; fail if the page is not what the configs say',
    )
    return parser.parse_args()


def main() -> None:
    args, page = parse_args(), make_page()
    if not args.check:
        write_text('docs', str(PAGE), page)
        print(PAGE)
        return
    written = PAGE.read_text(encoding='utf-8') if PAGE.is_file() else ''
    changed = list(difflib.unified_diff(written.splitlines(), page.splitlines(), lineterm='', n=0))
    if changed:
        print('\n'.join(changed[2:]))
        raise UserError(f'{PAGE} is not what the configs say: write it again, without --check')
    print(f'{PAGE}: as the configs say')


if __name__ == '__main__':
    main_guard(main)
