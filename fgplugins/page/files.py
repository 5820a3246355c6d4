"""What a page is made of: files in a folder beside it, or all in the page itself."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

from fgplugins.errors import UserError
from fgplugins.utils.whole_file import whole_file

__all__ = ['FOLDER', 'Files', 'as_script', 'write_whole']

FOLDER = 'page'  # beside index.html
ESCAPED = {character: f'\\u{ord(character):04x}' for character in '<>&\u2028\u2029'}


def as_script(target: str, content: object) -> str:
    """A script that assigns a value; no text in it ends a script, or is a mark of HTML.

    Args:
        target: of the assignment.
        content: what JSON can hold.
    """
    text = json.dumps(content, separators=(',', ':'))  # ASCII
    text = re.sub('[<>&\u2028\u2029]', lambda match: ESCAPED[match[0]], text)
    return f'{target} = {text};\n'


class Files:
    """The files of a page, by their names in its folder, before they are written."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def add(self, name: str, content: bytes | str) -> None:
        self.content[name] = content if isinstance(content, bytes) else content.encode()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(map(len, self.content.values()))

    def write(self, folder: Path) -> None:
        """Write them to `FOLDER` in a folder, in place of what is there.

        Raises:
            UserError: if the disk has no room for them.
        """
        free = shutil.disk_usage(folder).free
        if 1.05 * self.size > free:
            raise UserError(
                f'the page takes {self.size / 1e6:.0f} MB in {folder}, and {free / 1e6:.0f} MB '
                'are free: fewer --maps and --thumbnails would fit, or another --out'
            )
        target, partial = folder / FOLDER, folder / f'.{FOLDER}.part'
        shutil.rmtree(partial, ignore_errors=True)
        for name, content in self.content.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content)
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)

    def inside(self) -> dict[str, Any]:
        """Pictures as addresses that hold them, by their names."""
        return {
            name: f'data:image/webp;base64,{base64.b64encode(content).decode()}'
            for name, content in self.content.items()
            if name.endswith('.webp')
        }

    def scripts(self) -> str:
        """All scripts, one after the other, those of the data first."""
        names = [name for name in self.content if name.endswith('.js')]
        names.sort(key=lambda name: name != 'data.js')
        return ''.join(self.content[name].decode() for name in names)


def write_whole(path: Path, text: str) -> None:
    """Write a page: whole, or not at all."""
    with whole_file(path) as file:
        file.write(text.encode('utf-8', 'backslashreplace'))
