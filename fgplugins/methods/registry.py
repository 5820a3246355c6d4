"""The registry that names methods, and how those of other packages come into it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points

from fvcore.common.registry import Registry

from fgplugins.methods.base import Method

__all__ = [
    'METHODS',
    'get_method',
    'list_methods',
    'load_entry_points',
    'on_register',
    'register_method',
    'unregister',
]


class _MethodRegistry(Registry):
    """fvcore's registry, under names that are given rather than taken from the class."""

    def add(self, name: str, cls: type[Method]) -> None:
        if name in self:
            owner = self.get(name)
            raise ValueError(
                f'method {name!r} of {cls.__module__} is already taken by '
                f'{owner.__module__}.{owner.__qualname__}: choose another name'
            )
        alike = [other for _, other in self if other.__name__ == cls.__name__]
        if alike:
            raise ValueError(
                f'method {name!r}: {cls.__module__}.{cls.__qualname__} would be the MMPretrain '
                f'head {cls.__name__}Head, as {alike[0].__module__}.{alike[0].__qualname__} is '
                'already: choose another class name'
            )
        self._do_register(name, cls)


METHODS = _MethodRegistry('METHODS')
_listeners: list[Callable[[str, type[Method]], None]] = []
_searched: set[str] = set()


def _check_contract(name: str, cls: type) -> None:
    """Refuse a class that cannot be a method, naming its owner and what is missing."""
    owner = f'{getattr(cls, "__module__", "?")}.{getattr(cls, "__qualname__", cls)}'
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise TypeError(f'method {name!r}: {owner} is not a subclass of fgplugins.Method')
    if not name.isidentifier() or name != name.lower():
        raise ValueError(
            f'method name {name!r} of {owner}: must be a lower-case Python identifier, since it '
            f'becomes the timm model name, as in timm.create_model({name.lower()!r})'
        )
    missing = [m for m in ('forward', 'attention', 'loss') if getattr(cls, m) is getattr(Method, m)]
    if missing:
        raise TypeError(f'method {name!r}: {owner} does not define {", ".join(missing)}')
    arguments = list(inspect.signature(cls.__init__).parameters)[1:3]
    if arguments != ['in_channels', 'num_classes']:
        raise TypeError(
            f'method {name!r}: {owner}.__init__ must take (in_channels, num_classes, ...) first, '
            f'it takes ({", ".join(arguments)})'
        )
    taken = inspect.signature(cls.attention).parameters
    unheard = [question for question in cls.questions if question not in taken]
    if unheard:
        raise TypeError(
            f'method {name!r}: {owner}.attention does not take {", ".join(unheard)}, which its '
            'questions name'
        )


def register_method(name: str) -> Callable[[type[Method]], type[Method]]:
    """Class decorator: make a `Method` known under ``name`` to both zoos and to every tool.

    Args:
        name: the lower-case key; ``timm.create_model(name, backbone=...)`` builds it, and a class
            ``Mine`` becomes the MMPretrain head ``MineHead``.

    Raises:
        TypeError: if the class is not a `Method`, lacks a member of the contract or does not take
            ``(in_channels, num_classes)`` first.
        ValueError: if the name or the class's own is taken (both owners are named), or the name is
            not an identifier.
    """

    def decorate(cls: type[Method]) -> type[Method]:
        _check_contract(name, cls)
        METHODS.add(name, cls)
        for listener in _listeners:
            listener(name, cls)
        return cls

    return decorate


def unregister(name: str) -> None:
    """Take back a registration that turned out wrong."""
    METHODS._obj_map.pop(name, None)


def on_register(listener: Callable[[str, type[Method]], None]) -> None:
    """Call ``listener(name, cls)`` for every method known now and every one that comes later."""
    _listeners.append(listener)
    for name, cls in METHODS:
        listener(name, cls)


def load_entry_points(group: str = 'fgplugins.methods') -> None:
    """Import the modules that installed packages declare in the entry-point group, once each.

    One that fails is named in a warning and left out; the others are imported all the same.
    """
    for point in entry_points(group=group):
        if point.value not in _searched:
            _searched.add(point.value)
            try:
                point.load()
            except Exception as error:
                warnings.warn(
                    f'fgplugins: the entry point {point.name!r} ({point.value}) failed and is left '
                    f'out: {type(error).__name__}: {error}',
                    stacklevel=2,
                )


def list_methods() -> list[str]:
    """The keys of all registered methods, in alphabetical order."""
    return sorted(name for name, _ in METHODS)


def get_method(name: str) -> type[Method]:
    """The class registered under ``name``.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    if name not in METHODS:
        raise ValueError(
            f'method {name!r} is not registered; there are: {", ".join(list_methods())}'
        )
    return METHODS.get(name)
