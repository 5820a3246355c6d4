"""What a tool prints of metrics, and what it writes of them as JSON."""

from __future__ import annotations

import math

__all__ = ['as_json', 'print_numbers']


def as_json(value: object) -> object:
    """A metric as JSON can hold it: without tensors, NumPy's numbers and NaN."""
    if hasattr(value, 'tolist'):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [as_json(v) for v in value]
    if isinstance(value, dict):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (bool, str, type(None))) else str(value)


def print_numbers(numbers: dict[str, object], digits: int) -> None:
    """Print metrics by name, one a line.

    Args:
        numbers: numbers, or lists of them, by name.
        digits: how many after the point.
    """
    for name, value in numbers.items():
        top, of_images, k = name.partition('accuracy/top')
        shown = _shown(as_json(value), digits)
        print(f'top-{k}: {shown} %' if of_images and not top else f'{name}: {shown}')


def _shown(value: object, digits: int) -> str:
    """A metric in one line; a table in lines of its own."""
    if isinstance(value, list) and any(isinstance(row, list) for row in value):
        return '\n' + '\n'.join(_shown(row, digits) for row in value)
    if isinstance(value, list):
        return ', '.join(_shown(v, digits) for v in value)
    if isinstance(value, float):
        return f'{value:.{digits}f}'
    return 'nan' if value is None else str(value)
