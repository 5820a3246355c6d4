"""What is in a folder of images, and what of it will spoil a training or a result.

Findings are of two levels: 'mend' is what makes a result wrong or stops a training, 'look' is what
a user should know.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from fgplugins.data.class_folders import COMPANIONS
from fgplugins.data.duplicates import (
    HASH_BITS,
    NEAR,
    DuplicateSet,
    duplicate_sets,
    fingerprints,
)
from fgplugins.data.images import is_clutter, is_image
from fgplugins.data.layouts import FLAT, read_parts
from fgplugins.data.split_files import find_split_file, images_folder
from fgplugins.data.splits import Split
from fgplugins.errors import UserError

__all__ = ['Finding', 'FolderCheck', 'check_folder']

TINY = 10  # training images: a class with fewer is hardly learnt
UNEQUAL = 10  # times as many training images in the largest class as in the smallest
ODD_AREA = 16  # times the median, or a part of it
ODD_SHAPE = 4  # times as long as wide
SHOWN = 6  # images of a set in its line
KINDS = {'file': 'same file', 'pixels': 'same pixels', 'near': 'near-duplicates'}


@dataclass
class Finding:
    """One thing found in a folder.

    Attributes:
        level: 'mend' | 'look'.
        text: what it is, and what to do.
        items: what it concerns, a line each.
    """

    level: str
    text: str
    items: list[str] = field(default_factory=list)


@dataclass
class FolderCheck:
    """What a check of a folder found.

    Attributes:
        folder: of the images.
        layout: its name.
        classes: their names.
        counts: images of each class, by part.
        sizes: 'smallest', 'median' and 'largest' width and height; empty without images.
        unreadable: the reason of each unreadable image, by its path in the folder.
        skipped: the reason of each file that is not read, by its path in the folder.
        duplicates: sets of images, by their paths in the folder.
        part_of: the part of each image, by its path in the folder.
        class_of: the class of each image.
        findings: what is wrong, or odd.
    """

    folder: str
    layout: str
    classes: list[str]
    counts: dict[str, list[int]]
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    duplicates: list[DuplicateSet] = field(default_factory=list)
    part_of: dict[str, str] = field(default_factory=dict)
    class_of: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def is_across(self, files: Sequence[str]) -> bool:
        """Whether images lie in several parts."""
        return len({self.part_of[name] for name in files}) > 1

    def is_contradiction(self, files: Sequence[str]) -> bool:
        """Whether images are of several classes."""
        return len({self.class_of[name] for name in files}) > 1

    def as_json(self) -> dict[str, object]:
        """All of it in plain lists and dictionaries."""
        return {
            'folder': self.folder,
            'layout': self.layout,
            'counts': {
                name: {part: counts[label] for part, counts in self.counts.items()}
                for label, name in enumerate(self.classes)
            },
            'sizes': {name: list(size) for name, size in self.sizes.items()},
            'unreadable': [{'file': f, 'reason': r} for f, r in self.unreadable.items()],
            'skipped': [{'file': f, 'reason': r} for f, r in self.skipped.items()],
            'duplicates': [
                {
                    'kind': one.kind,
                    'bits': one.distance,
                    'across_parts': self.is_across(one.files),
                    'across_classes': self.is_contradiction(one.files),
                    'images': [
                        {'file': f, 'part': self.part_of[f], 'class': self.class_of[f]}
                        for f in one.files
                    ],
                }
                for one in self.duplicates
            ],
            'findings': [vars(finding) for finding in self.findings],
        }


def check_folder(
    root: str,
    near: int = NEAR,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FolderCheck:
    """Check a folder of images in any layout of `fgplugins.data.layouts`, or class folders alone.

    Args:
        root: the data folder, or a split file.
        near: bits, of 256, in which the hashes of near-duplicates differ at most.
        workers: how many threads decode images.
        progress: called now and then with the number of images seen and of all.

    Raises:
        UserError: if the folder has no layout known here, or holds arrays.
    """
    layout, parts = read_parts(root)
    folder = Path(root).expanduser()
    if split_file := find_split_file(folder):
        folder = images_folder(split_file)
    if not all(isinstance(found.images, list) for found in parts.values()):
        raise UserError(
            f'folder {root!r} holds {layout}: arrays, of which there is no file to check'
        )

    def short(path: str) -> str:
        return Path(os.path.relpath(path, folder)).as_posix()

    classes = parts.get('train', parts.get('all')).classes
    counts = {part: _counts(found) for part, found in parts.items()}
    check = FolderCheck(str(folder), layout, classes, counts)
    for part, found in parts.items():
        for image, label in zip(found.images, found.labels, strict=True):
            check.part_of[short(image)] = part
            check.class_of[short(image)] = found.classes[label]
    images = sorted({image for found in parts.values() for image in found.images})
    prints, bad = fingerprints(images, workers, progress)
    check.unreadable = {short(path): reason for path, reason in sorted(bad.items())}
    check.skipped = _skipped(folder, set(check.part_of), split_file)
    check.duplicates = [
        one._replace(files=[short(path) for path in one.files])
        for one in duplicate_sets(prints, near)
    ]
    sizes = {short(path): one.size for path, one in prints.items()}
    check.findings += _of_files(check)
    check.findings += _of_duplicates(check)
    check.findings += _of_classes(check)
    if sizes:
        check.sizes, odd = _of_sizes(sizes)
        check.findings += odd
    notes = dict.fromkeys(note for found in parts.values() for note in found.notes)
    # skipped files are counted above
    check.findings += [Finding('look', note) for note in notes if not note.startswith('skipped')]
    check.findings.sort(key=lambda finding: finding.level != 'mend')
    return check


def _counts(found: Split) -> list[int]:
    of_label = Counter(found.labels)
    return [of_label[label] for label in range(len(found.classes))]


def _skipped(folder: Path, read: set[str], split_file: Path | None) -> dict[str, str]:
    """Why each file of a folder that is no image of the data is not read."""
    skipped = {}
    for path, folders, files in os.walk(folder):
        folders.sort()
        inside = Path(os.path.relpath(path, folder))
        hidden = any(is_clutter(name) for name in inside.parts if name != '.')
        for name in sorted(files):
            file = (inside / name).as_posix()
            if file in read or (split_file and Path(path, name) == split_file):
                continue
            suffix = Path(name).suffix.lower()
            if hidden or is_clutter(name):
                reason = 'hidden, or left by a system or program'
            elif suffix in COMPANIONS:
                reason = 'text beside images'
            elif is_image(name):
                reason = 'an image that the layout does not list'
            else:
                reason = f'no image ({suffix or "no ending"})'
            skipped[file] = reason
    return skipped


def _of_files(check: FolderCheck) -> list[Finding]:
    findings = []
    if check.unreadable:
        items = [f'{name}: {reason}' for name, reason in check.unreadable.items()]
        findings.append(
            Finding('mend', f'unreadable images: {len(items)}; replace or remove them', items)
        )
    by_reason: dict[str, list[str]] = {}
    for name, reason in check.skipped.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        findings.append(
            Finding('look', f'skipped: {_number(len(names), "file")}, {reason}, as {names[0]}')
        )
    return findings


def _of_duplicates(check: FolderCheck) -> list[Finding]:
    """Duplicates across splits first, then across classes, then the others."""
    across = [one for one in check.duplicates if check.is_across(one.files)]
    left = [one for one in check.duplicates if one not in across]
    wrong = [one for one in left if check.is_contradiction(one.files)]
    others = [one for one in left if one not in wrong]
    inside = 'within a split and class' if len(check.counts) > 1 else 'within a class'
    kept = '; split_data keeps each set together' if check.layout == FLAT else ''
    return [
        Finding(
            level,
            f'{KINDS[kind]} {where}: {_number(len(sets), "set")}, '
            f'{sum(len(one.files) for one in sets)} images{advice}',
            [_line(check, one) for one in sets],
        )
        for level, chosen, where, advice in (
            ('mend', across, f'across {", ".join(check.counts)}', '; keep each in one split only'),
            ('mend', wrong, 'in several classes', '; keep each in its own class only'),
            ('look', others, inside, kept),
        )
        for kind in KINDS
        if (sets := [one for one in chosen if one.kind == kind])
    ]


def _line(check: FolderCheck, one: DuplicateSet) -> str:
    """The images of a set; with their splits, or classes, where these differ."""
    named = check.part_of if check.is_across(one.files) else {}
    if not named and check.is_contradiction(one.files):
        named = check.class_of
    files = [f'{f} ({named[f]})' if named else f for f in one.files[:SHOWN]]
    if len(one.files) > SHOWN:
        files.append(f'and {len(one.files) - SHOWN} more')
    differ = f': fingerprints differ in {one.distance} of {HASH_BITS} bits'
    return ' = '.join(files) + (differ if one.kind == 'near' else '')


def _of_classes(check: FolderCheck) -> list[Finding]:
    findings = []
    if len(check.classes) == 1:
        findings.append(
            Finding('mend', f'{check.classes[0]} is the only class: there is nothing to tell apart')
        )
    for part, counts in check.counts.items():
        bare = [name for name, count in zip(check.classes, counts, strict=True) if not count]
        if bare:
            text = f'classes without {part} images: {len(bare)}'
            findings.append(Finding('mend', text, bare))
    part = 'train' if 'train' in check.counts else 'all'
    counts = dict(zip(check.classes, check.counts[part], strict=True))
    what = 'training images' if part == 'train' else 'images'
    tiny = [f'{name}: {count}' for name, count in counts.items() if 0 < count < TINY]
    if tiny:
        text = f'classes with fewer than {TINY} {what}: {len(tiny)}'
        findings.append(Finding('look', text, tiny))
    least, most = min(counts, key=counts.get), max(counts, key=counts.get)
    if counts[least] and counts[most] > UNEQUAL * counts[least]:
        findings.append(
            Finding(
                'look',
                f'imbalance: {most} has {counts[most]} {what}, {least} {counts[least]}: accuracy '
                'is mostly that of the large classes',
            )
        )
    if check.layout == FLAT:
        findings.append(
            Finding(
                'look',
                'no split yet: training needs one: '
                f'fgplugins split_data {check.folder} --val 0.2 --test 0.2',
            )
        )
    elif len(check.counts) == 1:
        text = f'nothing to test on: fgplugins split_data {check.folder} --test 0.2'
        findings.append(Finding('mend', text))
    return findings


def _of_sizes(
    sizes: Mapping[str, tuple[int, int]],
) -> tuple[dict[str, tuple[int, int]], list[Finding]]:
    """The smallest, median and largest size by area, and images far from the median."""

    def area(size: tuple[int, int]) -> int:
        return size[0] * size[1]

    middle = tuple(int(median(side)) for side in zip(*sizes.values(), strict=True))
    summary = {
        'smallest': min(sizes.values(), key=area),
        'median': middle,
        'largest': max(sizes.values(), key=area),
    }
    odd = [
        f'{name}: {size[0]} x {size[1]}'
        for name, size in sorted(sizes.items())
        if not area(middle) / ODD_AREA <= area(size) <= area(middle) * ODD_AREA
        or max(size) > ODD_SHAPE * min(size)
    ]
    text = (
        f'images of odd sizes: {len(odd)}; {ODD_AREA} times larger or smaller than the median '
        f'{middle[0]} x {middle[1]}, or {ODD_SHAPE} times as long as wide'
    )
    return summary, [Finding('look', text, odd)] if odd else []


def _number(count: int, noun: str) -> str:
    return f'{count} {noun}' if count == 1 else f'{count} {noun}s'
