"""Names of classes, wherever two lists of them meet: a checkpoint's, a data set's, another's."""

from __future__ import annotations

from collections.abc import Sequence

from fgplugins.errors import UserError

__all__ = ['check_same_classes']


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
