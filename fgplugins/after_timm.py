"""Registers the timm models when timm is there: at once, or right after its import.

``import fgplugins`` alone brings in neither timm nor torch, so that ``fgplugins train --help`` does
not wait for them; and yet ``timm.create_model('warn')`` works after the two imports, whichever
comes first. If timm has been imported, `register` imports `fgplugins.zoo_timm` at once: this
registers the models, and then loads what other packages add. If not, a finder is put before those
that Python asks where a module is. It finds nothing itself; it asks the others, and of ``timm`` it
wraps the loader, so that `register` follows when timm's own code has run. What goes wrong in it is
raised by ``import timm``, and tried again by the next one.

A room of this package can be what imports timm first. `fgplugins.networks` is then half imported,
and the models stand on it: it is watched for the same reason, and the models are registered when it
is complete.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ['register', 'register_with_timm']

NETWORKS = 'fgplugins.networks'


class _Loader:
    """A module's own loader, and `register` behind it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # sources, resources: for who looks without importing

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        if module.__name__ == NETWORKS or NETWORKS not in sys.modules:
            register()


class _Finder:
    """Before all other finders; wraps the loaders of ``timm`` and of our networks."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in ('timm', NETWORKS):
            return None
        for finder in [finder for finder in sys.meta_path if finder is not self]:
            spec = finder.find_spec(name, path, target) if hasattr(finder, 'find_spec') else None
            if spec is not None:
                if spec.loader is not None:  # a folder that only looks like a package has none
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


_FINDER = _Finder()


def register() -> None:
    """Register the timm models, and load what other packages add; once, whoever asks."""
    watching = _FINDER in sys.meta_path
    if watching:
        sys.meta_path.remove(_FINDER)
    try:
        import fgplugins.zoo_timm  # noqa: F401
    except BaseException:
        if watching:
            sys.meta_path.insert(0, _FINDER)
        raise


def register_with_timm() -> None:
    """`register` if timm has been imported, or else as soon as it is."""
    if sys.modules.get('timm') is not None:
        register()
    elif _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
