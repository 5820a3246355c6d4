"""A folder of images divided into training, validation and test images.

Each class keeps the asked shares as nearly as its groups allow: images of one group, as the photos
of one animal or copies of one picture, never part. Groups are placed from large to small (sizes of
the same power of two count as equal), in an order that only the seed and their names decide, each
where its classes lack most. So the same seed gives the same split on any machine, whatever the
order of the files.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fgplugins.data.classes import same_form
from fgplugins.data.duplicates import NEAR, duplicate_sets, fingerprints
from fgplugins.data.images import check_decodable, printable
from fgplugins.data.layouts import read_parts
from fgplugins.data.split_files import PARTS
from fgplugins.data.splits import Split
from fgplugins.errors import UserError

__all__ = ['Division', 'assign', 'check_shares', 'divide_folder', 'groups_by_pattern']


class Division(NamedTuple):
    """A folder that was divided.

    Attributes:
        parts: the images by part.
        together: sets of several images that belong together, by their paths in the folder.
        asked: the shares of 'train', 'val' and 'test' among the images that were divided.
        divided: which parts were filled anew; the others lay apart in the folder.
        notes: what a user should know, a line each.
    """

    parts: dict[str, Split]
    together: list[list[str]]
    asked: dict[str, float]
    divided: list[str]
    notes: list[str]


def check_shares(val: float, test: float) -> None:
    """Refuse shares that cannot be had.

    Raises:
        UserError: naming the share.
    """
    for name, share in (('val', val), ('test', test)):
        if not 0 <= share < 1:
            raise UserError(f'--{name} {share:g}: must be 0 or more and below 1, as 0.2')
    if not val and not test:
        raise UserError('neither --val nor --test is above 0: give shares, as --val 0.2 --test 0.2')
    if val + test >= 1:
        raise UserError(
            f'--val {val:g} and --test {test:g} leave nothing to train on: together they must be '
            'below 1, as 0.2 and 0.2'
        )


def groups_by_pattern(names: Sequence[str], pattern: str) -> dict[str, str]:
    """The group of each name that a pattern matches: its first group, or else the whole match.

    Raises:
        UserError: if it is no pattern, or matches no name.
    """
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise UserError(f'--group {pattern!r}: is no regular expression: {error}') from None
    found = {name: match for name in names if (match := search(name))}
    if not found:
        raise UserError(
            f'--group {pattern!r}: matches none of {len(names)} paths, as {printable(names[0])}'
        )
    return {
        name: next((text for text in match.groups()[:1] if text is not None), match[0])
        for name, match in found.items()
    }


def assign(
    names: Sequence[str], labels: Sequence[int], groups: Sequence[str], shares: Mapping[str, float],
    seed: int,
) -> list[str]:  # fmt: skip
    """The part of each image.

    Of every class each part gets one group at least, wherever groups of several classes allow.

    Args:
        names: of the images; no two are the same.
        labels: one class index an image.
        groups: one name an image.
        shares: of each part, above 0; they sum to 1.
        seed: of the order of groups.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(names)), key=lambda index: names[index]):
        members[groups[index]].append(index)
    of_group = {group: Counter(labels[i] for i in own) for group, own in members.items()}
    totals = Counter(labels)
    wanted = {label: _targets(count, shares) for label, count in totals.items()}
    empty = {label: set(shares) for label in totals}
    left = Counter(label for counts in of_group.values() for label in counts)

    def place(group: str) -> tuple[int, bytes]:
        text = f'{seed}/{names[members[group][0]]}'
        size = len(members[group]).bit_length()
        return -size, hashlib.sha256(text.encode(errors='surrogatepass')).digest()

    part_of = [''] * len(names)
    for group in sorted(members, key=place):
        counts = of_group[group]
        open_parts = set(shares)
        for label in counts:  # the last groups of a class go where it has none yet
            if left[label] <= len(empty[label]):
                open_parts = (open_parts & empty[label]) or open_parts

        def lack(part: str, counts: Counter = counts) -> float:
            return sum(n * wanted[y][part] / totals[y] ** 2 for y, n in counts.items())

        part = max((p for p in shares if p in open_parts), key=lack)
        for label, count in counts.items():
            wanted[label][part] -= count
            empty[label].discard(part)
            left[label] -= 1
        for index in members[group]:
            part_of[index] = part
    return part_of


def _targets(count: int, shares: Mapping[str, float]) -> dict[str, float]:
    """How many images of a class each part should have: whole numbers, the rest for training."""
    targets = {p: max(1, round(count * share)) for p, share in shares.items() if p != 'train'}
    return {'train': count - sum(targets.values()), **targets}


