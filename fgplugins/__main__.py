"""``fgplugins train warn_cnn_digits``: the tools, wherever the package is installed."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import ast
import sys
from pathlib import Path
from types import ModuleType

import fgplugins
from fgplugins.errors import UserError, did_you_mean
from fgplugins.utils.command_line import main_guard
from fgplugins.utils.shipped import shipped_folder

__all__ = ['command']


def first_line(path: Path) -> str:
    """The first line of a file's docstring, without running the file."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
    return text.partition('\n')[0]


def help_text(tools: dict[str, Path]) -> str:
    """All tools, each with a line on what it does."""
    width = max(map(len, tools))
    lines = [f'  {name:{width}}  {first_line(path)}' for name, path in tools.items()]
    return '\n'.join(
        [
            'usage: fgplugins TOOL [arguments]',
            '',
            'tools:',
            *lines,
            '',
            'fgplugins TOOL --help: what a tool takes; fgplugins --version: which version this is',
        ]
    )


def run_tool(path: Path, arguments: list[str]) -> None:
    """Run a file as the main program, under the name by which it was called."""
    sys.argv = [f'fgplugins {path.stem}', *arguments]
    module = ModuleType('__main__')
    module.__file__ = str(path)
    sys.modules['__main__'] = module  # where processes that load data look for what is in it
    exec(compile(path.read_bytes(), str(path), 'exec', dont_inherit=True), module.__dict__)


def main() -> None:
    """Run the tool that the first argument names.

    Raises:
        UserError: if there is none of that name.
    """
    tools = {path.stem: path for path in sorted(shipped_folder('tools').glob('*.py'))}
    name, *arguments = sys.argv[1:] or ['--help']
    if name in ('-h', '--help'):
        print(help_text(tools))
    elif name == '--version':
        print(f'fgplugins {fgplugins.__version__}')
    elif name.startswith('-'):
        raise UserError(f'{name} is not an option; there are --help and --version, and the tools')
    elif name not in tools:
        hint = did_you_mean(name, tools) or f'; there are: {", ".join(tools)}'
        raise UserError(f'{name!r} is not a tool{hint}')
    else:
        run_tool(tools[name], arguments)


def command() -> None:
    """The console script ``fgplugins``."""
    main_guard(main)


if __name__ == '__main__':
    command()
