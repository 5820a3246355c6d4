"""Whether a method's accuracy differs from the control's: runs and images are both samples.

    y[s, i] = (method right) - (control right), of run s and image i, in {-1, 0, 1}

k runs with their seeds and n test images. Run s of the method is set against run s of the control,
on the same images. The crossed random-effects model is

    y[s, i] = d + r_s + c_i + e_si,    variances of r, c and e: runs, images, rest

with the mean squares

    MS_runs   = n sum_s (y[s, .] - d)^2 / (k - 1)                               of row means
    MS_images = k sum_i (y[., i] - d)^2 / (n - 1)                               of column means
    MS_rest   = sum_si (y[s, i] - y[s, .] - y[., i] + d)^2 / ((k - 1) (n - 1))

whose expectations are n runs + rest, k images + rest, and rest. Without bias

    Var(d) = runs / k + images / n + rest / (k n) = (MS_runs + MS_images - MS_rest) / (k n),

which can be negative. No variance is, so an estimate of one below zero is taken as zero:

    Var(d) = (max(MS_runs, MS_rest) + max(MS_images, MS_rest) - MS_rest) / (k n).

That is at least each of the mean squares over k n, and never less than the unbiased form. The
degrees of freedom are Satterthwaite's, with the mean squares as they were found:

    df = (k n Var(d))^2
         / (MS_runs^2 / (k - 1) + MS_images^2 / (n - 1) + MS_rest^2 / ((k - 1) (n - 1)))

By the bound on Var(d) they are (k - 1) (n - 1) / (k + n - 1) at least, all but k - 1. Two runs are
given that one degree, since two numbers say nothing of how well their own spread is known.

The analysis is that of reader studies: Obuchowski and Rockette, Comm. Statist. Simul. 24, 1995;
negative estimates and lower bounds of the degrees of freedom there: Hillis, Stat. Med. 26, 2007.
``docs/statistics.md`` says how often it errs, by simulation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln
from scipy.stats import nct, t
from statsmodels.stats.multitest import multipletests

__all__ = [
    'FEW_RUNS',
    'LEVEL',
    'POWER',
    'Difference',
    'MeanSquares',
    'compare_with_control',
    'mean_squares',
    'p_value',
    'smallest_difference',
    'standard_error',
    'with_family',
]

LEVEL = 0.05  # of false positives: intervals are of 95 %
POWER = 0.8
FEW_RUNS = 5  # with fewer the interval is wide: docs/statistics.md

# Shapes: k runs, n images; any leading dimensions are of repetitions.


class MeanSquares(NamedTuple):
    """Of runs (rows), images (columns) and what is left: a number each, or arrays."""

    runs: np.ndarray
    images: np.ndarray
    rest: np.ndarray


@dataclass(frozen=True)
class Difference:
    """A method minus the control, on the same images with the same seeds; accuracies in points.

    Attributes:
        method: the row that it is of.
        seeds: of the runs that both have.
        images: how many were tested.
        difference: mean over runs and images.
        of_runs: the difference of each run, by the order of `seeds`.
        fixed: images that the control has wrong and the method right, mean over runs.
        broken: the reverse.
        fixed_always: places of the images that are fixed in every run.
        broken_always: places of those that are broken in every run.
        error: standard error of the difference. It and what follows is None with one run, since
            that does not tell how much runs differ, and where no image was ever taken differently.
        df: degrees of freedom of the error.
        low: lower end of the 95 % interval, of this method alone.
        high: upper end.
        p: of no difference, of this method alone.
        holm_p: p after Holm's correction for all methods compared.
        smallest: the true difference that this comparison would have found with 80 % power, where
            Holm's correction is at its strictest.
        from_runs: share of the variance that more runs would lessen and more images not.
    """

    method: str
    seeds: tuple[int, ...]
    images: int
    difference: float
    of_runs: tuple[float, ...]
    fixed: float
    broken: float
    fixed_always: tuple[int, ...]
    broken_always: tuple[int, ...]
    error: float | None = None
    df: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    holm_p: float | None = None
    smallest: float | None = None
    from_runs: float | None = None

    @property
    def found(self) -> bool:
        """Whether it is more than chance, all methods considered."""
        return self.holm_p is not None and self.holm_p <= LEVEL


def mean_squares(y: np.ndarray) -> tuple[np.ndarray, MeanSquares]:
    """The mean of y (..., k, n), whole numbers of which k and n are 2 at least, and its squares."""
    k, n = y.shape[-2:]
    rows = y.sum(axis=-1, dtype=np.int64) / n
    columns = y.sum(axis=-2, dtype=np.int64) / k
    d = rows.mean(axis=-1)
    runs = n * ((rows - d[..., None]) ** 2).sum(axis=-1)
    images = k * ((columns - d[..., None]) ** 2).sum(axis=-1)
    squares = (y * y).sum(axis=(-2, -1), dtype=np.int64)
    # the sums of squares add up; rounding may leave less than nothing
    rest = np.maximum(squares - k * n * d**2 - runs - images, 0)
    return d, MeanSquares(runs / (k - 1), images / (n - 1), rest / ((k - 1) * (n - 1)))


def standard_error(squares: MeanSquares, k: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The standard error of d and its degrees of freedom; 0 and k - 1 where y is one number."""
    runs, images, rest = squares
    total = np.maximum(runs, rest) + np.maximum(images, rest) - rest  # k n Var(d)
    spread = runs**2 / (k - 1) + images**2 / (n - 1) + rest**2 / ((k - 1) * (n - 1))
    known = (spread > 0) & (k > 2)
    df = np.where(known, total**2 / np.where(spread > 0, spread, 1), k - 1)
    return np.sqrt(total / (k * n)), df


