"""The layout of one folder per class: ``train/<class>/*.jpg``, and ``test/`` or ``val/``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fgplugins.data.classes import same_form
from fgplugins.data.images import printable, walk
from fgplugins.data.split_files import find_split_file, listed_parts
from fgplugins.data.splits import Split
from fgplugins.errors import UserError

__all__ = [
    'TRAIN_FOLDERS',
    'VAL_FOLDERS',
    'class_folder_parts',
    'has_validation',
    'read_class_folders',
    'read_flat_folder',
    'read_folder_val',
    'split_folder',
]

TRAIN_FOLDERS = ('train', 'training')
TEST_FOLDERS = ('test', 'testing')
VAL_FOLDERS = ('val', 'valid', 'validation')
# files that often lie beside images: they are skipped without a note
COMPANIONS = ('.aae', '.csv', '.json', '.md', '.thm', '.txt', '.xml', '.xmp', '.yaml', '.yml')


def read_class_folders(root: Path, split: str) -> Split | None:
    """A split in class folders; None if there are no such folders.

    'test' is ``test/`` or else ``val/``; 'val' is ``val/``, which must be there.

    Raises:
        UserError: naming what is wrong with the folders.
    """
    notes: list[str] = []
    train = split_folder(root, TRAIN_FOLDERS, notes)
    if train is None:
        return None
    of_class, empty, others = _scan(train)
    if empty:
        raise UserError(f'class folder {printable(train / empty[0])} has no images')
    if not of_class:
        return None
    classes = sorted(of_class)
    order = {same_form(name): label for label, name in enumerate(classes)}
    twin = next((name for name, n in Counter(map(same_form, classes)).items() if n > 1), None)
    if twin:
        raise UserError(
            f'{printable(train)} has two folders {twin!r}, which differ in their bytes only'
        )
    if split != 'train':
        folder = split_folder(root, TEST_FOLDERS, notes) if split == 'test' else None
        folder = folder or split_folder(root, VAL_FOLDERS, notes)
        if folder is None:
            raise UserError(f'{printable(root)} has {train.name}/ but no test/ or val/ beside it')
        of_class, empty, others = _scan(folder)
        outer = {str(parent) for name in order for parent in Path(name).parents}
        for name in sorted({*of_class, *empty}):
            if same_form(name) not in order and (name in of_class or same_form(name) not in outer):
                raise UserError(_unknown_class(name, folder, train, classes))
    nested = next((name for name in classes if '/' in name), None)
    if nested and split == 'train':
        notes.append(f'class folders lie in folders: a class is named by its path, as {nested!r}')
    _note_others(others, notes)
    found = sorted((order[same_form(name)], name) for name in of_class)
    images = [image for _, name in found for image in of_class[name]]
    labels = [label for label, name in found for _ in of_class[name]]
    return Split(classes, images, labels, notes)


def read_folder_val(root: Path, val_share: float) -> Split | None:
    """The images of ``val/``; None if there is no such folder.

    Where ``val/`` stands in for ``test/`` and a share of ``train/`` can be had instead, these are
    test images, and the answer is None too.
    """
    if split_folder(root, VAL_FOLDERS, []) is None or (val_share and not has_validation(str(root))):
        return None
    return read_class_folders(root, 'val')


def class_folder_parts(root: Path) -> list[str]:
    """Which of 'train', 'val' and 'test' have a folder."""
    of_part = {'train': TRAIN_FOLDERS, 'val': VAL_FOLDERS, 'test': TEST_FOLDERS}
    return [part for part, names in of_part.items() if split_folder(root, names, [])]


def read_flat_folder(root: Path) -> Split | None:
    """All images of class folders that lie in a folder directly; None if there are none.

    Raises:
        UserError: naming what is wrong with the folders.
    """
    if not any(found.images for found in walk(root) if found.path != root):
        return None
    of_class, empty, others = _scan(root)
    if empty:
        raise UserError(f'class folder {printable(root / empty[0])} has no images')
    classes, notes = sorted(of_class), []
    _note_others(others, notes)
    labels = [label for label, name in enumerate(classes) for _ in of_class[name]]
    return Split(classes, [image for name in classes for image in of_class[name]], labels, notes)


def split_folder(root: Path, names: tuple[str, ...], notes: list[str]) -> Path | None:
    """The folder with the first of these names, in upper or lower case; notes name the others."""
    found = [f for f in root.iterdir() if f.name.lower() in names and f.is_dir()]
    found.sort(key=lambda f: (names.index(f.name.lower()), f.name.lower() != f.name, f.name))
    if len(found) > 1:
        others = ', '.join(f'{f.name}/' for f in found[1:])
        notes.append(f'{found[0].name}/ is read, and {others} beside it is not')
    return found[0] if found else None


def has_validation(root: str) -> bool:
    """Whether a folder, or its split file, has images to validate on besides those to test on."""
    folder = Path(root).expanduser()
    if find_split_file(folder):
        return len(listed_parts(folder)) == 3
    splits = (TRAIN_FOLDERS, TEST_FOLDERS, VAL_FOLDERS)
    return folder.is_dir() and all(split_folder(folder, names, []) for names in splits)


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
            f'images in {folder.name}/ itself: {len(loose)}, as {printable(loose[0])}: put every '
            f'image into the folder of its class, as {folder.name}/crow/'
        )
    for name in classes:
        for outer in map(str, Path(name).parents):
            if outer in classes:
                raise UserError(
                    f'{printable(folder / outer)} holds images itself and in {printable(name)}/: '
                    'if they are one class, put all into one folder; if not, each class into its '
                    'own'
                )
    empty = [name for name in empty if not any(str(p) in classes for p in Path(name).parents)]
    return classes, [name for name in empty if name != '.'], others


def _note_others(others: list[str], notes: list[str]) -> None:
    """Say which files are skipped, except those that often lie beside images."""
    odd = [name for name in others if Path(name).suffix.lower() not in COMPANIONS]
    if odd:
        notes.append(f'skipped, for they are no images: {len(odd)} files, as {printable(odd[0])}')


def _unknown_class(name: str, folder: Path, train: Path, classes: list[str]) -> str:
    text = f'class {name!r} in {printable(folder)} is not in {printable(train)}'
    folded = same_form(name).casefold()
    alike = [known for known in classes if same_form(known).casefold() == folded]
    return text + (f': {alike[0]!r} there differs only in upper and lower case' if alike else '')
