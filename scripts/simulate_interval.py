"""How often the interval of ``fgplugins compare`` errs, and what it sees: a simulation.

    python scripts/simulate_interval.py docs/results/compare/coverage.json

Run s of a model has image i right with the probability sigmoid(m + z_i + b_i + a_s), independently
of all else. z_i is the image's own difficulty, the same for every model; b_i is what this model
adds to it in all its runs (none, or much: `own`); a_s is the run's, with the spread in accuracy
that is given. A cell is simulated without a difference, which gives the false positives and the
smallest difference that is printed on average; then with that difference, half of it above and half
below an accuracy of 80 %, which gives the power. Tests hold the bounds by the same functions.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import t
from tabulate import tabulate

from fgplugins.compare.statistics import (
    LEVEL,
    mean_squares,
    p_value,
    smallest_difference,
    standard_error,
)

REPETITIONS = 4000
ACCURACY = 0.8
DIFFICULTY = 1.5  # standard deviation of z, in logits
BATCH = 4_000_000  # numbers at once
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class Setting:
    """What is simulated.

    Attributes:
        images: n.
        runs: k, of every model.
        spread: standard deviation of a model's accuracy over runs, in points.
        own: standard deviation of b, in logits.
        methods: how many are compared with the control.
    """

    images: int
    runs: int
    spread: float
    own: float
    methods: int = 1


GRID = [
    Setting(images, runs, spread, own)
    for own, spread, images, runs in itertools.product(
        (0.0, 1.0), (0.5, 2.0), (500, 2000), (3, 5, 10)
    )
]
TWO_RUNS = [
    Setting(2000, 2, spread, own) for own, spread in itertools.product((0.0, 1.0), (0.5, 2.0))
]
FAMILIES = [
    Setting(2000, runs, spread, 1.0, methods=4)
    for spread, runs in itertools.product((0.5, 2.0), (3, 5, 10))
]


def model(accuracy: float, setting: Setting) -> tuple[float, float]:
    """M and the standard deviation of a that give a model its accuracy and its spread."""
    wide = np.hypot(DIFFICULTY, setting.own)

    def place(wide: float) -> float:
        return brentq(lambda m: float(WEIGHTS @ expit(m + wide * NODES)) - accuracy, -20, 20)

    right = expit(place(wide) + wide * NODES)
    deviation = setting.spread / 100 / float(WEIGHTS @ (right * (1 - right)))
    return place(np.hypot(wide, deviation)), deviation


def simulate(
    setting: Setting, accuracies: Sequence[float], repetitions: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences to the control, their standard errors and degrees of freedom.

    Args:
        setting: what is simulated.
        accuracies: of the control and then the methods.
        repetitions: how many comparisons.
        rng: of the numbers.

    Returns:
        Three arrays (methods, repetitions).
    """
    k, n = setting.runs, setting.images
    models = [model(accuracy, setting) for accuracy in accuracies]
    found = []
    left = repetitions
    while left:
        size = min(left, max(1, BATCH // (k * n)))
        left -= size
        z = DIFFICULTY * rng.standard_normal((size, 1, n), np.float32)
        right = []
        for m, deviation in models:
            b = setting.own * rng.standard_normal((size, 1, n), np.float32) if setting.own else 0
            a = np.float32(deviation) * rng.standard_normal((size, k, 1), np.float32)
            chance = rng.random((size, k, n), np.float32)
            right.append((chance * (1 + np.exp(-(np.float32(m) + z + b + a))) < 1).view(np.int8))
        control, *others = right
        for other in others:
            d, squares = mean_squares(other - control)
            found.append((d, *standard_error(squares, k, n)))
    batches = [found[i :: setting.methods] for i in range(setting.methods)]
    return tuple(
        np.stack([np.concatenate([part[j] for part in of]) for of in batches]) for j in range(3)
    )


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction of p (methods, repetitions): all repetitions at once."""
    order = p.argsort(axis=0)
    factors = np.arange(len(p), 0, -1)[:, None]
    steps = np.maximum.accumulate(np.take_along_axis(p, order, axis=0) * factors, axis=0)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.minimum(steps, 1), axis=0)
    return corrected


def measure(setting: Setting, repetitions: int, seed: int = 0) -> dict[str, float]:
    """The figures of a setting, in percent and points.

    'false_positives': with no difference anywhere, how often any is found; 'smallest': what is
    printed then, on average; 'power': how often a method that differs by that is found, where the
    others do not; 'coverage': how often its interval then holds the difference.
    """
    values = (setting.images, setting.runs, setting.spread, setting.own, setting.methods)
    rng = np.random.default_rng([seed, *(round(10 * value) for value in values)])
    d, error, df = simulate(setting, [ACCURACY] * (1 + setting.methods), repetitions, rng)
    false = (holm(p_value(d, error, df)) <= LEVEL).any(axis=0)
    smallest = float(smallest_difference(error, df, LEVEL / setting.methods).mean())
    half = t.isf(LEVEL / 2, df) * error
    figures = {
        'false_positives': 100 * float(false.mean()),
        'half_width': 100 * float(np.median(half)),
        'df': float(np.median(df)),
        'smallest': 100 * smallest,
    }
    low, high = ACCURACY - smallest / 2, ACCURACY + smallest / 2
    if high >= 0.995:  # no method can be that much better
        return figures | {'power': None, 'coverage': None}
    accuracies = [low, high, *[low] * (setting.methods - 1)]
    d, error, df = simulate(setting, accuracies, repetitions, rng)
    seen = (holm(p_value(d, error, df))[0] <= LEVEL) & (d[0] > 0)
    inside = np.abs(d[0] - smallest) <= (t.isf(LEVEL / 2, df) * error)[0]
    return figures | {'power': 100 * float(seen.mean()), 'coverage': 100 * float(inside.mean())}


def table(cells: Sequence[dict]) -> str:
    """Cells as Markdown."""
    names = {
        'images': 'images', 'runs': 'seeds', 'spread': 'spread between runs', 'own': 'own images',
        'false_positives': 'false positives', 'half_width': 'half the interval',
        'smallest': 'smallest difference', 'power': 'power there',
    }  # fmt: skip
    rows = []
    for cell in cells:
        row = [cell[name] for name in names]
        row[3] = 'yes' if cell['own'] else 'no'
        row[4:] = ['-' if value is None else f'{value:.1f}' for value in row[4:]]
        rows.append(row)
    return tabulate(rows, list(names.values()), tablefmt='pipe', disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', help='the JSON file to write')
    parser.add_argument('--repetitions', type=int, default=REPETITIONS, metavar='N')
    args = parser.parse_args()
    blocks = {}
    for name, settings in (('grid', GRID), ('two_runs', TWO_RUNS), ('families', FAMILIES)):
        blocks[name] = []
        for setting in settings:
            blocks[name].append(asdict(setting) | measure(setting, args.repetitions))
            print(blocks[name][-1], file=sys.stderr, flush=True)
        print(f'\n{name}\n\n{table(blocks[name])}')
    content = {
        'command': f'python scripts/simulate_interval.py {args.out}',
        'repetitions': args.repetitions,
        'versions': {'numpy': np.__version__, 'scipy': scipy.__version__},
        **blocks,
    }
    Path(args.out).write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
