"""Where the dots and lines of a page's plots stand, in percent of a plot's width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgplugins.compare.plots import Point, front

__all__ = ['Axis', 'CostPlot', 'Strip', 'cost_plot', 'strips']

TICKS = 4  # about so many
DODGE = 7  # pixels between dots of equal value
HEIGHT, LABEL = 300, 20  # pixels of the plot of costs, and of a name beside it


@dataclass
class Axis:
    """A range of values, and its ticks: (percent of the width, text)."""

    low: float
    high: float
    ticks: list[tuple[float, str]]

    def at(self, value: float) -> float:
        """Percent of the way from the low end to the high one."""
        return round(100 * (value - self.low) / (self.high - self.low), 3)


def axis_of(values: Sequence[float], form: str = '{:g}') -> Axis:
    """An axis that holds these values, with a margin."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or max(0.5, 0.02 * abs(high))
    low, high = low - room, high + room
    rough = (high - low) / TICKS
    unit = 10 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)
    axis = Axis(low, high, [])
    first, last = math.ceil(low / step), math.floor(high / step)
    for i in range(first, last + 1):
        value = round(i * step, 10)
        axis.ticks.append((axis.at(value), form.format(value) if value else '0'))
    return axis


@dataclass
class Strip:
    """A row of the plot of seeds.

    Attributes:
        dots: (percent, pixels from the middle, what it is) of every run.
        mean: percent; None without runs, or of a single one.
        difference: 'at', 'low' and 'high' in percent (the ends None without an interval), and
            'kind': 'better', 'worse' or 'open'; None where nothing is compared.
    """

    dots: list[tuple[float, float, str]]
    mean: float | None
    difference: dict[str, Any] | None


def _dodged(values: Sequence[float]) -> list[float]:
    """Pixels from the middle, so that no dot lies on one of the same value."""
    shifts = [0.0] * len(values)
    for value in set(values):
        places = [i for i, v in enumerate(values) if v == value]
        for order, i in enumerate(places):
            shifts[i] = DODGE * (order - (len(places) - 1) / 2)
    return shifts


def strips(rows: Sequence[Mapping[str, Any]]) -> tuple[Axis, Axis | None, list[Strip]]:
    """The axis of accuracies, that of differences if there are any, and every row's marks.

    Args:
        rows: of one of `results['backbones']`.
    """
    values = [run['test']['top1'] for row in rows for run in row['runs']]
    accuracy = axis_of(values or [0.0, 100.0])
    compared = [row['comparison'] for row in rows if row['comparison']]
    ends = [c[k] for c in compared for k in ('difference', 'low', 'high') if c[k] is not None]
    difference = axis_of([*ends, 0.0], '{:+g}') if compared else None
    marks = []
    for row in rows:
        own = [run['test']['top1'] for run in row['runs']]
        texts = [f'seed {run["seed"]}: {run["test"]["top1"]:.2f} %' for run in row['runs']]
        dots = list(zip(map(accuracy.at, own), _dodged(own), texts, strict=True))
        mean = accuracy.at(row['test_top1']['mean']) if len(own) > 1 else None
        c = row['comparison']
        marks.append(Strip(dots, mean, None if c is None else _interval(c, difference)))
    return accuracy, difference, marks


def _interval(compared: Mapping[str, Any], axis: Axis) -> dict[str, Any]:
    d = compared['difference']
    kind = 'open' if not compared['found'] else 'better' if d > 0 else 'worse'
    ends = {k: None if compared[k] is None else axis.at(compared[k]) for k in ('low', 'high')}
    return {'at': axis.at(d), 'kind': kind, **ends}


@dataclass
class CostPlot:
    """Accuracy against cost.

    Attributes:
        across: axis of the cost.
        up: axis of the accuracy; its percents are from below.
        what: the cost.
        height: pixels.
        points: each with 'name', 'x' in percent, 'y' in pixels, 'label_y' in pixels, 'best',
            'cost' and 'text'.
        line: (percent, pixels) of the points that no other is cheaper and better than.
    """

    across: Axis
    up: Axis
    what: str
    height: int
    points: list[dict[str, Any]]
    line: list[tuple[float, float]]


def cost_plot(rows: Sequence[Mapping[str, Any]]) -> CostPlot | None:
    """Mean accuracy against multiply-adds at test time; if these are unknown, training time.

    Args:
        rows: of one of `results['backbones']`.
    """
    done = [row for row in rows if row['runs']]
    for keys, unit, what, form in (
        (('deployed_macs', 'macs'), 1e9, 'multiply-adds of an image at test time (G)', '{:.3f} G'),
        (('train_seconds',), 1.0, 'time of a training (s)', '{:.0f} s'),
    ):
        costs = [next((row['cost'][k] for k in keys if row['cost'].get(k)), None) for row in done]
        points = [
            Point(row['method'], '', cost / unit, row['test_top1']['mean'])
            for row, cost in zip(done, costs, strict=True)
            if cost
        ]
        if len(points) > 1:
            return _place(points, what, form)
    return None


def _place(points: Sequence[Point], what: str, form: str) -> CostPlot:
    across, up = axis_of([p.macs for p in points]), axis_of([p.accuracy for p in points])
    height = max(HEIGHT, LABEL * (len(points) + 1))
    best = front(points)

    def y(point: Point) -> float:
        return round(height * (1 - up.at(point.accuracy) / 100), 1)

    order = sorted(points, key=y)
    labels = [y(p) for p in order]
    for i in range(1, len(labels)):
        labels[i] = max(labels[i], labels[i - 1] + LABEL)
    for i in range(len(labels) - 1, -1, -1):
        lowest = height if i == len(labels) - 1 else labels[i + 1] - LABEL
        labels[i] = min(labels[i], lowest)
    placed = [
        {
            'name': p.name,
            'x': across.at(p.macs),
            'y': y(p),
            'label_y': label,
            'best': p in best,
            'cost': form.format(p.macs),
            'text': f'{p.name}: {p.accuracy:.1f} %, {form.format(p.macs)}',
        }
        for p, label in zip(order, labels, strict=True)
    ]
    return CostPlot(across, up, what, height, placed, [(across.at(p.macs), y(p)) for p in best])
