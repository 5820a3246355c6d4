"""A check of a folder, and a division, as text to read."""

from __future__ import annotations

from collections import Counter

from fgplugins.data.folder_check import FolderCheck
from fgplugins.data.images import printable
from fgplugins.data.splitting import Division

__all__ = ['as_table', 'division_report', 'folder_report']

ROWS = 40  # classes in a table, or else the smallest few
FEW = 15
ITEMS = 10  # lines of one finding; unreadable images are all named


def folder_report(check: FolderCheck) -> str:
    """The counts as a table, then what should be mended, then what else to know."""
    total = sum(map(sum, check.counts.values()))
    lines = [f'{printable(check.folder)}: {total} images of {len(check.classes)} classes']
    lines += [f'layout: {check.layout}', '']
    lines += as_table(check.classes, check.counts)
    if check.sizes:
        sizes = [f'{name} {W} x {H}' for name, (W, H) in check.sizes.items()]
        lines += ['', f'sizes, width x height: {", ".join(sizes)}']
    for level, title in (('mend', 'TO MEND'), ('look', 'to know')):
        findings = [finding for finding in check.findings if finding.level == level]
        if findings:
            lines += ['', title]
        for finding in findings:
            lines.append(f'  * {printable(finding.text)}')
            whole = finding.text.startswith('unreadable')
            shown = finding.items if whole else finding.items[:ITEMS]
            lines += [f'      {printable(item)}' for item in shown]
            if len(shown) < len(finding.items):
                lines.append(
                    f'      and {len(finding.items) - len(shown)} more: --json FILE has all'
                )
    mend = sum(finding.level == 'mend' for finding in check.findings)
    noun = 'point' if mend == 1 else 'points'
    lines += ['', f'{mend} {noun} to mend' if mend else 'nothing to mend']
    return '\n'.join(lines)


def as_table(
    classes: list[str],
    counts: dict[str, list[int]],
    shares: dict[str, list[float]] | None = None,
) -> list[str]:
    """The number of images of each class in each part, and of all.

    Of many classes only those with the fewest images of the first part are shown.

    Args:
        classes: their names.
        counts: by part, one a class.
        shares: in per cent, by part, one a class and one for all; shown beside the counts.
    """
    first, shares = next(iter(counts.values())), shares or {}
    shown = list(range(len(classes)))
    if len(classes) > ROWS:
        shown = sorted(sorted(shown, key=lambda label: (first[label], label))[:FEW])
    titles = ['images' if part == 'all' else part for part in counts]
    rows = [['class', *titles, *(f'{part} %' for part in shares)]]
    for label in shown:
        numbers = [str(own[label]) for own in counts.values()]
        numbers += [f'{own[label]:.1f}' for own in shares.values()]
        rows.append([printable(classes[label]), *numbers])
    left = [label for label in range(len(classes)) if label not in set(shown)]
    if left:
        rows.append([f'{len(left)} others'])
        for own, form in [(own, '') for own in counts.values()] + [
            (own, '.1f') for own in shares.values()
        ]:
            low, high = (format(pick(own[i] for i in left), form) for pick in (min, max))
            rows[-1].append(low if low == high else f'{low} to {high}')
    numbers = [str(sum(own)) for own in counts.values()]
    rows.append(['all', *numbers, *(f'{own[-1]:.1f}' for own in shares.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        '  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def division_report(division: Division) -> str:
    """The images of each class and part, and which class is farthest from the asked shares."""
    classes = next(iter(division.parts.values())).classes
    counts = {
        part: [Counter(found.labels)[label] for label in range(len(classes))]
        for part, found in division.parts.items()
    }
    own = [sum(counts[part][label] for part in division.divided) for label in range(len(classes))]
    shares = {
        part: [
            100 * n / total
            for n, total in zip([*counts[part], sum(counts[part])], [*own, sum(own)], strict=True)
        ]
        for part in division.divided
    }
    lines = as_table(classes, counts, shares)
    asked = ', '.join(f'{part} {100 * share:.4g} %' for part, share in division.asked.items())
    off = [
        (abs(shares[part][label] - 100 * division.asked[part]), part, label)
        for part in division.divided
        for label in range(len(classes))
    ]
    far, part, label = max(off)
    name = f'{printable(classes[label])}, {part} {shares[part][label]:.1f} %'
    lines += ['', f'asked: {asked}; farthest from it: {name} ({far:.1f} points off)']
    kept = [part for part in division.parts if part not in division.divided]
    if kept:
        lines.append(f'as they were: {", ".join(kept)}')
    return '\n'.join(lines + [f'note: {printable(note)}' for note in division.notes])
