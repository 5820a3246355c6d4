"""Folders of labelled images, read in whichever of the usual layouts they come in.

``read_split(root, 'train')`` knows
  * one folder per class: ``train/<class>/*.jpg`` and ``test/`` (or ``val/``, ``valid/``), in upper
    or lower case; classes in folders of folders are named by their path, as 'ducks/mallard';
  * CUB-200-2011 as published: ``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt``
    (1 = train) and ``images/``; also the 100-species subset of it that separates by commas, counts
    from zero and flags its test images by 1;
  * CIFAR-10 and CIFAR-100 as published for Python;
  * SVHN's cropped digits as published: ``train_32x32.mat`` and ``test_32x32.mat``;
  * Stanford Cars as published: ``cars_annos.mat`` and ``car_ims/``;
  * FGVC-Aircraft as published: ``data/images_variant_trainval.txt`` and ``data/images/``;
  * Caltech-256 as published: ``256_ObjectCategories/001.ak47/*.jpg`` and so on. It has no official
    split: 25 random images a category are for testing, the others for training.
"""

from __future__ import annotations

import codecs
import pickle
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from fgplugins.data.images import check_decodable, is_clutter, is_image, shown, walk
from fgplugins.errors import UserError

__all__ = [
    'LAYOUTS',
    'Split',
    'has_validation',
    'in_order_of',
    'read_lines',
    'read_split',
    'read_text',
]

TRAIN_FOLDERS = ('train', 'training')
TEST_FOLDERS = ('test', 'testing')
VAL_FOLDERS = ('val', 'valid', 'validation')
# what is often kept beside images, so that skipping it needs no word
COMPANIONS = ('.aae', '.csv', '.json', '.md', '.thm', '.txt', '.xml', '.xmp', '.yaml', '.yml')
LAYOUTS = (
    'train/<class>/*.jpg and test/<class>/*.jpg (or val/), or CUB-200-2011 (images.txt, '
    'image_class_labels.txt, train_test_split.txt, images/), CIFAR for Python (data_batch_1 ... or '
    'train and test), SVHN (train_32x32.mat, test_32x32.mat), Stanford Cars (cars_annos.mat, '
    'car_ims/), FGVC-Aircraft (data/images_variant_trainval.txt, data/images/) or Caltech-256 '
    '(256_ObjectCategories/001.ak47/*.jpg ...)'
)
CALTECH_TEST = 25  # test images a category: Griffin et al., Caltech-256 Object Category Dataset


@dataclass
class Split:
    """One split of a data set.

    Attributes:
        classes: their names, in the order of the labels.
        images: file paths, or an array (n, H, W, 3) of RGB bytes.
        labels: one class index an image.
        notes: what a user should know of the split, a line each.
    """

    classes: list[str]
    images: list[str] | np.ndarray
    labels: list[int]
    notes: list[str] = field(default_factory=list)


# ------------------------------------------------------------------------------------------- lists

MARKS = (
    (codecs.BOM_UTF8, 'utf-8-sig'),
    (codecs.BOM_UTF32_LE, 'utf-32'),  # before UTF-16's, which begins alike
    (codecs.BOM_UTF32_BE, 'utf-32'),
    (codecs.BOM_UTF16_LE, 'utf-16'),
    (codecs.BOM_UTF16_BE, 'utf-16'),
)


def read_text(path: str | Path) -> str:
    """A text file, whichever encoding it is in.

    A byte-order mark decides; then UTF-8 is tried, then GB18030 for Chinese and cp1252 for western
    names. Chinese characters have two bytes or four, most of them high, while western letters with
    an accent stand alone.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f'{shown(path)} cannot be read: {error.strerror}') from None
    high = re.findall(rb'[\x80-\xff]+', content)
    in_pairs = sum(len(run) for run in high if len(run) > 1) > sum(map(len, high)) / 2
    encodings = [encoding for mark, encoding in MARKS if content.startswith(mark)]
    encodings += ['utf-8', *(['gb18030'] if in_pairs else []), 'cp1252']
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode('latin-1')


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file that are not empty, without spaces around them."""
    lines = (line.strip() for line in re.split(r'[\r\n]+', read_text(path)))
    return [line for line in lines if line]


# --------------------------------------------------------------------------------- class folders


def _split_folder(root: Path, names: tuple[str, ...], notes: list[str]) -> Path | None:
    """The folder with the first of these names, in upper or lower case."""
    found = [f for f in root.iterdir() if f.name.lower() in names and f.is_dir()]
    found.sort(key=lambda f: (names.index(f.name.lower()), f.name.lower() != f.name, f.name))
    if len(found) > 1:
        others = ', '.join(f'{f.name}/' for f in found[1:])
        notes.append(f'{found[0].name}/ is read, and {others} beside it is not')
    return found[0] if found else None


