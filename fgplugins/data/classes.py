"""Two lists of class names compared, as a checkpoint's and a data set's."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from fgplugins.errors import UserError

__all__ = ['check_same_classes', 'in_order_of', 'same_form']


def check_same_classes(
    first: Sequence[str], second: Sequence[str], owner: str, other: str, hint: str = ''
) -> None:
    """Refuse classes of other names, or the same in another order.

    Args:
        first: names of classes, in order.
        second: names of those that they meet.
        owner: what has the first, as ``checkpoint 'a.pth'``.
        other: what has the second.
        hint: what would work.

    Raises:
        UserError: naming the first class that differs.
    """
    if tuple(first) == tuple(second):
        return
    shared = min(len(first), len(second))
    i = next((i for i in range(shared) if first[i] != second[i]), shared)
    names = [repr(names[i]) if i < len(names) else 'none' for names in (first, second)]
    order = ' (the same names in another order)' if set(first) == set(second) else ''
    raise UserError(
        f'{owner} and {other} have other classes{order}: class {i} is {names[0]} of '
        f'{len(first)} in the one, {names[1]} of {len(second)} in the other{hint and ": "}{hint}'
    )


def same_form(name: str) -> str:
    """A name in one form of Unicode, so that names that look the same are equal."""
    return unicodedata.normalize('NFC', name)


def in_order_of(
    wanted: Sequence[str], names: Sequence[str], labels: Sequence[int]
) -> tuple[list[str], list[int]]:
    """Labels for classes in a wanted order, which may have more classes than there are.

    Args:
        wanted: the classes, in the order of the new labels.
        names: the classes, in the order of the old labels.
        labels: one an image.

    Returns:
        The classes, as they are wanted, and the new labels.

    Raises:
        UserError: if a class is wanted twice, or one that is there is not wanted.
    """
    wanted = [str(name) for name in wanted]
    twice = [name for name, count in Counter(wanted).items() if count > 1]
    if twice:
        raise UserError(f'classes: {twice[0]!r} is named twice')
    order = {same_form(name): label for label, name in enumerate(wanted)}
    unknown = [name for name in names if same_form(name) not in order]
    if unknown:
        raise UserError(
            f'class {unknown[0]!r} of the data is not in classes, which begin with '
            f'{", ".join(map(repr, wanted[:3])) or "nothing"}: classes must name all of '
            f'{", ".join(names[:5])}{", ..." if len(names) > 5 else ""}'
        )
    return wanted, [order[same_form(names[label])] for label in labels]
