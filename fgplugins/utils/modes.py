"""A model in eval mode for a while, and afterwards exactly as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ['in_testing']


@contextmanager
def in_testing(module: nn.Module) -> Iterator[None]:
    """A module in eval mode; afterwards each of its parts is in its own mode again.

    Parts may be in other modes than the whole, as frozen normalisations in training are. What else
    an overridden ``train`` switches (flags of any part, what is trained) is switched back too; what
    a network remembers of testing, as timm's attention biases, it forgets.
    """
    parts, parameters = list(module.modules()), list(module.parameters())
    modes = [part.training for part in parts]
    flags = [{k: v for k, v in vars(part).items() if isinstance(v, bool)} for part in parts]
    trained = [p.requires_grad for p in parameters]
    module.eval()
    try:
        yield
    finally:
        module.train()  # which is where networks forget
        for part, mode, switched in zip(parts, modes, flags, strict=True):
            part.training = mode
            vars(part).update(switched)
        for p, before in zip(parameters, trained, strict=True):
            if p.requires_grad != before:
                p.requires_grad_(before)
