"""A split kept in a file: which images of a folder are for training, validation and testing.

``split.json`` lies in the folder of the images, or elsewhere and names that folder. It has

  * ``fgplugins_split``: 1, the form of the file;
  * ``folder``: of the images, from where the file is;
  * ``asked``: what the split was made with;
  * ``classes``: their names, in the order of the labels;
  * ``train``, ``val``, ``test``: the images of each class, by their paths in the folder;
  * ``together``: lists of images that belong together, as those of one animal.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from fgplugins.data.classes import same_form
from fgplugins.data.images import printable, walk
from fgplugins.data.splits import Split
from fgplugins.data.text_files import read_text
from fgplugins.errors import UserError
from fgplugins.utils.whole_file import whole_file

__all__ = [
    'PARTS',
    'SPLIT_FILE',
    'find_split_file',
    'images_folder',
    'listed_parts',
    'read_split_file',
    'read_split_file_val',
    'write_split_file',
]

SPLIT_FILE = 'split.json'
PARTS = ('train', 'val', 'test')
FORM = 'fgplugins_split'


def find_split_file(root: Path) -> Path | None:
    """The split file that a data root is, or has in it.

    A ``split.json`` of another program is none.

    Raises:
        UserError: if the root is a file, but no split file; or its ``split.json`` is damaged.
    """
    path = root if root.is_file() else root / SPLIT_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        if path == root and path.suffix.lower() != '.json':
            raise UserError(
                f'{printable(path)} is no folder of images and no split file: give the folder that '
                'holds a folder per class, or a file that fgplugins split_data has made'
            ) from None
        raise UserError(
            f'{printable(path)} is no JSON: {error}; make it anew by fgplugins split_data, or '
            'remove it'
        ) from None
    if isinstance(content, dict) and FORM in content:
        return path
    if path == root:
        raise UserError(f'{printable(path)} is no split file: one is made by fgplugins split_data')
    return None


def images_folder(path: Path) -> Path:
    """The folder that a split file divides.

    Raises:
        UserError: if it is not there.
    """
    named = _content(path).get('folder')
    if not isinstance(named, str):
        raise UserError(f'{printable(path)}: folder={named!r} must be the path of the images')
    folder = Path(os.path.normpath(path.parent / named))
    if not folder.is_dir():
        raise UserError(
            f'{printable(path)} is of folder {printable(folder)}, which is not there: mend '
            '"folder" in it, which counts from where the file is'
        )
    return folder


def listed_parts(root: Path) -> list[str]:
    """Which of 'train', 'val' and 'test' a root's split file has images of."""
    content = _content(find_split_file(root))
    return [part for part in PARTS if any((content.get(part) or {}).values())]


def read_split_file(root: Path, split: str) -> Split | None:
    """A split by the file that ``root`` is, or has in it; None if there is none.

    'test' is the file's test images, or else its validation images.

    Raises:
        UserError: if the file lists what is not there, or an image twice, or has no such images.
    """
    path = find_split_file(root)
    if path is None:
        return None
    folder, content = images_folder(path), _content(path)
    classes = content.get('classes')
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f'{printable(path)}: classes={classes!r} must be a list of names')
    rows = {part: _rows(path, content.get(part) or {}, part, classes) for part in PARTS}
    there = {
        same_form((found.path / name).relative_to(folder).as_posix()): str(found.path / name)
        for found in walk(folder)
        for name in found.images
    }
    listed = [name for part in PARTS for name, _ in rows[part]]
    _check_listed(path, listed, there)
    if split == 'test' and not rows['test']:
        split = 'val'
    if not rows[split]:
        raise UserError(f'{printable(path)} has no {split} images: make it by split_data --{split}')
    sets = content.get('together') or []
    group = {same_form(name): str(members[0]) for members in sets for name in members}
    names = [name for name, _ in rows[split]]
    new = sorted(there.keys() - set(listed))
    notes = [f'split by {printable(path)}']
    if new:
        notes.append(
            f'images that are not in {path.name}, and not read: {len(new)}, as '
            f'{printable(new[0])}; split_data again takes them in'
        )
    return Split(
        classes,
        [there[name] for name in names],
        [label for _, label in rows[split]],
        notes,
        groups=[group.get(name, name) for name in names] if group else None,
    )


def read_split_file_val(root: Path, val_share: float) -> Split | None:
    """The validation images that a split file lists.

    None if it lists none; or if they stand in for test images, and a share of the training images
    can be had instead.
    """
    parts = listed_parts(root)
    if 'val' not in parts or (val_share and 'test' not in parts):
        return None
    return read_split_file(root, 'val')


def write_split_file(
    path: Path,
    folder: Path,
    parts: Mapping[str, Split],
    together: Iterable[list[str]],
    asked: Mapping[str, object],
) -> None:
    """Write a split file: whole, or not at all.

    Args:
        path: the file.
        folder: of the images.
        parts: the images by part.
        together: lists of images, by their paths in the folder.
        asked: what the split was made with.
    """
    try:
        inner = PurePosixPath(Path(os.path.relpath(folder, path.parent)).as_posix())
    except ValueError:  # on another drive
        inner = PurePosixPath(Path(folder).absolute().as_posix())
    classes = next(iter(parts.values())).classes
    content: dict[str, object] = {
        FORM: 1, 'folder': str(inner), 'asked': dict(asked), 'classes': classes
    }  # fmt: skip
    for part in PARTS:
        of_class: dict[str, list[str]] = {name: [] for name in classes}
        found = parts.get(part)
        for image, label in zip(found.images, found.labels, strict=True) if found else ():
            of_class[classes[label]].append(Path(os.path.relpath(image, folder)).as_posix())
        content[part] = {name: sorted(images) for name, images in of_class.items() if images}
    content['together'] = sorted(sorted(members) for members in together)
    text = json.dumps(content, indent=1, ensure_ascii=False) + '\n'
    try:
        data = text.encode()
    except UnicodeEncodeError:  # of names that are in no encoding
        data = json.dumps(content, indent=1).encode()
    with whole_file(path) as file:
        file.write(data)


def _content(path: Path) -> dict:
    return json.loads(read_text(path))


def _rows(path: Path, listed: object, part: str, classes: list[str]) -> list[tuple[str, int]]:
    """The images of a part, by their paths in the folder, and their labels."""
    if not isinstance(listed, dict):
        raise UserError(f'{printable(path)}: {part} must hold the images of each class')
    labels = {name: label for label, name in enumerate(classes)}
    rows = []
    for name, images in listed.items():
        if name not in labels:
            raise UserError(f'{printable(path)}: class {name!r} of {part} is not in classes')
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
            raise UserError(f'{printable(path)}: {part}, {name!r} must be a list of paths')
        rows += [(same_form(image), labels[name]) for image in images]
    return sorted(rows, key=lambda row: (row[1], row[0]))


def _check_listed(path: Path, listed: list[str], there: Mapping[str, str]) -> None:
    """Refuse a list with images that are not there, or twice."""
    twice = [name for name, count in Counter(listed).items() if count > 1]
    if twice:
        raise UserError(
            f'{printable(path)} lists images more than once: {len(twice)}, as '
            f'{printable(twice[0])}: leave each in one part and class'
        )
    missing = [name for name in listed if name not in there]
    if missing:
        names = ', '.join(map(printable, missing[:5])) + (', ...' if len(missing) > 5 else '')
        raise UserError(
            f'{printable(path)} lists {len(missing)} of {len(listed)} images that are not there: '
            f'{names}: put them back, or make the split anew by fgplugins split_data'
        )