def divide_folder(
    root: str,
    val: float = 0,
    test: float = 0,
    group: str | None = None,
    seed: int = 0,
    near: int | None = NEAR,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Division:
    """Divide class folders, or the training images of a folder that has others to test on.

    A split file in the folder is not read.

    Args:
        root: the folder.
        val: share of the images to validate on.
        test: share of the images to test on.
        group: a regular expression, searched for in the images' paths in the folder: its first
            group, or else the whole match, names the group.
        seed: of the choice.
        near: bits in which the hashes of near-duplicates differ at most: these stay together, as
            do equal files; None for no look at the images.
        workers: how many threads decode images.
        progress: called now and then with the number of images seen and of all.

    Raises:
        UserError: if that cannot be done; the message says what would work.
    """
    check_shares(val, test)
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f'{root!r} is not a folder: give the one that holds a folder per class')
    layout, parts = read_parts(root, split_file=False)
    for found in parts.values():
        if not isinstance(found.images, list):
            raise UserError(f'{root!r} holds {layout}: arrays, which a file of paths cannot divide')
        check_decodable(found.images)
    for part, share in (('val', val), ('test', test)):
        if share and part in parts:
            raise UserError(
                f'--{part} {share:g}: {printable(folder)} has {part} images of its own, which '
                f'stay: leave --{part} out'
            )
    pool = parts.pop('all', None) or parts.pop('train')
    shares = {'train': 1 - val - test, 'val': val, 'test': test}
    shares = {part: share for part, share in shares.items() if share}

    def short(path: str) -> str:
        return same_form(Path(os.path.relpath(path, folder)).as_posix())

    paths = [short(path) for path in pool.images]
    fixed = [short(path) for found in parts.values() for path in found.images]
    links = []
    notes = [note for note in pool.notes if not note.startswith('skipped')]
    if pool.groups is not None:
        links += _sets(zip(paths, pool.groups, strict=True))
    if group is not None:
        named = groups_by_pattern(paths, group)
        fixed_groups = {m for m in _matches(fixed, group).values()}
        alone = len(paths) - len(named)
        notes.append(f'groups by {group!r}: {len(set(named.values()))}')
        if alone:
            first = next(name for name in paths if name not in named)
            notes.append(f'images that it does not match, each on its own: {alone}, as {first}')
        shared = [name for name in paths if named.get(name) in fixed_groups]
        if shared:
            notes.append(
                f'training images in a group of {" or ".join(parts)} images, which stay where '
                f'they are: {len(shared)}, as {printable(shared[0])}'
            )
        links += _sets(named.items())
    if near is not None:
        prints, bad = fingerprints(pool.images, workers, progress)
        if bad:
            path, reason = next(iter(bad.items()))
            raise UserError(
                f'{len(bad)} images cannot be read, as {printable(path)}: {reason}; fgplugins '
                f'check_data {printable(folder)} names all: replace or remove them'
            )
        sets = [[short(path) for path in one.files] for one in duplicate_sets(prints, near)]
        notes.append(
            f'duplicates and near-duplicates kept together: {len({n for s in sets for n in s})} '
            'images'
        )
        links += sets
    groups = _joined(paths, links)
    _check_enough(pool, groups, shares)
    part_of = assign(paths, pool.labels, groups, shares, seed)
    new = {
        part: pool.take([i for i, name in enumerate(part_of) if name == part]) for part in shares
    }
    _check_parts(pool.classes, new)
    whole = {part: new.get(part) or parts.get(part) for part in PARTS}
    size = Counter(groups)
    together: dict[str, list[str]] = defaultdict(list)
    for path, name in zip(paths, groups, strict=True):
        if size[name] > 1:
            together[name].append(path)
    kept = {part: found for part, found in whole.items() if found}
    return Division(kept, list(together.values()), shares, list(new), notes)


def _matches(names: Sequence[str], pattern: str) -> dict[str, str]:
    """As `groups_by_pattern`, of names that it need not match."""
    return groups_by_pattern(names, pattern) if any(re.search(pattern, n) for n in names) else {}


def _sets(named: Iterable[tuple[str, str]]) -> list[list[str]]:
    of_group: dict[str, list[str]] = defaultdict(list)
    for name, group in named:
        of_group[group].append(name)
    return list(of_group.values())


def _joined(names: Sequence[str], links: Iterable[Sequence[str]]) -> list[str]:
    """One group an image, named by its first image, so that sets which share an image are one."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for linked in links:
        for name in linked[1:]:
            one, other = sorted((root(linked[0]), root(name)))
            parent[other] = one
    return [root(name) for name in names]


def _check_enough(pool: Split, groups: Sequence[str], shares: Mapping[str, float]) -> None:
    """Refuse classes with fewer groups than there are parts."""
    of_class: dict[int, set[str]] = defaultdict(set)
    for label, group in zip(pool.labels, groups, strict=True):
        of_class[label].add(group)
    counts = Counter(pool.labels)
    few = [label for label in range(len(pool.classes)) if len(of_class[label]) < len(shares)]
    if not few:
        return
    label = few[0]
    own = f'{counts[label]} image{"" if counts[label] == 1 else "s"}'
    if len(of_class[label]) < counts[label]:
        own += f' in {len(of_class[label])} group{"" if len(of_class[label]) == 1 else "s"}'
        own += ' that may not be parted'
    others = f' (and {len(few) - 1} more)' if len(few) > 1 else ''
    raise UserError(
        f'class {pool.classes[label]!r}{others} has {own}: too few for {", ".join(shares)}: add '
        f'images until it has {len(shares)}, move the folder away, or ask for fewer parts'
    )


def _check_parts(classes: Sequence[str], parts: Mapping[str, Split]) -> None:
    """Refuse a division in which a class lacks a part, for groups that hold several classes."""
    for part, found in parts.items():
        bare = [name for label, name in enumerate(classes) if label not in set(found.labels)]
        if bare:
            raise UserError(
                f'class {bare[0]!r} has no {part} images, for its groups hold other classes too: '
                'a narrower --group, another --seed or other shares may help'
            )
