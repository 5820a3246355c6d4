"""Folders of labelled images as people have them: a seed gives a folder and what must come of it.

Every image's upper rows are dark and its lower rows bright, in known colours, once it is upright.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

DARK, BRIGHT = 0.2, 0.8
NAMES = (
    'US$10_$5^^', 'two words', '乌鸦', '🐦‍⬛ blackbird', 'k' * 200, '鸟' * 66, ' before', 'after ',
    'dots...', 'it\'s a "quote"', '100%s %(x)d', 'new\nline', 'Crow', 'DUCK', '{brace}', '-dash',
    '#hash', '~tilde', 'train', 'image.jpg', 'back\\slash', 'a;b&c|d', '*?[x]', '00', '1e5', 'None',
    'caf\N{LATIN SMALL LETTER E WITH ACUTE}', '\N{IDEOGRAPHIC SPACE}wide', 'عصفور',
)  # fmt: skip
LISTED = ('Boeing 717-200', '乌鸦', 'Müller', 'A320', 'US$10', 'ruby-throat', "it's")
MODES = {
    'jpg': ('L', 'RGB', 'CMYK'),
    'jpeg': ('L', 'RGB', 'CMYK'),
    'JFIF': ('L', 'RGB'),
    'png': ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'),
    'gif': ('L', 'P'),
    'bmp': ('1', 'L', 'P', 'RGB'),
    'webp': ('RGB', 'RGBA'),
    'tif': ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'I;16', 'F'),
    'ppm': ('L', 'RGB', 'I;16'),
    'avif': ('RGB', 'RGBA'),
    'jp2': ('L', 'RGB', 'RGBA'),
    'tga': ('L', 'P', 'RGB', 'RGBA'),
}
SIZES = ((1, 1), (1, 37), (41, 1), (2, 3), (33, 47), (64, 64), (301, 203), (600, 400))  # (H, W)
WITH_EXIF = ('jpg', 'jpeg', 'JFIF', 'png', 'webp', 'tif')
LAID_DOWN: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # EXIF's orientation -> as stored
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@dataclass
class Picture:
    """What reading an image must give: its size, and the colours of its first and last row."""

    size: tuple[int, int]
    first: tuple[float, float, float]
    last: tuple[float, float, float]


@dataclass
class Expectation:
    """What must come of a folder.

    Attributes:
        mess: what was done to it, for whoever reads a failure.
        classes: in the order of the labels.
        counts: images of each class, by split.
        pictures: by path.
        refused: all that the one line of a refusal must hold; empty if nothing is refused.
    """

    mess: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


def draw(path: Path, mode: str, size: tuple[int, int], turn: int = 1) -> Picture:
    """Write an image, and say what must be read from it."""
    height, width = size
    values = np.full((height, width), BRIGHT)
    values[: max(height // 2, 1)] = DARK
    coloured = mode in ('RGB', 'RGBA', 'CMYK')
    tint = np.array((1, 0.5, 0.25)) if coloured else np.ones(3)
    stored = LAID_DOWN[turn](np.rint(values[..., None] * tint * 255).astype(np.uint8))
    if mode in ('I;16', 'F'):
        values = LAID_DOWN[turn](values)
        deep = np.rint(values * 65535).astype(np.uint16)
        image = Image.fromarray(deep if mode == 'I;16' else values.astype(np.float32))
    else:
        image = Image.fromarray(np.ascontiguousarray(stored))
        image = image.convert('RGBA' if mode == 'RGBA' else 'L' if not coloured else 'RGB')
        if mode == '1':
            image = image.point(lambda value: 255 * (value > 127)).convert('1')
        elif mode in ('P', 'LA', 'CMYK'):
            image = image.convert(mode)
        if mode in ('LA', 'RGBA'):
            image.putalpha(77)
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {'exif': exif} if turn != 1 else {}
    suffix = path.suffix.lower().lstrip('.')
    if suffix in ('jpg', 'jpeg', 'jfif'):
        options |= {'quality': 100, 'subsampling': 0}
    elif suffix == 'avif':
        options |= {'quality': 100, 'subsampling': '4:4:4'}
    elif suffix == 'webp':
        options |= {'lossless': True, 'exact': True}
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    dark, bright = (0, 1) if mode == '1' else (DARK, BRIGHT)
    last = bright if height > 1 else dark
    return Picture(size, tuple(dark * tint * 255), tuple(last * tint * 255))


class _Maker:
    """One folder in the making."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random, self.number = root, random.Random(seed), 0
        self.expected = Expectation()

    def say(self, text: str) -> None:
        self.expected.mess.append(text)

    def some_image(self, folder: Path, name: str | None = None, easy: bool = False) -> Path:
        """An image of a random kind under a random name."""
        suffix = 'jpg' if easy else self.random.choice(list(MODES))
        mode = 'RGB' if easy else self.random.choice(MODES[suffix])
        sizes = SIZES[4:] if easy or suffix in ('jp2', 'avif') else SIZES
        turn = (
            self.random.randint(1, 8) if suffix in WITH_EXIF and self.random.random() < 0.3 else 1
        )
        self.number += 1
        if name is None:
            stem = self.random.choice(NAMES) if self.random.random() < 0.3 else 'img'
            stem = stem.encode()[:200].decode(errors='ignore').lstrip('~')
            suffix = suffix.upper() if self.random.random() < 0.3 else suffix
            name = f'{stem}{self.number}.{suffix}'
        path = folder / name
        self.expected.pictures[str(path)] = draw(path, mode, self.random.choice(sizes), turn)
        return path

    def fill(self, split: str, folders: dict[str, Path], low: int = 2) -> None:
        counts = []
        for folder in folders.values():
            counts.append(self.random.randint(low, 4))
            for _ in range(counts[-1]):
                self.some_image(folder)
        self.expected.counts[split] = counts

    # ------------------------------------------------------------------------------- layouts

    def class_folders(self) -> None:
        train, test = self.random.choice(
            [
                ('train', 'test'),
                ('Train', 'valid'),
                ('TRAIN', 'Validation'),
                ('training', 'testing'),
                ('train', 'VAL'),
            ]
        )
        names = self.random.sample(NAMES, self.random.randint(2, 4))
        if self.random.random() < 0.2:
            names = [f'{self.random.choice(["family", "two words"])}/{name}' for name in names]
        self.say(f'{train}/ and {test}/ of {names}')
        names = self.expected.classes = sorted(names)
        self.train, self.test = self.root / train, self.root / test
        self.fill('train', {name: self.train / name for name in names})
        form = 'NFD' if self.random.random() < 0.3 else 'NFC'
        self.fill('test', {n: self.test / unicodedata.normalize(form, n) for n in names}, low=1)

    def listed(self) -> tuple[list[str], Callable[[Path, list[str]], None]]:
        """Class names for a layout of lists, and what writes these."""
        encoding = self.random.choice(['utf-8', 'utf-8-sig', 'utf-16', 'gb18030', 'cp1252'])
        names = [name for name in LISTED if name != ('Müller' if encoding == 'gb18030' else '')]
        if encoding == 'cp1252':
            names.remove('乌鸦')
        end = self.random.choice(['\n', '\r\n', ' \n', '\n\n'])
        self.say(f'lists in {encoding} with {end!r}')
        names = sorted(self.random.sample(names, self.random.randint(2, 4)))

        def write(path: Path, lines: list[str]) -> None:
            path.write_bytes((end.join(lines) + end).encode(encoding))

        return names, write

    def cub(self) -> None:
        self.say('CUB')
        names, write = self.listed()
        rows: list[tuple[str, int, int]] = []
        for split, flag in (('train', 1), ('test', 0)):
            counts = [self.random.randint(1, 3) for _ in names]
            self.expected.counts[split] = counts
            for label, name in enumerate(names):
                for _ in range(counts[label]):
                    path = self.some_image(self.root / 'images' / name, f'{self.number}.jpg', True)
                    rows.append((f'{name}/{path.name}', label + 1, flag))
        self.expected.classes = names
        for file, column in (('images', 0), ('image_class_labels', 1), ('train_test_split', 2)):
            write(
                self.root / f'{file}.txt', [f'{i} {row[column]}' for i, row in enumerate(rows, 1)]
            )
        write(self.root / 'classes.txt', [f'{i} {name}' for i, name in enumerate(names, 1)])

    def aircraft(self) -> None:
        self.say('FGVC-Aircraft')
        names, write = self.listed()
        for split, file in (('train', 'trainval'), ('test', 'test')):
            counts = [self.random.randint(1, 3) for _ in names]
            self.expected.counts[split], rows = counts, []
            for label, name in enumerate(names):
                for _ in range(counts[label]):
                    path = self.some_image(self.root / 'images', f'{self.number:07}.jpg', True)
                    rows.append(f'{path.stem} {name}')
            write(self.root / f'images_variant_{file}.txt', rows)
        self.expected.classes = names

    # ------------------------------------------------------------- what changes nothing, or all

    def class_folder(self) -> Path:
        return self.train / self.random.choice(self.expected.classes)

    def harmless(self) -> None:
        """Add what must not count, and move folders behind links."""
        folder, image = self.class_folder(), b'\xff\xd8 no image'
        for name in ('.ipynb_checkpoints', '@eaDir', '__MACOSX', '.Trash-1000', '$RECYCLE.BIN'):
            if self.random.random() < 0.3:
                inside = self.random.choice([self.root, self.train, folder]) / name
                inside.mkdir()
                (inside / 'x.jpg').write_bytes(image)
                self.say(f'{name} in {inside.parent}')
        for name in ('._x.jpg', '.DS_Store', 'Thumbs.db', 'notes.txt', 'boxes.json', 'film.mp4'):
            if self.random.random() < 0.3:
                (folder / name).write_bytes(image)
                self.say(f'{name} in {folder}')
        if self.random.random() < 0.2:
            (folder / 'round').symlink_to(self.random.choice([folder, self.train, self.root]))
            self.say('a link round and round')
        if self.random.random() < 0.3:
            away = self.root / '.store'
            folder.rename(away)
            folder.symlink_to(away)
            self.say(f'{folder} is a link')

    def break_images(self) -> None:
        """Damage up to three images: all must be named at once."""
        for _ in range(self.random.choice([1, 1, 2, 3])):
            path = Path(self.random.choice(sorted(set(self.expected.pictures))))
            how = self.random.choice(['cut', 'empty', 'text', 'HEIC', 'EPS', 'pointer', 'NaN', 'I'])
            del self.expected.pictures[str(path)]
            if how == 'cut':
                image = Image.effect_noise((90, 70), 80)
                image.save(path, self.random.choice(['JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP']))
                content = path.read_bytes()
                path.write_bytes(content[: int(len(content) * self.random.uniform(0.2, 0.9))])
            elif how in ('NaN', 'I'):
                kind, value = (np.float32, np.nan) if how == 'NaN' else (np.int32, 70000)
                Image.fromarray(np.full((9, 9), value, kind)).save(path, 'TIFF')
            else:
                path.write_bytes(
                    {
                        'empty': b'',
                        'text': b'<!DOCTYPE html><title>404</title>',
                        'HEIC': b'\0\0\0\x18ftypheic' + bytes(40),
                        'EPS': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n',
                        'pointer': b'version https://git-lfs.github.com/spec/v1\n',
                    }[how]
                )
            self.say(f'{path} is broken: {how}')
            self.expected.refused.append(path.name)

    def break_layout(self) -> None:
        """Make the folder one that cannot be meant, in one of many ways."""
        folder = self.class_folder()
        how = self.random.choice(
            ['only train', 'empty class', 'unknown class', 'dangling', 'HEIC', 'raw', 'loose',
             'mixed', 'flat', 'other case']
        )  # fmt: skip
        self.say(how)
        refused = self.expected.refused = [folder.name]
        if how == 'only train':
            self.test.rename(self.root / 'holdout')
            refused[:] = [f'{self.train.name}/']
        elif how == 'empty class':
            (self.train / 'nobody').mkdir()
            (self.train / 'nobody' / '.hidden.jpg').touch()
            refused[:] = ['nobody']
        elif how == 'unknown class':
            draw(self.test / 'stranger' / 'x.png', 'RGB', (9, 9))
            refused[:] = ['stranger']
        elif how == 'dangling':
            (folder / 'gone.jpg').symlink_to('/no/such/file.jpg')
            refused[:] = ['gone.jpg']
        elif how in ('HEIC', 'raw'):
            name = 'IMG_1.HEIC' if how == 'HEIC' else 'IMG_1.nef'
            (folder / name).write_bytes(bytes(40))
            refused[:] = [name, 'pillow-heif' if how == 'HEIC' else 'convert']
        elif how == 'loose':
            draw(self.train / 'loose.png', 'RGB', (9, 9))
            refused[:] = ['loose.png']
        elif how == 'mixed':
            draw(folder / 'inner' / 'x.png', 'RGB', (9, 9))
            refused[:] = ['inner']
        elif how == 'flat':
            inside = self.root / 'photos'
            self.train.rename(inside)
            for name in self.expected.classes:
                (inside / name).rename(self.root / f'flat{self.expected.classes.index(name)}')
            self.test.rename(self.root / '.away')
            refused[:] = ['flat0', 'no train/']
        elif how == 'other case':
            draw(self.train / 'Gull' / 'x.png', 'RGB', (9, 9))
            draw(self.test / 'gull' / 'x.png', 'RGB', (9, 9))
            refused[:] = ['Gull', 'gull', 'case']


def make_messy(root: Path, seed: int) -> Expectation:
    """Write a messy folder.

    Args:
        root: an empty folder to fill.
        seed: the same gives the same folder.

    Returns:
        What must come of it.
    """
    maker = _Maker(root, seed)
    layout = maker.random.choice(['folders'] * 6 + ['cub', 'aircraft'])
    fate = maker.random.choice(['good'] * 5 + ['broken images'] * 3 + ['broken layout'] * 2)
    if layout == 'folders':
        maker.class_folders()
        maker.harmless()
        if fate == 'broken layout':
            maker.break_layout()
    elif layout == 'cub':
        maker.cub()
    else:
        maker.aircraft()
    if fate == 'broken images':
        maker.break_images()
    return maker.expected
