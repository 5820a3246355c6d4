"""Images that are there twice: the same file, the same pixels, or the same picture saved again.

Two pictures are near-duplicates if their perceptual hashes, ImageHash's phash of 16 x 16
frequencies, differ in at most `NEAR` of 256 bits. docs/data.md has the figures that it was chosen
by. A picture of one colour has no such hash: only its pixels count.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fgplugins.data.images import read_or_reason
from fgplugins.errors import UserError

__all__ = [
    'HASH_BITS',
    'NEAR',
    'DuplicateSet',
    'Fingerprint',
    'duplicate_sets',
    'fingerprint',
    'fingerprints',
    'near_pairs',
    'same_files',
]

NEAR = 24  # bits
HASH_SIDE = 16
HASH_BITS = HASH_SIDE**2
PLAIN = 2.0  # a deviation of grey levels, of 255, below which a picture shows nothing
CHUNK = 64  # images between two reports of progress
CELLS = 1 << 20  # pairs that are compared at once


class Fingerprint(NamedTuple):
    """What tells an image from others.

    Attributes:
        size: width and height of the upright image.
        content: digest of the file.
        pixels: digest of the upright RGB pixels and their shape.
        look: the perceptual hash, `HASH_BITS` packed into bytes; None for a plain picture.
    """

    size: tuple[int, int]
    content: bytes
    pixels: bytes
    look: bytes | None


class DuplicateSet(NamedTuple):
    """Images that are one picture.

    Attributes:
        kind: 'file' | 'pixels' | 'near'.
        files: their paths, sorted.
        distance: for 'near' the largest number of bits between two that were linked; else 0.
    """

    kind: str
    files: list[str]
    distance: int


def fingerprint(path: str) -> Fingerprint | str:
    """An image's fingerprint, or the reason why training would refuse it."""
    content, pixels = read_or_reason(path)
    if isinstance(pixels, str):
        return pixels
    H, W, _ = pixels.shape
    grey = Image.fromarray(pixels).convert('L')
    small = np.asarray(grey.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BOX))
    look = None
    if small.std() >= PLAIN:
        look = np.packbits(_imagehash().phash(grey, HASH_SIDE).hash).tobytes()
    shape = f'{H} {W} '.encode()
    return Fingerprint((W, H), _digest(content), _digest(shape, pixels.data), look)


def fingerprints(
    paths: Sequence[str],
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Fingerprint], dict[str, str]]:
    """The fingerprints of images, and the reasons of those that cannot be read.

    Args:
        paths: of the images.
        workers: how many threads decode.
        progress: called now and then with the number of images seen and of all.

    Raises:
        UserError: if ImageHash, or a NumPy that counts bits, is not installed.
    """
    _imagehash()
    good: dict[str, Fingerprint] = {}
    bad: dict[str, str] = {}
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), CHUNK * workers):
            chunk = paths[start : start + CHUNK * workers]
            for path, found in zip(chunk, pool.map(fingerprint, chunk), strict=True):
                if isinstance(found, str):
                    bad[path] = found
                else:
                    good[path] = found
            if progress is not None:
                progress(start + len(chunk), len(paths))
    return good, bad


