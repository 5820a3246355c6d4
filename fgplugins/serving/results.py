"""What is known of a checkpoint's accuracy: from a file that the user names, or from its log."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

from fgplugins.errors import UserError, one_line
from fgplugins.serving.models import BEST, best_of

__all__ = ['find_results', 'read_results']

METRIC = re.compile(r'accuracy/\S+|single-label/\S+|multi-label/\S+|eval_top\d')


def read_results(path: str | Path) -> list[tuple[str, str]]:
    """The numbers of a JSON file of ``tools/test.py --json``, or of any with numbers by name.

    Raises:
        UserError: if it cannot be read, or has none.
    """
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'--results {path}: cannot be read as JSON: {one_line(error)}') from None
    metrics = content.get('metrics', content) if isinstance(content, dict) else {}
    found = _numbers(metrics)
    if not found:
        raise UserError(
            f'--results {path}: it has no numbers by name: give a file of tools/test.py --json'
        )
    return found


def _numbers(metrics: Any) -> list[tuple[str, str]]:
    items = metrics.items() if isinstance(metrics, dict) else ()
    kept = [(k, v) for k, v in items if isinstance(v, int | float) and not isinstance(v, bool)]
    return [(str(name), f'{value:.2f}') for name, value in kept]


def find_results(checkpoint: str | Path) -> list[tuple[str, str]]:
    """What the log beside a checkpoint says of it: accuracy on the images that training looked at.

    Args:
        checkpoint: ``epoch_7.pth`` in a folder of `tools/train.py`, a file of timm's script, or a
            comparison's folder.
    """
    path = Path(best_of(str(checkpoint)))
    if path.name == BEST.name and path.with_suffix('.json').is_file():
        return read_results(path.with_suffix('.json'))
    number = re.search(r'(?:epoch|iter|checkpoint-)_?(\d+)\.pth', path.name)
    if number is None:
        return []
    step, found = int(number[1]), []
    for log in sorted(path.parent.glob('*/vis_data/scalars.json')):
        for line in log.read_text(encoding='utf-8', errors='replace').splitlines():
            entry = _entry(line)
            if entry.get('step') == step and any(map(METRIC.fullmatch, entry)):
                found = [(k, v) for k, v in _numbers(entry) if METRIC.fullmatch(k)]
    summary = path.parent / 'summary.csv'
    if not found and summary.is_file():
        with summary.open(newline='', encoding='utf-8') as file:
            for row in csv.DictReader(file):
                if row.get('epoch') == str(step):
                    found = [(k, v) for k, v in row.items() if METRIC.fullmatch(k or '')]
    where = f'validation while training, {"iteration" if "iter" in path.name else "epoch"} {step}'
    return [(f'{name}, {where}', value) for name, value in found]


def _entry(line: str) -> dict[str, Any]:
    """A line of a log; nothing of one that was cut."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
