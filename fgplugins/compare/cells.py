"""A cell of a comparison: one training and one test, under a key of all that decides them."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fgplugins.errors import UserError

__all__ = [
    'CONTROL',
    'METHOD_FILE',
    'RUN',
    'Cell',
    'file_name',
    'read_cell',
    'read_command',
    'split_variant',
    'variant',
]

CONTROL = 'gap'  # the network itself
METHOD_FILE = 'method.pth'  # of a cell: weights of a method that was trained on features
SHARED = ('backbone', 'num_classes', 'in_chans', 'img_size')  # by all rows
RUN = 'run'  # of a cell: the folder of MMPretrain's runner


def file_name(name: str) -> str:
    """A name that every file system takes: another one for every name."""
    plain = _plain(name)
    return plain if plain == name else f'{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}'


def _plain(name: str) -> str:
    return re.sub(r'[^\w.-]', '_', name, flags=re.ASCII)


@dataclass(frozen=True)
class Cell:
    """One training and one test.

    Attributes:
        split: digest of the images and their parts.
        backbone: name of a timm network.
        method: the row it belongs to: 'warn', or a variant as 'warn:heads=2,taps=3'.
        mode: 'quick', on a frozen backbone, or 'finetune'.
        recipe: all that the training goes by.
        seed: of everything random.
        trial: number of a trial of the tuning, which is never tested; None for a cell that counts.
    """

    split: str
    backbone: str
    method: str
    mode: str
    recipe: dict[str, Any] = field(hash=False)
    seed: int
    trial: int | None = None

    @property
    def key(self) -> str:
        """Name of the cell's folder: readable, and another for whatever differs."""
        text = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        trial = '' if self.trial is None else f'-t{self.trial}'
        name = f'{self.method}-{self.backbone}-s{self.seed}{trial}-{digest}'
        return _plain(name)

    def folder(self, root: Path) -> Path:
        """Where a comparison keeps it."""
        return root / 'cells' / self.key

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read_cell(folder: Path) -> Cell:
    """The cell that a folder is of."""
    content = _content(folder)
    content.pop('command', None)
    return Cell(**content)


def read_command(folder: Path) -> str:
    """The command that first asked for a cell."""
    return _content(folder).get('command', '')


def _content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / 'cell.json').read_text(encoding='utf-8'))


def split_variant(row: str) -> tuple[str, dict[str, Any]]:
    """A row's method, and the arguments that it differs by: 'warn:heads=2,taps=3'.

    Raises:
        UserError: for what is not KEY=VALUE.
    """
    name, _, text = row.partition(':')
    arguments = {}
    for part in re.split(r',(?![^([]*[)\]])', text) if text else []:  # not inside brackets
        key, equals, value = part.partition('=')
        if not equals or not key.isidentifier():
            raise UserError(f'--methods {row}: {part!r} is not KEY=VALUE, as warn:heads=2')
        if key in SHARED:
            raise UserError(f'--methods {row}: {key} is the same for all rows')
        try:
            arguments[key] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            arguments[key] = value
    return name, arguments


def variant(name: str, arguments: dict[str, Any]) -> str:
    """The row of a method with these arguments."""
    text = ','.join(f'{key}={value}' for key, value in arguments.items())
    return f'{name}:{text}' if text else name
