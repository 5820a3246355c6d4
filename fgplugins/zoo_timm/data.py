"""Folders of images for timm's training script, read in the layouts of `fgplugins.data.layouts`.

timm's own reader takes the whole folder if it finds none of the split: it then tests on what it
trains on.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_dataset
from timm.data.dataset import ImageDataset
from timm.data.dataset_factory import _search_split
from timm.data.readers.class_map import load_class_map
from timm.data.readers.reader import Reader

from fgplugins.data.class_folders import TRAIN_FOLDERS, VAL_FOLDERS
from fgplugins.data.classes import check_same_classes
from fgplugins.data.images import read_image
from fgplugins.data.layouts import read_split
from fgplugins.data.split_files import find_split_file, listed_parts
from fgplugins.data.splits import Split
from fgplugins.errors import UserError

__all__ = ['RunData', 'SplitDataset']

VALIDATION = (*VAL_FOLDERS, 'eval', 'evaluation')  # as timm calls that split

_logger = logging.getLogger(__name__)


class _SplitReader(Reader):
    """The images and labels of a split, in timm's terms."""

    def __init__(self, split: Split, root: Path) -> None:
        super().__init__()
        self.split, self.root = split, root
        self.class_to_idx = {name: label for label, name in enumerate(split.classes)}

    def __getitem__(self, index: int) -> tuple[str | np.ndarray, int]:
        return self.split.images[index], self.split.labels[index]

    def __len__(self) -> int:
        return len(self.split.labels)

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        image = self.split.images[index]
        if not isinstance(image, str):  # of an array of images
            return str(index)
        return (
            Path(image).name
            if basename
            else image
            if absolute
            else os.path.relpath(image, self.root)
        )


class SplitDataset(ImageDataset):
    """A split as timm's loader takes it; an image that cannot be read stops the run by name.

    Args:
        split: the images and labels.
        root: the folder that file names are relative to.
        mode: 'RGB' | 'L' | another of Pillow's.
    """

    def __init__(self, split: Split, root: str | Path, mode: str = 'RGB') -> None:
        super().__init__(root, reader=_SplitReader(split, Path(root)), input_img_mode=mode)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, target = self.reader[index]
        mode = self.input_img_mode
        if isinstance(image, str):
            image = read_image(image, 'L' if mode == 'L' else 'RGB')
        image = Image.fromarray(image)
        image = image if image.mode == mode else image.convert(mode)
        image = image if self.transform is None else self.transform(image)
        return image, target if self.target_transform is None else self.target_transform(target)


class RunData:
    """The data of one run of a training script.

    Attributes:
        classes: their names, once a folder was read.
        root: that folder.
    """

    def __init__(self) -> None:
        self.classes: list[str] | None = None
        self.root = ''
        self._whole = ''  # a folder that was trained on as a whole

    def create_dataset(
        self, name: str, root: str | None = None, split: str = 'validation', **kwargs: Any
    ) -> torch.utils.data.Dataset:
        """``timm.data.create_dataset``; a folder without a data set's name is read by its layout.

        Args:
            name: of the data set; '' for a folder.
            root: the folder.
            split: of timm's names.
            **kwargs: what else timm's takes.

        Raises:
            UserError: if the folder's validation classes are not those of training, or validation
                would look at what is trained on.
        """
        folder = Path(root).expanduser() if root else None
        kinds = split in (*TRAIN_FOLDERS, *VALIDATION, 'test') and kwargs.get('search_split', True)
        timms_own = name or kwargs.get('input_key') or kwargs.get('load_bytes')
        archive = folder is not None and folder.is_file() and folder.suffix.lower() != '.json'
        if timms_own or not kinds or folder is None or archive:
            return create_dataset(name, root=root, split=split, **kwargs)
        try:
            found = read_split(str(folder), self._part(folder, split))
        except UserError as error:
            by_file = folder.is_file() or find_split_file(folder)
            if by_file or not folder.is_dir() or _subfolders(folder).intersection(TRAIN_FOLDERS):
                raise
            if not str(error).startswith('data root '):  # it is of a known layout, but damaged
                raise
            return self._timms_own(folder, split, error, kwargs)
        found = _mapped(found, kwargs.get('class_map'), folder)
        if self.classes is not None:
            check_same_classes(self.classes, found.classes, self.root, f'its {split} split')
        self.classes, self.root = list(found.classes), str(folder)
        counts = f'{len(found.labels)} images of {len(found.classes)} classes'
        for note in (counts, *getattr(found, 'notes', ())):
            _logger.info(f'{split}: {note}')
        images = folder.parent if folder.is_file() else folder
        return SplitDataset(found, images, kwargs.get('input_img_mode') or 'RGB')

    @staticmethod
    def _part(folder: Path, split: str) -> str:
        if split in TRAIN_FOLDERS or split == 'test':
            return 'train' if split in TRAIN_FOLDERS else 'test'
        if find_split_file(folder):
            return 'val' if 'val' in listed_parts(folder) else 'test'
        return 'val' if _subfolders(folder).intersection(VAL_FOLDERS) else 'test'

    def _timms_own(
        self, folder: Path, split: str, error: UserError, kwargs: dict[str, Any]
    ) -> torch.utils.data.Dataset:
        """What timm makes of a folder in no layout known here.

        Raises:
            UserError: if it would validate on the images that it trained on.
        """
        if _search_split(str(folder), split) == str(folder):
            if split in TRAIN_FOLDERS:
                self._whole = str(folder)
            elif self._whole == str(folder):
                raise UserError(
                    f'{folder} has no folder for validation, and all of it is trained on: '
                    f"--val-split '' leaves validation out; {error}"
                )
        return create_dataset('', root=str(folder), split=split, **kwargs)

    def check_number(self, num_classes: int | None) -> None:
        """Refuse a model of another number of classes.

        Raises:
            UserError: saying the number.
        """
        if self.classes and num_classes and num_classes != len(self.classes):
            raise UserError(
                f'--num-classes {num_classes}: {self.root} has {len(self.classes)} classes: '
                f'--num-classes {len(self.classes)}'
            )


def _subfolders(folder: Path) -> set[str]:
    return {f.name.lower() for f in folder.iterdir() if f.is_dir()} if folder.is_dir() else set()


def _mapped(found: Split, class_map: object, folder: Path) -> Split:
    """A split under the labels that timm's ``--class-map`` gives; other classes are left out."""
    if not class_map:
        return found
    index = load_class_map(class_map, str(folder))
    labels = [index.get(found.classes[label]) for label in found.labels]
    kept = [i for i, label in enumerate(labels) if label is not None]
    images = found.images
    images = images[kept] if isinstance(images, np.ndarray) else [images[i] for i in kept]
    return Split(sorted(index, key=index.get), images, [labels[i] for i in kept])