def _same(name: str) -> str:
    """A name in the one form of Unicode in which equal names are equal."""
    return unicodedata.normalize('NFC', name)


def _scan(folder: Path) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """The class folders of a split.

    Returns:
        The images of each class, by its path below the folder; folders without anything of use;
        files that are no images.

    Raises:
        UserError: if images lie beside class folders.
    """
    classes: dict[str, list[str]] = {}
    empty, others = [], []
    for found in walk(folder):
        name = found.path.relative_to(folder).as_posix()
        others += [str(found.path / other) for other in found.others]
        if found.images:
            classes[name] = [str(found.path / image) for image in found.images]
        elif not found.folders:
            empty.append(name)
    if '.' in classes:
        loose = classes['.']
        raise UserError(
            f'images in {folder.name}/ itself: {len(loose)}, as {shown(loose[0])}: put every image '
            f'into the folder of its class, as {folder.name}/crow/'
        )
    for name in classes:
        for outer in map(str, Path(name).parents):
            if outer in classes:
                raise UserError(
                    f'{shown(folder / outer)} holds images itself and in {shown(name)}/: if they '
                    'are one class, put all into one folder; if not, each class into its own'
                )
    empty = [name for name in empty if not any(str(p) in classes for p in Path(name).parents)]
    return classes, [name for name in empty if name != '.'], others


def _note_others(others: list[str], notes: list[str]) -> None:
    """Say which files are skipped, but for those that often lie beside images."""
    odd = [name for name in others if Path(name).suffix.lower() not in COMPANIONS]
    if odd:
        notes.append(f'skipped, for they are no images: {len(odd)} files, as {shown(odd[0])}')


def _folders(root: Path, split: str) -> Split | None:
    notes: list[str] = []
    train = _split_folder(root, TRAIN_FOLDERS, notes)
    if train is None:
        return None
    of_class, empty, others = _scan(train)
    if empty:
        raise UserError(f'class folder {shown(train / empty[0])} has no images')
    if not of_class:
        return None
    classes = sorted(of_class)
    order = {_same(name): label for label, name in enumerate(classes)}
    twin = next((name for name, n in Counter(map(_same, classes)).items() if n > 1), None)
    if twin:
        raise UserError(
            f'{shown(train)} has two folders {twin!r}, which differ in their bytes only'
        )
    if split != 'train':
        folder = _split_folder(root, TEST_FOLDERS, notes) if split == 'test' else None
        folder = folder or _split_folder(root, VAL_FOLDERS, notes)
        if folder is None:
            wanted = 'test/ or val/' if split == 'test' else 'val/'
            raise UserError(f'{shown(root)} has {train.name}/ but no {wanted} beside it')
        of_class, empty, others = _scan(folder)
        outer = {str(parent) for name in order for parent in Path(name).parents}
        for name in sorted({*of_class, *empty}):
            if _same(name) not in order and (name in of_class or _same(name) not in outer):
                raise UserError(_unknown_class(name, folder, train, classes))
    nested = next((name for name in classes if '/' in name), None)
    if nested and split == 'train':
        notes.append(f'class folders lie in folders: a class is named by its path, as {nested!r}')
    _note_others(others, notes)
    found = sorted((order[_same(name)], name) for name in of_class)
    images = [image for _, name in found for image in of_class[name]]
    labels = [label for label, name in found for _ in of_class[name]]
    return Split(classes, images, labels, notes)


def _unknown_class(name: str, folder: Path, train: Path, classes: list[str]) -> str:
    text = f'class {name!r} in {shown(folder)} is not in {shown(train)}'
    alike = [known for known in classes if _same(known).casefold() == _same(name).casefold()]
    return text + (f': {alike[0]!r} there differs only in upper and lower case' if alike else '')


# ---------------------------------------------------------------------------- published data sets


