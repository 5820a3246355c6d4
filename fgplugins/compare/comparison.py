"""The folder of a comparison: whose images it is of, their split, and what was asked."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fgplugins.compare.jobs import read_json, write_json
from fgplugins.data.duplicates import NEAR
from fgplugins.data.images import check_decodable, check_readable, printable
from fgplugins.data.layouts import FLAT, read_parts
from fgplugins.data.split_files import (
    PARTS,
    SPLIT_FILE,
    find_split_file,
    images_folder,
    read_split_file,
    write_split_file,
)
from fgplugins.data.splits import Split
from fgplugins.data.splitting import divide_folder
from fgplugins.data.text_files import read_text
from fgplugins.errors import UserError
from fgplugins.utils.command_line import check_output_folder

__all__ = [
    'Parts',
    'check_folder_free',
    'check_same_images',
    'default_name',
    'parts_of',
    'settle_parts',
    'split_digest',
    'split_path',
    'state_of',
    'write_comparison',
]

FILE = 'comparison.json'
VAL, TEST = 0.2, 0.2  # shares, where a folder has no such images
LEAST_CLASSES = 2


class Parts(NamedTuple):
    """The images of a comparison.

    Attributes:
        folder: of the images.
        parts: 'train', 'val' and 'test'.
        together: lists of images that belong together, by their paths in the folder.
        asked: what the split was made with.
        notes: what a user should know of it, a line each.
    """

    folder: Path
    parts: dict[str, Split]
    together: list[list[str]]
    asked: dict[str, Any]
    notes: list[str]


def split_path(root: Path) -> Path:
    """The split file of a comparison."""
    return root / SPLIT_FILE


def parts_of(root: Path) -> dict[str, Split]:
    """The images of a comparison, part by part."""
    return {part: read_split_file(split_path(root), part) for part in PARTS}


def split_digest(path: Path) -> str:
    """What tells one split from another: the classes, and the images of every part."""
    content = json.loads(path.read_text(encoding='utf-8'))
    text = json.dumps([content['classes'], *(content[part] for part in PARTS)], sort_keys=True)
    return hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:16]


def settle_parts(
    root: str, workers: int, progress: Callable[[int, int], None] | None = None
) -> Parts:
    """The three parts of a folder: its own, or the missing ones taken from the others by chance.

    Every image is read once, so that broken ones are named before the work.

    Args:
        root: the folder, or a split file.
        workers: threads that decode images.
        progress: called with the number of images seen and of all.

    Raises:
        UserError: if there is a single class, or too few images, or one cannot be read.
    """
    given = Path(root).expanduser()
    if not given.exists():
        raise UserError(f'folder {root!r} is not there')
    layout, found = read_parts(str(given))
    classes = next(iter(found.values())).classes
    if len(classes) < LEAST_CLASSES:
        raise UserError(
            f'{printable(given)} has one class, {classes[0]!r}: there is nothing to tell apart; '
            'a comparison needs a folder for each of two classes or more'
        )
    file = find_split_file(given)
    missing = [part for part in PARTS if part not in found]
    if file is not None:
        if missing:
            raise UserError(
                f'{printable(file)} has no {" and no ".join(missing)} images: a comparison needs '
                f'all three parts: fgplugins split_data {shlex.quote(str(images_folder(file)))} '
                '--val 0.2 --test 0.2 --overwrite makes them'
            )
        folder = images_folder(file)
        content = json.loads(read_text(file))
        together, asked, notes = content.get('together') or [], content.get('asked') or {}, []
    elif layout == FLAT or missing:
        shares = {'val': VAL, 'test': TEST}
        shares = {part: s for part, s in shares.items() if layout == FLAT or part in missing}
        divided = divide_folder(str(given), **shares, near=NEAR, workers=workers, progress=progress)
        asked = {**shares, 'seed': 0, 'near': NEAR}
        apart = [found for part, found in divided.parts.items() if part not in divided.divided]
        check_readable(*(found.images for found in apart), progress=progress)
        return Parts(given, divided.parts, divided.together, asked, divided.notes)
    else:
        folder, together, asked, notes = given, [], {}, []
    for part in found.values():
        if not isinstance(part.images, list):
            raise UserError(
                f'{printable(given)} holds {layout}: arrays; a comparison needs image files'
            )
        check_decodable(part.images)
    check_readable(*(part.images for part in found.values()), progress=progress)
    return Parts(folder, found, together, asked, notes)


def images_of(given: Path) -> Path:
    """The folder of the images of what a user names, which may be a split file; a full path."""
    file = find_split_file(given) if given.is_file() else None
    return Path(os.path.normpath((given if file is None else images_folder(file)).absolute()))


def default_name(given: Path) -> str:
    """Name of the folder of a comparison, for what a user names."""
    return f'compare_{images_of(given).name}'


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, which need not be there, is a folder or lies in it."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def check_folder_free(out: Path, folder: Path) -> dict[str, Any] | None:
    """What was asked of a comparison's folder before; None if it is a new one.

    Raises:
        UserError: if it is another folder's comparison, or holds other things, or cannot be
            written.
    """
    check_output_folder('--out', out)
    images = images_of(folder)
    if _is_inside(out, images):
        raise UserError(
            f'--out {out}: lies among the images of {printable(images)}: give another place, as '
            f'--out {printable(images.parent / default_name(folder))}'
        )
    before = read_json(out / FILE)
    if before is None:
        # a split alone is of a comparison that was stopped at its very beginning
        if out.is_dir() and any(p.name[0] != '.' and p.name != SPLIT_FILE for p in out.iterdir()):
            raise UserError(
                f'--out {out}: holds files, but no comparison: give a new or empty folder'
            )
        return None
    if os.path.realpath(before.get('folder', '')) != os.path.realpath(folder):
        raise UserError(
            f'--out {out}: is the comparison of {before.get("folder")}: give another folder for '
            f'that of {folder}'
        )
    return before


def state_of(folder: Path) -> str:
    """What tells whether images of a folder or their parts have changed: a digest of their list.

    It has the path and the size of every image, by part and class.

    Raises:
        UserError: if it is no folder of images.
    """
    _, parts = read_parts(str(folder))
    digest = hashlib.sha256()
    for part, split in sorted(parts.items()):
        lines = [
            f'{part} {split.classes[label]} {Path(os.path.relpath(path, folder)).as_posix()} '
            f'{Path(path).stat().st_size}\n'
            for path, label in zip(split.images, split.labels, strict=True)
        ]
        digest.update(''.join(sorted(lines)).encode(errors='surrogatepass'))
    return digest.hexdigest()[:16]


def check_same_images(out: Path, folder: Path, before: Mapping[str, Any]) -> None:
    """Refuse to go on with a comparison whose images or whose split are not what they were.

    Raises:
        UserError: if the folder has changed.
    """
    if before.get('state') not in (None, state_of(folder)):
        raise UserError(
            f'--out {out}: was begun with other images, or another split of them, than '
            f'{printable(folder)} has now: give another --out'
        )


def write_comparison(
    root: Path, parts: Parts | None, asked: Mapping[str, Any], state: str | None = None
) -> str:
    """Write the split, where there is none yet, and what is asked.

    Args:
        root: folder of the comparison.
        parts: the split; None if it is there.
        asked: what is asked.
        state: see `state_of`; None if the comparison is older than that.

    Returns:
        The digest of the split.
    """
    root.mkdir(parents=True, exist_ok=True)
    if parts is not None:
        write_split_file(
            split_path(root), parts.folder.absolute(), parts.parts, parts.together, parts.asked
        )
    digest = split_digest(split_path(root))
    write_json(root / FILE, {'form': 1, 'split': digest, 'state': state, **asked})
    return digest
