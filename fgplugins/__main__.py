"""``python -m fgplugins train warn_cnn_digits``: the tools, wherever the package is installed."""

from __future__ import annotations

import runpy
import sys

from fgplugins.errors import UserError
from fgplugins.utils.command_line import main_guard
from fgplugins.utils.shipped import shipped_folder


def main() -> None:
    """Run the tool that the first argument names."""
    tools = {path.stem: path for path in sorted(shipped_folder('tools').glob('*.py'))}
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ('-h', '--help'):
        print(f'python -m fgplugins TOOL [arguments], TOOL one of: {", ".join(tools)}')
        return
    if arguments[0] not in tools:
        raise UserError(f'{arguments[0]!r} is not a tool; there are: {", ".join(tools)}')
    path = str(tools[arguments[0]])
    sys.argv = [path, *arguments[1:]]
    runpy.run_path(path, run_name='__main__')


if __name__ == '__main__':
    main_guard(main)
