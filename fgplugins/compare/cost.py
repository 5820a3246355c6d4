"""What the rows of a comparison cost: parameters, multiply-adds, and time beside the control's."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from fgplugins.analysis.benchmark import settle_statistics
from fgplugins.analysis.complexity import count_complexity
from fgplugins.analysis.timing import machine_record, median_ratio, paired_seconds
from fgplugins.compare.cells import CONTROL
from fgplugins.compare.features import build_row
from fgplugins.compare.jobs import read_json, write_json
from fgplugins.compare.recipes import image_size
from fgplugins.errors import one_line
from fgplugins.zoo_timm import ComposedModel
from fgplugins.zoo_timm.deploy import deploy

__all__ = ['measure_costs']

BATCHES = (1, 8)
ROUNDS, SECONDS = 5, 0.2  # of timing, and how long the calls of a round take at least
FORM = 1  # of the files; another one is measured again


class _Measuring:
    """Measures rows on one backbone; the control is built once, when it is needed."""

    def __init__(
        self, backbone: str, num_classes: int, control: Mapping[str, Any], device: str
    ) -> None:
        self.backbone, self.num_classes, self.device = backbone, num_classes, device
        self.control_recipe = control
        self.control: nn.Module | None = None
        self.timed: dict[str, list[dict[str, Any]]] = {}  # by what is deployed

    def build(self, row: str, recipe: Mapping[str, Any]) -> ComposedModel:
        model = build_row(row, self.backbone, self.num_classes, recipe, pretrained=False)
        settle_statistics(model, (model.in_chans, *model.input_size))
        return model.eval()

    def cost(self, row: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """What a row costs."""
        model = self.build(row, recipe)
        shape = model.in_chans, *model.input_size
        trained = count_complexity(model, shape)
        deployed, *what = deploy(model)
        shipped = count_complexity(deployed, shape)
        if self.control is None:
            self.control = deploy(self.build(CONTROL, self.control_recipe))[0]
            self.control.to(self.device)
        key = repr(what)  # siou and art are the control
        if key not in self.timed:
            deployed.to(self.device)
            self.timed[key] = [self.time(deployed, shape, batch) for batch in BATCHES]
        times = self.timed[key]
        return {
            'params': trained.parameters,
            'macs': trained.macs,
            'deployed_params': shipped.parameters,
            'deployed_macs': shipped.macs,
            **times[0],
            'batches': times,
        }

    def time(self, model: nn.Module, shape: tuple[int, ...], batch: int) -> dict[str, Any]:
        """A forward pass of a batch, in turn with the control's."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(batch, *shape, generator=generator).to(self.device)
        steps = [lambda: model(x), lambda: self.control(x)]
        with torch.inference_mode():
            own, control = paired_seconds(steps, ROUNDS, SECONDS, torch.device(self.device))
        ratio = median_ratio(own, control)
        return {
            'batch': batch,
            'latency_ms': 1e3 * statistics.median(own),
            'latency_times_control': ratio['median'],
            'quartiles': [ratio['low'], ratio['high']],
        }


def measure_costs(
    root: Path,
    backbone: str,
    recipes: Mapping[str, Mapping[str, Any]],
    num_classes: int,
    device: str,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Any]]:
    """Measure rows on a backbone; what has been measured on this machine is read.

    Args:
        root: folder of the comparison; its ``cost/`` keeps what was measured.
        backbone: name of the network.
        recipes: by row, the control's too.
        num_classes: Y.
        device: 'cpu' or a CUDA device.
        say: called with a line before a row is measured.

    Returns:
        By row: 'params' and 'macs' as it is trained, 'deployed_params' and 'deployed_macs' as it
        is shipped; of that 'latency_ms' for one image and 'latency_times_control', the median
        ratio to the control that was timed in turn with it; 'batches' has both for all sizes of
        batches, with the ratio's quartiles; 'hardware'. 'reason' alone, if it cannot be measured.
    """
    folder = root / 'cost'
    folder.mkdir(parents=True, exist_ok=True)
    hardware = machine_record(device)
    measuring = _Measuring(backbone, num_classes, recipes[CONTROL], device)
    costs = {}
    for row, recipe in recipes.items():
        model = {'arguments': recipe['arguments'], 'size': image_size(recipe, backbone)}
        of = {'form': FORM, 'backbone': backbone, 'row': row, 'num_classes': num_classes, **model}
        of |= {'hardware': hardware, 'timm': timm.__version__}
        digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:8]
        name = re.sub(r'[^\w.-]', '_', f'{row}-{backbone}-{digest}', flags=re.ASCII)
        file = folder / f'{name}.json'
        known = read_json(file)
        if known is None:
            say(f'measuring {row} on {backbone}')
            try:
                known = {**of, 'cost': measuring.cost(row, recipe)}
            except Exception as error:  # of any network; the answer is there without it
                costs[row] = {'reason': one_line(error, 300)}
                continue
            write_json(file, known)
        costs[row] = {**known['cost'], 'hardware': hardware}
    return costs
