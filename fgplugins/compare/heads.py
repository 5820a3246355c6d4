"""Quick mode: a method trained on the maps of a frozen backbone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fgplugins.compare.features import Features
from fgplugins.errors import UserError
from fgplugins.methods.base import Method

__all__ = ['score', 'train_head']

EVALUATED = 256  # images a step, without gradients


def train_head(
    method: Method,
    features: Features,
    recipe: dict[str, Any],
    seed: int,
    device: torch.device,
    progress: Callable[[int, int, float], None],
) -> None:
    """Train a method by AdamW and a cosine over all steps.

    The order of the images is the seed's alone: the same for every method.

    Args:
        method: changed in place.
        features: of the training images.
        recipe: 'epochs', 'batch_size', 'lr', 'weight_decay', 'max_norm'.
        seed: of the order.
        device: where to train.
        progress: called after each epoch with its number, that of all, and the seconds so far.

    Raises:
        UserError: if the loss is not finite.
    """
    method.to(device).train()
    epochs, size = recipe['epochs'], recipe['batch_size']
    steps = -(-len(features) // size)
    optimizer = torch.optim.AdamW(_groups(method, recipe['weight_decay']), lr=recipe['lr'])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    order = np.random.default_rng(seed)
    start = time.perf_counter()
    for epoch in range(1, epochs + 1):
        for places in np.array_split(order.permutation(len(features)), steps):
            maps, given, labels = features(places, device)
            terms = method.loss(maps, labels, **given)
            loss = sum(terms.values())
            if not loss.isfinite():
                odd = next((name for name, term in terms.items() if not term.isfinite()), 'sum')
                raise UserError(
                    f'the loss term {odd!r} is not finite in epoch {epoch}: a smaller --lr'
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(method.parameters(), recipe['max_norm'])
            optimizer.step()
            schedule.step()
        progress(epoch, epochs, time.perf_counter() - start)


def _groups(method: Method, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with weight decay, and biases and scales without, as timm has it."""
    own = [p for p in method.parameters() if p.requires_grad]
    return [
        {'params': [p for p in own if p.ndim > 1], 'weight_decay': weight_decay},
        {'params': [p for p in own if p.ndim <= 1], 'weight_decay': 0.0},
    ]


@torch.no_grad()
def score(method: Method, features: Features, device: torch.device) -> Tensor:
    """Scores (n, Y) of all images of a part, in their order."""
    method.to(device).eval()
    parts = np.array_split(np.arange(len(features)), max(1, -(-len(features) // EVALUATED)))
    found = []
    for places in parts:
        maps, given, _ = features(places, device)
        found.append(method(maps, **given).float().cpu())
    return torch.cat(found)
