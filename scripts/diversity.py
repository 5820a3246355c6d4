"""Where WARN's diversity term acts: its gradient beside the likelihood's, and what masks share.

    python scripts/diversity.py work_dirs/warn_cnn_digits --json docs/results/diversity.json

For each run: the masks and gradients of the last checkpoint and of the untrained model of the same
seed, on the same test images. Gradients are those of a term of weight 1 with respect to the masks'
kernels W_H; their ratio times the weight is the share that the term has in a step.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmpretrain.registry import DATASETS, MODELS
from torch import Tensor, nn

import fgplugins.zoo_mmpretrain  # noqa: F401  (registers what the configs name)
from fgplugins.errors import UserError
from fgplugins.methods.layers import negative_log_likelihood
from fgplugins.methods.warn import WARN, mask_diversity
from fgplugins.utils.command_line import command_parser, main_guard
from fgplugins.zoo_mmpretrain.running.checkpoints import read_checkpoint, weights_of


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('runs', nargs='+', help='work folders of trainings of warn')
    parser.add_argument('--images', type=int, default=500, help='test images (%(default)s)')
    parser.add_argument('--json', metavar='FILE', help='write the figures there')
    return parser.parse_args()


def shared(H: Tensor) -> tuple[float, float]:
    """Of masks (N, K, H, W): their mean cosine with each other, and positions a mask covers.

    The second is the exponential of its entropy: 1 for a mask on one position.
    """
    h = H.flatten(2)
    unit = h / h.norm(dim=2, keepdim=True)
    K = h.shape[1]
    cosines = (unit @ unit.transpose(1, 2)).sum(dim=(1, 2)) - K
    entropy = -(h * h.clamp_min(1e-12).log()).sum(dim=2)
    return float(cosines.mean() / (K * (K - 1))), float(entropy.exp().mean())


def measure(model: nn.Module, batch: dict[str, Any]) -> list[dict[str, float]]:
    """What `main` describes, of each level."""
    model.eval()
    data = model.data_preprocessor(batch, training=False)
    method: WARN = model.head.method
    features = model.head.given(model.extract_feat(data['inputs']))
    target = torch.cat([sample.gt_label for sample in data['data_samples']])
    masks = method.attention(features)
    kernels = [module.W_H.weight for module in method.attention_modules]
    nll = negative_log_likelihood(method(features), target)
    overlap = torch.stack([mask_diversity(H) for H in masks]).mean()
    of_nll = torch.autograd.grad(nll, kernels, retain_graph=True)
    of_overlap = torch.autograd.grad(overlap, kernels)
    rows = []
    for H, g, d in zip(masks, of_nll, of_overlap, strict=True):
        cosine, covered = shared(H.detach())
        rows.append(
            {
                'positions': H.shape[2] * H.shape[3],
                'covered': covered,
                'cosine': cosine,
                'diversity': float(mask_diversity(H.detach())),
                'nll_gradient': float(g.norm()),
                'diversity_gradient': float(d.norm()),
                'ratio': float(d.norm() / g.norm()),
            }
        )
    return rows


def main() -> None:
    args, found = parse_args(), []
    init_default_scope('mmpretrain')
    for run in map(Path, args.runs):
        last = run / 'last_checkpoint'
        if not last.is_file():
            raise UserError(f'{str(run)!r} is not the folder of a finished training')
        checkpoint = run / Path(last.read_text()).name
        cfg = Config.fromfile(next(run.glob('*.py')))
        seed, weight = cfg.randomness.seed, cfg.model.head.get('diversity', 1e-3)
        cfg.model.data_preprocessor = cfg.data_preprocessor
        set_random_seed(seed)
        model = MODELS.build(cfg.model)
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        batch = pseudo_collate([dataset[i] for i in range(args.images)])
        row: dict[str, Any] = {'run': run.name, 'seed': seed, 'weight': weight}
        row['untrained'] = measure(model, batch)
        model.load_state_dict(weights_of(read_checkpoint(str(checkpoint))))
        row['trained'] = measure(model, batch)
        found.append(row)
        for when in ('untrained', 'trained'):
            for level, figures in enumerate(row[when]):
                numbers = ' '.join(f'{key} {value:.3g}' for key, value in figures.items())
                print(f'{run.name} seed {seed} weight {weight} {when} level {level}: {numbers}')
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main_guard(main)