def _cub(root: Path, split: str) -> Split | None:
    lists = ('images.txt', 'image_class_labels.txt', 'train_test_split.txt')
    if not all((root / name).is_file() for name in lists):
        return None

    def table(name: str) -> tuple[dict[int, str], bool]:
        rows, commas = {}, False
        for number, line in enumerate(read_lines(root / name), 1):
            commas = commas or ', ' in line
            parts = line.split(', ' if ', ' in line else None, 1)
            if len(parts) != 2 or not parts[0].isdecimal():
                raise UserError(f'{root / name}, line {number}: {line!r} is not "<id> <value>"')
            rows[int(parts[0])] = parts[1].strip()
        return rows, commas

    paths, subset = table('images.txt')
    labels, _ = table('image_class_labels.txt')
    flags, _ = table('train_test_split.txt')
    wrong = next((key for key, label in labels.items() if not label.isdecimal()), None)
    if wrong is not None:
        raise UserError(f'{root / lists[1]}: label {labels[wrong]!r} of image {wrong} is no number')
    wanted = '1' if (split == 'train') != subset else '0'
    if (root / 'classes.txt').is_file():
        names = table('classes.txt')[0]
    else:
        names = {int(label): label for label in labels.values()}
    wrong = next((key for key, label in labels.items() if int(label) not in names), None)
    if wrong is not None:
        raise UserError(f'{root / "classes.txt"} lacks class {labels[wrong]} of image {wrong}')
    order = {key: position for position, key in enumerate(sorted(names))}
    chosen = [key for key in sorted(paths) if flags.get(key) == wanted and key in labels]
    images = [str(root / 'images' / paths[key]) for key in chosen]
    missing = next((f for f in images if not Path(f).is_file()), None)
    if missing:
        raise UserError(f'{root / "images.txt"} names {shown(missing)}, which is not there')
    left = [key for key in paths if flags.get(key) not in ('0', '1') or key not in labels]
    notes = [f'images without label or split: {len(left)}, as number {left[0]}'] if left else []
    return Split(
        [names[key] for key in sorted(names)],
        images,
        [order[int(labels[key])] for key in chosen],
        notes,
    )


def _cifar(root: Path, split: str) -> Split | None:
    folders = (root, root / 'cifar-10-batches-py', root / 'cifar-100-python')
    for folder in folders:
        if (folder / 'data_batch_1').is_file():
            files = [f'data_batch_{i}' for i in range(1, 6)] if split == 'train' else ['test_batch']
            meta, names, labels_key = 'batches.meta', 'label_names', 'labels'
        elif (folder / 'train').is_file() and (folder / 'test').is_file():
            files, meta, names, labels_key = [split], 'meta', 'fine_label_names', 'fine_labels'
        else:
            continue
        images, labels = [], []
        for name in files:
            batch = _unpickle(folder / name)
            images.append(np.asarray(batch['data'], np.uint8).reshape(-1, 3, 32, 32))
            labels += [int(y) for y in batch[labels_key]]
        classes = list(_unpickle(folder / meta)[names])
        return Split(classes, np.concatenate(images).transpose(0, 2, 3, 1), labels)
    return None


