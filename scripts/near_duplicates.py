"""How far the hashes of copies lie apart, and of different images: the table of docs/data.md.

    python scripts/near_duplicates.py ~/birds

Every image of the folder is copied: resized by -5 %, +5 % and to half its size, and saved as a JPEG
of quality 75. The hash of each copy is compared with its original's, and every pair of originals.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from fgplugins.data.duplicates import Fingerprint, fingerprint, near_pairs
from fgplugins.data.images import find_images, read_image
from fgplugins.utils.command_line import command_parser, main_guard

SCALES = (0.95, 1.05, 0.5)
BITS = (0, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 56)


def prints_of(path: Path) -> list[Fingerprint]:
    """The fingerprints of an image and of its copies."""
    image = Image.fromarray(read_image(path))
    found = [fingerprint(str(path))]
    with TemporaryDirectory() as folder:
        for scale in SCALES:
            size = tuple(max(1, round(side * scale)) for side in image.size)
            content = io.BytesIO()
            image.resize(size, Image.Resampling.LANCZOS).save(content, 'JPEG', quality=75)
            copy = Path(folder, 'copy.jpg')
            copy.write_bytes(content.getvalue())
            found.append(fingerprint(str(copy)))
    return found


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument('folder')
    paths = find_images(parser.parse_args().folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        prints = list(pool.map(prints_of, paths))
    prints = [own for own in prints if all(one.look for one in own)]
    looks = np.array([[np.frombuffer(one.look, np.uint8) for one in own] for own in prints])
    copies = np.bitwise_count(looks[:, 1:] ^ looks[:, :1]).sum(2, dtype=int)
    i, j, bits = near_pairs(looks[:, 0], BITS[-1])
    print(f'{len(prints)} images, {len(prints) * (len(prints) - 1) // 2} pairs')
    print('bits at most', *(f'copies at {scale:g}' for scale in SCALES), 'pairs', sep=' | ')
    for most in BITS:
        print(most, *(copies <= most).sum(0), (bits <= most).sum(), sep=' | ')
    print('largest of a copy', *copies.max(0), '', sep=' | ')
    for n in np.argsort(bits, kind='stable'):
        print(f'{bits[n]} bits: {paths[i[n]]} = {paths[j[n]]}')


if __name__ == '__main__':
    main_guard(main)