def same_files(parts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Sets of equal files that lie in several parts; of those alone whose sizes are, any is read.

    Args:
        parts: the paths of each part; one path in several parts is no set by itself.

    Returns:
        The paths of each set, sorted.
    """
    where: dict[str, set[int]] = defaultdict(set)
    for number, paths in enumerate(parts):
        for path in paths:
            where[path].add(number)
    by_size: dict[Hashable, list[str]] = defaultdict(list)
    for path in where:
        by_size[Path(path).stat().st_size].append(path)

    def apart(paths: Sequence[str]) -> bool:
        return len({frozenset(where[path]) for path in paths}) > 1

    found: dict[Hashable, list[str]] = defaultdict(list)
    for paths in by_size.values():
        for path in paths if apart(paths) else ():
            found[_digest(Path(path).read_bytes())].append(path)
    return sorted(sorted(paths) for paths in found.values() if apart(paths))


def near_pairs(
    looks: np.ndarray, most: int, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of hashes that differ in few bits.

    Of two hashes in b blocks that differ in at most m bits, one block at least differs in no more
    than m / b: candidates are looked up by each block with each such difference, and then counted.

    Args:
        looks: (n, bytes), a multiple of two bytes each.
        most: the largest number of bits to differ in.
        progress: called now and then with the amounts of work done and of all.

    Returns:
        i and j, i < j, and the number of bits, one of each a pair, sorted by i and j.
    """
    blocks = np.ascontiguousarray(looks).view(np.uint16)  # (n, b)
    n, b = blocks.shape
    differences = [
        sum(1 << bit for bit in bits)
        for count in range(most // b + 1)
        for bits in itertools.combinations(range(16), count)
    ]
    found = [np.zeros(0, np.int64)]
    for done, block in enumerate(blocks.T):
        order = np.argsort(block, kind='stable')
        ordered = block[order]
        for difference in differences:
            wanted = block ^ np.uint16(difference)
            low = np.searchsorted(ordered, wanted)
            counts = np.searchsorted(ordered, wanted, side='right') - low
            for i, j in _ranges(low, counts):
                j = order[j]
                i, j = i[i < j], j[i < j]
                bits = np.bitwise_count(blocks[i] ^ blocks[j]).sum(1, dtype=np.int64)
                found.append((i * n + j)[bits <= most])
        if progress is not None:
            progress(done + 1, b)
    i, j = np.divmod(np.unique(np.concatenate(found)), max(n, 1))
    return i, j, np.bitwise_count(blocks[i] ^ blocks[j]).sum(1, dtype=np.int64)


def _ranges(low: np.ndarray, counts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All (i, j), j from ``low[i]`` on and ``counts[i]`` of them, some `CELLS` at a time."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + CELLS)), start + 1)
        i = np.repeat(np.arange(start, stop), counts[start:stop])
        within = np.arange(len(i)) - np.repeat(
            ends[start:stop] - counts[start:stop] - before, counts[start:stop]
        )
        yield i, low[i] + within
        start = stop


def duplicate_sets(
    prints: Mapping[str, Fingerprint],
    most: int = NEAR,
    progress: Callable[[int, int], None] | None = None,
) -> list[DuplicateSet]:
    """The sets of images that are one picture, of a file in each kind the largest.

    A set of a weaker kind that has no other images than one of a stronger kind is left out.

    Args:
        prints: of the images, by their paths.
        most: bits between near-duplicates; below 0 these are not looked for.
        progress: as of `near_pairs`.

    Returns:
        The sets, files first, then pixels, then near; each kind in the order of its first image.
    """
    sets: list[DuplicateSet] = []
    for kind in ('file', 'pixels'):
        of_digest: dict[Hashable, list[str]] = defaultdict(list)
        for path in sorted(prints):
            of_digest[prints[path].content if kind == 'file' else prints[path].pixels].append(path)
        sets += [DuplicateSet(kind, files, 0) for files in of_digest.values() if len(files) > 1]
    if most >= 0:
        sets += _near_sets(prints, most, progress)
    kept, known = [], set()
    for one in sets:
        if tuple(one.files) not in known:
            known.add(tuple(one.files))
            kept.append(one)
    return kept


def _near_sets(
    prints: Mapping[str, Fingerprint],
    most: int,
    progress: Callable[[int, int], None] | None,
) -> list[DuplicateSet]:
    paths = [path for path in sorted(prints) if prints[path].look is not None]
    if len(paths) < 2:
        return []
    packed = np.frombuffer(b''.join(prints[path].look for path in paths), np.uint8)
    looks, place = np.unique(packed.reshape(len(paths), -1), axis=0, return_inverse=True)
    i, j, bits = near_pairs(looks, most, progress)
    links = coo_array((np.ones(len(i)), (i, j)), shape=(len(looks), len(looks)))
    component = connected_components(links, directed=False)[1]
    largest: dict[int, int] = defaultdict(int)
    for name, count in zip(component[i].tolist(), bits.tolist(), strict=True):
        largest[name] = max(largest[name], count)
    members: dict[int, list[str]] = defaultdict(list)
    for path, name in zip(paths, component[place.reshape(-1)].tolist(), strict=True):
        members[name].append(path)
    return [
        DuplicateSet('near', files, largest[name])
        for name, files in members.items()
        if len(files) > 1
    ]


def _digest(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _imagehash() -> object:
    try:
        import imagehash
    except ImportError:
        raise UserError("near-duplicates need ImageHash: pip install 'fgplugins[data]'") from None
    if not hasattr(np, 'bitwise_count'):
        raise UserError(f'near-duplicates need NumPy 2, and {np.__version__} is installed')
    return imagehash