def _load_mat(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return loadmat(str(path), squeeze_me=True)
    except (MatReadError, OSError, ValueError, NotImplementedError, TypeError) as error:
        raise UserError(f'{path} is not a MATLAB file that can be read: {error}') from None


def _svhn(root: Path, split: str) -> Split | None:
    path = root / f'{split}_32x32.mat'
    if not path.is_file():
        return None
    content = _load_mat(path)
    images = np.ascontiguousarray(content['X'].transpose(3, 0, 1, 2))
    labels = [int(y) % 10 for y in content['y']]  # the digit 0 is stored as 10
    return Split([str(digit) for digit in range(10)], images, labels)


def _cars(root: Path, split: str) -> Split | None:
    path = root / 'cars_annos.mat'
    if not path.is_file():
        return None
    content = _load_mat(path)
    rows = [a for a in content['annotations'] if bool(a['test']) == (split == 'test')]
    images = [str(root / str(a['relative_im_path'])) for a in rows]
    missing = next((f for f in images if not Path(f).is_file()), None)
    if missing:
        raise UserError(f'{path} names {missing}, which is not there')
    names = [str(name) for name in content['class_names']]
    return Split(names, images, [int(a['class']) - 1 for a in rows])


def _aircraft(root: Path, split: str) -> Split | None:
    folder = root / 'data' if (root / 'data').is_dir() else root
    lists = {'train': 'images_variant_trainval.txt', 'test': 'images_variant_test.txt'}
    if not all((folder / name).is_file() for name in lists.values()):
        return None

    def read(name: str) -> list[list[str]]:
        rows = [line.split(None, 1) for line in read_lines(folder / name)]
        wrong = next((row for row in rows if len(row) != 2), None)
        if wrong:
            raise UserError(f'{folder / name}: {wrong[0]!r} is not "<image> <variant>"')
        return rows

    classes = sorted({variant for _, variant in read(lists['train'])})
    order = {name: i for i, name in enumerate(classes)}
    rows = read(lists[split])
    unknown = next((variant for _, variant in rows if variant not in order), None)
    if unknown:
        raise UserError(f'class {unknown!r} in {lists[split]} is not in {lists["train"]}')
    images = [str(folder / 'images' / f'{name}.jpg') for name, _ in rows]
    missing = next((f for f in images if not Path(f).is_file()), None)
    if missing:
        raise UserError(f'{folder / lists[split]} names {shown(missing)}, which is not there')
    return Split(classes, images, [order[variant] for _, variant in rows])


def _shuffled(items: list, seed: int, label: int) -> list:
    """A class's items in a random order that depends on nothing but the seed and the label.

    NumPy's older generator is frozen, so the split is the same with every version of it.
    """
    order = np.random.RandomState([seed, label]).permutation(len(items))
    return [items[i] for i in order]


def _caltech256(root: Path, split: str, seed: int) -> Split | None:
    inner = root / '256_ObjectCategories'
    if not inner.is_dir():
        # the images of other data sets have folders with numbers too: look for the first of these
        if root.name != inner.name and not (root / '001.ak47').is_dir():
            return None
        inner = root
    folders = (f.name for f in inner.iterdir() if f.is_dir())
    # ICASC, section 4.1, removes the last category, which holds no one thing
    names = sorted(f for f in folders if re.fullmatch(r'\d{3}\..+', f) and f != '257.clutter')
    if not names:
        raise UserError(f'{inner} has no category folders, as 001.ak47')
    images, labels = [], []
    for label, name in enumerate(names):
        files = [inner / name / image for image in next(walk(inner / name)).images]
        if len(files) <= CALTECH_TEST:
            raise UserError(
                f'category {inner / name} has {len(files)} images: {CALTECH_TEST} are for testing, '
                'so it needs more; unpack the archive again'
            )
        files = _shuffled(files, seed, label)
        chosen = files[CALTECH_TEST:] if split == 'train' else files[:CALTECH_TEST]
        images += sorted(str(f) for f in chosen)
        labels += [label] * len(chosen)
    return Split([name.split('.', 1)[1] for name in names], images, labels)


def _at_most(found: Split, count: int, seed: int) -> Split:
    """A random choice of ``count`` images of each class, or all where there are fewer."""
    of_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(found.labels):
        of_class[label].append(index)
    kept = sorted(i for y in of_class for i in _shuffled(of_class[y], seed, y)[:count])
    images = found.images
    images = images[kept] if isinstance(images, np.ndarray) else [images[i] for i in kept]
    return Split(found.classes, images, [found.labels[i] for i in kept], found.notes)


class _ArraysOnly(pickle.Unpickler):
    """Reads CIFAR's pickles, and nothing that could run code."""

    ALLOWED: ClassVar[set[tuple[str, str]]] = {
        ('numpy.core.multiarray', '_reconstruct'),
        ('numpy._core.multiarray', '_reconstruct'),
        ('numpy', 'ndarray'),
        ('numpy', 'dtype'),
        ('_codecs', 'encode'),
    }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        return super().find_class(module, name)


def _unpickle(path: Path) -> dict[str, object]:
    try:
        with path.open('rb') as file:
            return _ArraysOnly(file, encoding='latin1').load()
    except (OSError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise UserError(f'{path} is not a CIFAR file: {error}') from None


_READERS: tuple[Callable[[Path, str], Split | None], ...] = (
    _cub,
    _cars,
    _aircraft,
    _svhn,
    _cifar,
    _folders,
)


def in_order_of(
    wanted: Sequence[str], names: Sequence[str], labels: Sequence[int]
) -> tuple[list[str], list[int]]:
    """Labels for classes in a wanted order, which may have more classes than there are.

    Args:
        wanted: the classes, in the order of the new labels.
        names: the classes, in the order of the old labels.
        labels: one an image.

    Returns:
        The classes, as they are wanted, and the new labels.

    Raises:
        UserError: if a class is wanted twice, or one that is there is not wanted.
    """
    wanted = [str(name) for name in wanted]
    twice = [name for name, count in Counter(wanted).items() if count > 1]
    if twice:
        raise UserError(f'classes: {twice[0]!r} is named twice')
    order = {_same(name): label for label, name in enumerate(wanted)}
    unknown = [name for name in names if _same(name) not in order]
    if unknown:
        raise UserError(
            f'class {unknown[0]!r} of the data is not in classes, which begin with '
            f'{", ".join(map(repr, wanted[:3])) or "nothing"}: classes must name all of '
            f'{", ".join(names[:5])}{", ..." if len(names) > 5 else ""}'
        )
    return wanted, [order[_same(names[label])] for label in labels]


def _count_notes(found: Split, split: str) -> list[str]:
    """How many images the classes have, and what is odd about it."""
    counts = [0] * len(found.classes)
    for label in found.labels:
        counts[label] += 1
    classes = 'class' if len(counts) == 1 else 'classes'
    least, most = min(counts), max(counts)
    spread = f'{least} each' if least == most else f'{least} to {most} each'
    notes = [f'{split}: {sum(counts)} images of {len(counts)} {classes}, {spread}']
    if len(counts) == 1:
        notes.append(f'{shown(found.classes[0])} is the only class')
    bare = [shown(name) for name, n in zip(found.classes, counts, strict=True) if not n]
    if bare:
        more = f' and {len(bare) - 3} more classes' if len(bare) > 3 else ''
        notes.append(f'no {split} images of {", ".join(bare[:3])}{more}')
    return notes


def _what_is_there(root: Path) -> str:
    """What a folder in no known layout holds instead, and what it should hold."""
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not is_clutter(f.name))
    inner = next((f for f in folders if _split_folder(f, TRAIN_FOLDERS, [])), None)
    if inner:
        return f'has no train/, but {shown(inner.name)}/ in it does: pass {shown(inner)}'
    full = [shown(f.name) for f in folders if any(map(is_image, f.iterdir()))]
    should = 'it should hold train/<class>/*.jpg and test/<class>/*.jpg'
    if full:
        names = ', '.join(full[:3]) + (', ...' if len(full) > 3 else '')
        folders = 'folder' if len(full) == 1 else 'folders'
        return (
            f'holds {len(full)} {folders} with images ({names}) but no train/ and test/: {should}'
        )
    images = sum(map(is_image, root.iterdir()))
    if images:
        return f'holds {images} images but no class folders: {should}'
    inside = ', '.join(shown(name) for name in sorted(f.name for f in root.iterdir())[:5])
    return f'holds {inside or "nothing"}; it should hold {LAYOUTS}'


def has_validation(root: str) -> bool:
    """Whether a folder has images to validate on besides those to test on."""
    folder = Path(root).expanduser()
    splits = (TRAIN_FOLDERS, TEST_FOLDERS, VAL_FOLDERS)
    return folder.is_dir() and all(_split_folder(folder, names, []) for names in splits)


def read_split(
    root: str,
    split: str,
    train_per_class: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Split:
    """The images and labels of one split, from whichever layout the folder has.

    Args:
        root: the data folder.
        split: 'train' | 'test' | 'val'. Among class folders, 'test' is ``test/``, or ``val/`` if
            there is no ``test/``; 'val' is ``val/`` and nothing else. Other layouts have no 'val'.
        train_per_class: how many random training images of each class to take, or all where there
            are fewer; None for all.
        seed: of that choice, and of the split of a data set that has no official one. The smaller
            choice is part of the larger one, and the test images are the same for all.
        classes: names of the classes in the order of their labels; None for the layout's own
            order. They may name more classes than there are.

    Raises:
        UserError: if the folder is absent, empty or in no layout known here, or names what is not
            there; or holds images of formats that cannot be decoded; or ``train_per_class`` is not
            positive, or ``classes`` lacks one.
    """
    folder = Path(root).expanduser()
    if split not in ('train', 'test', 'val'):
        raise UserError(f"split={split!r}: must be 'train', 'test' or 'val'")
    if train_per_class is not None and (type(train_per_class) is not int or train_per_class < 1):
        raise UserError(
            f'train_per_class={train_per_class!r}: must be 1 or more, a whole number, or None'
        )
    if not folder.is_dir():
        raise UserError(
            f'data root {root!r} is not a folder: pass --data-root; it may hold {LAYOUTS}'
        )
    readers = (*_READERS, partial(_caltech256, seed=seed)) if split != 'val' else (_folders,)
    for reader in readers:
        found = reader(folder, split)
        if found is not None:
            break
    else:
        if split == 'val':
            raise UserError(f'data root {root!r} has no val/ beside a train/')
        raise UserError(f'data root {root!r} {_what_is_there(folder)}')
    if not len(found.images):
        raise UserError(f'data root {root!r} has no {split} images')
    if not isinstance(found.images, np.ndarray):
        check_decodable(found.images)
    if train_per_class and split == 'train':
        found = _at_most(found, train_per_class, seed)
    if classes is not None:
        found.classes, found.labels = in_order_of(classes, found.classes, found.labels)
    found.notes = _count_notes(found, split) + found.notes
    return found