def p_value(d: np.ndarray, error: np.ndarray, df: np.ndarray) -> np.ndarray:
    """The chance of a difference as large as d, or larger, where there is none."""
    return 2 * t.sf(np.abs(d) / error, df)


def smallest_difference(error: np.ndarray, df: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """The true difference that is found, with its own sign, with a chance of `POWER`.

    By the noncentral t distribution at these degrees of freedom, with the error freed of its bias:
    the root of an unbiased estimate of a variance is on average c4(df) times the true root.

    Args:
        error: standard errors.
        df: their degrees of freedom.
        level: of the test.
    """
    critical = t.isf(level / 2, df)
    low, high = np.zeros_like(critical), critical.copy()
    while (short := nct.sf(critical, df, high) < POWER).any():
        high = np.where(short, 2 * high, high)
    for _ in range(50):
        middle = (low + high) / 2
        short = nct.sf(critical, df, middle) < POWER
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    c4 = np.sqrt(2 / df) * np.exp(gammaln((df + 1) / 2) - gammaln(df / 2))
    return high * error / c4


def compare_with_control(
    method: str, seeds: Sequence[int], right: np.ndarray, control: np.ndarray
) -> Difference:
    """A method minus the control, alone: `with_family` adds what other methods decide.

    Args:
        method: its name.
        seeds: of the runs.
        right: (k, n) whether run s of the method has image i right.
        control: (k, n) the same of the control.
    """
    k, n = right.shape
    y = right.astype(np.int8) - control.astype(np.int8)
    fixed, broken = y > 0, y < 0
    of_runs = 100 * y.sum(axis=1, dtype=np.int64) / n
    found = Difference(
        method=method,
        seeds=tuple(seeds),
        images=n,
        difference=float(of_runs.mean()),
        of_runs=tuple(of_runs.tolist()),
        fixed=float(fixed.sum() / k),
        broken=float(broken.sum() / k),
        fixed_always=tuple(np.flatnonzero(fixed.all(axis=0)).tolist()),
        broken_always=tuple(np.flatnonzero(broken.all(axis=0)).tolist()),
    )
    if k < 2 or n < 2 or (y == y[0, 0]).all():
        return found
    d, squares = mean_squares(y)
    error, df = standard_error(squares, k, n)
    half = t.isf(LEVEL / 2, df) * error
    from_runs = max(squares.runs - squares.rest, 0) / (k * n * error**2)
    return replace(
        found,
        error=100 * float(error),
        df=float(df),
        low=100 * max(-1.0, float(d - half)),
        high=100 * min(1.0, float(d + half)),
        p=float(p_value(d, error, df)),
        from_runs=float(from_runs),
    )


def with_family(differences: Sequence[Difference]) -> list[Difference]:
    """The same, with what depends on how many methods are compared.

    Holm's correction over those that have a p, and the smallest difference at level / how many.
    """
    tested = [found for found in differences if found.p is not None]
    if not tested:
        return list(differences)
    corrected = iter(multipletests([found.p for found in tested], method='holm')[1])
    level = LEVEL / len(tested)
    return [
        found
        if found.p is None
        else replace(
            found,
            holm_p=float(next(corrected)),
            smallest=float(smallest_difference(np.array(found.error), np.array(found.df), level)),
        )
        for found in differences
    ]


def mean_and_deviation(values: Sequence[float]) -> dict[str, float | None]:
    """Mean over runs, and the standard deviation between them (None with one)."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return {'mean': mean, 'deviation': None}
    squares = math.fsum((value - mean) ** 2 for value in values)
    return {'mean': mean, 'deviation': math.sqrt(squares / (len(values) - 1))}
