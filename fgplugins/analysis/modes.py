"""What of a model `fgplugins.analysis.benchmark` times; a file of its own, to be read quickly."""

from __future__ import annotations

__all__ = ['MODES']

MODES = {
    'forward': 'a forward pass in inference mode',
    'train': "loss and backward of the whole model, by the method's own loss",
    'method': 'forward of the method alone, on maps that are ready',
    'method-train': "the method's loss and backward alone, down to maps that are ready",
}
