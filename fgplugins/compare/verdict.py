"""The answer in sentences, made from the differences and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from fgplugins.compare.statistics import FEW_RUNS, LEVEL, Difference

__all__ = ['MOST', 'listed', 'remarks', 'verdict']

PLAIN = 'the plain network'
MOST = 100.0  # points that a difference can have


def listed(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return ' and '.join([*([', '.join(names[:-1])] if names[1:] else []), *names[-1:]])


def verdict(differences: Sequence[Difference], control: bool = True) -> str:
    """What the comparison says.

    Args:
        differences: of every method that can be compared, after `statistics.with_family`.
        control: whether the control has a finished run.
    """
    if not control:
        return 'The plain network has no finished run, so nothing can be compared with it.'
    if not differences:
        return 'Only the plain network was run: there is nothing to compare it with.'
    known = [found for found in differences if found.p is not None]
    found = sorted((d for d in known if d.found), key=lambda d: -d.difference)
    others = [d for d in known if not d.found]
    said = [_found(d) for d in found]
    if others:
        said.append(_nothing_found(others, after=bool(found)))
    single = [d for d in differences if d.p is None and len(d.seeds) == 1]
    if single:
        said.append(_single(single))
    same = [d for d in differences if d.p is None and len(d.seeds) > 1]
    if same:
        methods = listed([d.method for d in same])
        said.append(f'Every run of {methods} had the same images right as {PLAIN}.')
    return ' '.join(said)


def remarks(
    differences: Sequence[Difference], unfinished: Sequence[str] = (), lost: Sequence[str] = ()
) -> list[str]:
    """What a reader has to know beside the verdict, a sentence or two each.

    Args:
        differences: as of `verdict`.
        unfinished: methods without a finished run that could be compared.
        lost: methods of which some runs are not finished.
    """
    said = []
    known = [d for d in differences if d.p is not None]
    fewest = min((len(d.seeds) for d in known), default=FEW_RUNS)
    if fewest < FEW_RUNS:
        said.append(
            f'With {fewest} seeds it is hardly known how much runs differ by chance, so the '
            f'intervals are wide: {FEW_RUNS} seeds or more see smaller differences.'
            + (
                ' And of several methods one may seem to differ more often than Holm p says.'
                if len(known) > 1
                else ''
            )
        )
    for d in known:
        if not d.found and d.p <= LEVEL:
            said.append(
                f"{d.method}'s own interval leaves out zero ({d.low:.1f} to {d.high:.1f}), but "
                f'with {len(known)} methods compared one may do so by chance ({_p(d)}).'
            )
    if unfinished:
        have = 'has' if len(unfinished) == 1 else 'have'
        said.append(f'Nothing is said of {listed(unfinished)}, which {have} no finished run.')
    if lost:
        said.append(f'Some runs of {listed(lost)} are not finished, and not counted.')
    return said


def _found(d: Difference) -> str:
    side, ends = ('better', (d.low, d.high)) if d.difference > 0 else ('worse', (-d.high, -d.low))
    return (
        f'{d.method} is {side} than {PLAIN} by {abs(d.difference):.1f} points '
        f'(95 % interval {ends[0]:.1f} to {ends[1]:.1f}, {_p(d)}).'
    )


def _p(d: Difference) -> str:
    return 'Holm p < 0.001' if d.holm_p < 0.001 else f'Holm p = {d.holm_p:.3f}'


def _range(values: Sequence[float], form: str = '{}') -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f'{low} to {high}'


def _points(values: Sequence[float]) -> str:
    """Differences that could be seen; there is none of more than 100 points."""
    if max(values) <= MOST:
        return f'{_range(values, "{:.1f}")} points'
    few = [value for value in values if value <= MOST]
    seen = f'{_range(few, "{:.1f}")} points for some, for others ' if few else ''
    return f'{seen}no difference, however large'


def _nothing_found(others: Sequence[Difference], after: bool) -> str:
    """Of methods whose difference may be chance."""
    names = [d.method for d in others]
    seeds = _range([len(d.seeds) for d in others])
    images = _range([d.images for d in others])
    smallest = _points([d.smallest for d in others])
    verb = 'differs' if len(names) == 1 else 'differ'
    if after:
        start = f'{listed(names)} {verb} from it by no more than'
    elif len(names) == 1:
        start = f'On these images {names[0]} differs from {PLAIN} by no more than'
    else:
        start = f'On these images no method differs from {PLAIN} by more than'
    ending = ', by method' if ' to ' in smallest else ''
    return f'{start} what {seeds} seeds and {images} images could show: {smallest}{ending}.'


def _single(single: Sequence[Difference]) -> str:
    """Of methods with one run."""
    parts = [f'{d.method} {d.difference:+.1f} points' for d in single]
    return (
        f'One seed does not tell how much runs differ by chance, so no difference to {PLAIN} can '
        f'be called real: {listed(parts)}. Run {FEW_RUNS} seeds or more.'
    )
