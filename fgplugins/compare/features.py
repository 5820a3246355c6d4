"""What a frozen backbone gives of every image, computed once for all methods and seeds.

A folder ``features/<backbone>`` holds one memory-mapped file for each map and part of the split,
float16, and the embedding; `Rows` says which of them a row of the comparison reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from fgplugins.compare.cells import file_name, split_variant
from fgplugins.compare.jobs import read_json, write_json
from fgplugins.compare.recipes import image_size
from fgplugins.data.split_files import PARTS
from fgplugins.data.splits import Split
from fgplugins.errors import UserError, one_line
from fgplugins.networks.reading import Reading
from fgplugins.serving.files import default_batch_size, load_files
from fgplugins.utils.loaded import LoadedModel
from fgplugins.zoo_timm import ComposedModel
from fgplugins.zoo_timm.checkpoints import SavedModel, build_arguments
from fgplugins.zoo_timm.loading import load_timm

__all__ = [
    'FeaturePlan',
    'Features',
    'build_row',
    'bytes_of',
    'bytes_replaced',
    'compute',
    'features_folder',
    'missing_arrays',
    'plan_features',
]

TYPE = np.float16
INDEX = 'features.json'
LABELS = 'labels'


def build_row(
    row: str, backbone: str, num_classes: int, recipe: Mapping[str, Any], pretrained: bool = True
) -> ComposedModel:
    """The model of a row.

    Args:
        row: a method, or a variant of it.
        backbone: name of the network.
        num_classes: Y.
        recipe: of the row, with the method's arguments.
        pretrained: load the published weights of the backbone.

    Raises:
        UserError: if the method cannot stand on the backbone, or does not take its arguments.
    """
    method, _ = split_variant(row)
    given = {'backbone': backbone, 'num_classes': num_classes, **recipe['arguments']}
    size = image_size(recipe, backbone)
    if size is not None:
        given['img_size'] = size
    arguments, size = build_arguments(method, SavedModel('', {}), given)
    try:
        model = timm.create_model(method, pretrained=pretrained, **arguments).eval()
        if size is not None:
            model.set_input_size(size)
    except (AssertionError, RuntimeError, TypeError, ValueError, OSError) as error:
        text = one_line(error, 600).replace(
            'use backbone_checkpoint=<file>', '--backbone local-dir:FOLDER takes one of your own'
        )
        raise UserError(f'{row} on {backbone}: {text}') from error
    return model


@dataclass
class FeaturePlan:
    """What has to be computed of a backbone.

    Attributes:
        backbone: its name.
        rows: the arrays that each row reads: maps, shallow to deep, and the embedding or None.
        shapes: of one image, by array.
        size: (height, width) of the images.
    """

    backbone: str
    rows: dict[str, tuple[list[str], str | None]]
    shapes: dict[str, tuple[int, ...]]
    size: tuple[int, int]

    def describe(self, split: str) -> dict[str, Any]:
        """What the files are of.

        Args:
            split: digest of the split.
        """
        return {
            'backbone': self.backbone,
            'split': split,
            'size': list(self.size),
            'arrays': {name: list(shape) for name, shape in sorted(self.shapes.items())},
        }


def _names(reading: Reading) -> tuple[list[str], str | None]:
    """The arrays that a reading gives, by name; equal ones of several readings have one name."""
    maps = [f'level{i}{"" if reading.normalized else "_raw"}' for i in reading.levels]
    if reading.final is not None:
        maps[-1] = 'last'
    return maps, 'embedding' if reading.embedding else None


def plan_features(backbone: str, rows: Mapping[str, ComposedModel]) -> FeaturePlan:
    """Which arrays the rows read, and of which shapes.

    Args:
        backbone: name of the network.
        rows: their models, by row.

    Raises:
        UserError: if it does not take images of their size.
    """
    first = next(iter(rows.values()))
    size = first.input_size
    named = {row: _names(model.reading) for row, model in rows.items()}
    try:
        with torch.inference_mode():
            given = _read_all(rows, torch.zeros(1, first.in_chans, *size))
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f'{backbone} does not take images of {size[0]} x {size[1]}: {one_line(error, 300)}: '
            'another --size'
        ) from error
    shapes = {name: tuple(values.shape[1:]) for name, values in given.items()}
    return FeaturePlan(backbone, named, shapes, size)


def _read_all(rows: Mapping[str, ComposedModel], images: Tensor) -> dict[str, Tensor]:
    """Every array that a row reads, by one pass through one network wherever that gives them."""
    found: dict[str, Tensor] = {}
    # the network with its own head gives what the others give, too
    ordered = sorted(rows.values(), key=_gives_little)
    network = ordered[0].backbone
    for normalized in {m.reading.normalized: None for m in ordered}:
        readings = [m.reading for m in ordered if m.reading.normalized == normalized]
        levels = sorted({level for reading in readings for level in reading.levels})
        final, maps = network.forward_intermediates(
            images, indices=levels, norm=normalized, output_fmt='NCHW'
        )
        by_level = dict(zip(levels, maps, strict=True))
        for reading in readings:
            names, embedding = _names(reading)
            if {*names, embedding} - {None} <= found.keys():
                continue
            given = reading.of(network, final, [by_level[level] for level in reading.levels])
            own, z = given if reading.embedding else (given, None)
            found |= dict(zip(names, own, strict=True))
            if z is not None:
                found[embedding] = z
    return found


def _gives_little(model: ComposedModel) -> tuple[bool, bool]:
    return not model.reading.embedding, model.reading.final is None


def features_folder(root: Path, backbone: str) -> Path:
    """Where a comparison keeps the features of a backbone."""
    return root / 'features' / file_name(backbone)


def missing_arrays(folder: Path, plan: FeaturePlan, split: str) -> dict[str, tuple[int, ...]]:
    """The arrays that a folder lacks, with their shapes."""
    there = _arrays_there(folder, plan.describe(split))
    return {name: shape for name, shape in plan.shapes.items() if name not in there}


def bytes_of(shapes: Iterable[Sequence[int]], images: int) -> int:
    """The bytes that arrays take.

    Args:
        shapes: of one image.
        images: how many there are.
    """
    return images * sum(map(math.prod, shapes)) * np.dtype(TYPE).itemsize


def bytes_replaced(folder: Path, plan: FeaturePlan, split: str) -> int:
    """The bytes of a folder's arrays that `compute` writes anew: of other images, or begun."""
    kept = {
        _file(folder, part, name)
        for name in (*_arrays_there(folder, plan.describe(split)), LABELS)
        for part in PARTS
    }
    return sum(
        512 * file.stat().st_blocks  # a file that was begun may have holes
        for file in folder.glob('*.npy')
        if file not in kept
    )


def _file(folder: Path, part: str, name: str) -> Path:
    """Of an array of a part's images."""
    return folder / f'{part}_{name}.npy'


def compute(
    folder: Path,
    plan: FeaturePlan,
    rows: Mapping[str, ComposedModel],
    parts: Mapping[str, Split],
    split: str,
    device: torch.device,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Compute the arrays of all parts that are not there yet.

    Args:
        folder: see `features_folder`.
        plan: what to compute.
        rows: models of the rows.
        parts: the images.
        split: digest of the split.
        device: where the network runs.
        workers: processes that read images.
        progress: called with the number of images done and of all.

    Raises:
        UserError: if an image cannot be read, or a value does not fit.
    """
    described = plan.describe(split)
    there = _arrays_there(folder, described)
    missing = missing_arrays(folder, plan, split)
    for file in [] if there else [folder / INDEX, *folder.glob('*.npy')]:
        file.unlink(missing_ok=True)
    described['arrays'] = {**there, **described['arrays']}
    prepared = reader(plan.backbone, plan.size).prepare()
    for model in rows.values():
        model.to(device)
    size = default_batch_size(device.type)
    done, total = 0, sum(len(part.images) for part in parts.values())
    try:
        for name, part in parts.items():
            arrays = {
                key: np.lib.format.open_memmap(
                    _file(folder, name, key), 'w+', TYPE, (len(part.images), *shape)
                )
                for key, shape in missing.items()
            }
            for groups, unreadable in load_files(part.images, prepared.read, size, workers):
                if unreadable:
                    place, reason = unreadable[0]
                    raise UserError(f'image {part.images[place]} cannot be read: {reason}')
                for places, images in groups:
                    with torch.inference_mode():
                        given = _read_all(rows, prepared.finish(images).to(device))
                    for key, array in arrays.items():
                        array[places] = _narrow(given[key], plan.backbone)
                    done += len(places)
                    if progress is not None:
                        progress(done, total)
            for array in arrays.values():
                array.flush()
            np.save(_file(folder, name, LABELS), np.asarray(part.labels, np.int64))
    finally:
        for model in rows.values():
            model.cpu()
    write_json(folder / INDEX, described)


def reader(backbone: str, size: tuple[int, int]) -> LoadedModel:
    """How the images of a backbone are read: as timm tests it."""
    given = {'backbone': backbone, 'num_classes': 2, 'img_size': size}
    return load_timm('gap', None, given)


def _narrow(values: Tensor, backbone: str) -> np.ndarray:
    narrow = values.to(torch.float16)
    if not narrow.isfinite().all():
        raise UserError(
            f'--quick keeps maps as float16, and {backbone} gives values up to '
            f'{values.abs().max():.1e}: leave out --quick'
        )
    return narrow.cpu().numpy()


def _is_array(file: Path) -> bool:
    """Whether an array is there, and whole."""
    try:
        np.load(file, mmap_mode='r')
    except (OSError, ValueError, EOFError):
        return False
    return True


def _arrays_there(folder: Path, wanted: dict[str, Any]) -> dict[str, list[int]]:
    """The arrays of a folder that was finished, if they are of the same images and network."""
    there = read_json(folder / INDEX)
    if there is None:
        return {}
    same = all(there.get(key) == wanted[key] for key in ('backbone', 'split', 'size'))
    files = (_file(folder, part, name) for part in PARTS for name in (*there['arrays'], LABELS))
    return there['arrays'] if same and all(map(_is_array, files)) else {}


class Features:
    """The arrays that one row reads.

    Args:
        folder: see `features_folder`.
        maps: their names, shallow to deep.
        embedding: its name, or None.
        part: 'train' | 'val' | 'test'.
    """

    def __init__(self, folder: Path, maps: Sequence[str], embedding: str | None, part: str) -> None:
        def opened(name: str) -> np.ndarray:
            return np.load(_file(folder, part, name), mmap_mode='r')

        self.maps = [opened(name) for name in maps]
        self.embedding = None if embedding is None else opened(embedding)
        self.labels = torch.from_numpy(np.load(_file(folder, part, LABELS)))

    def __len__(self) -> int:
        return len(self.labels)

    def __call__(
        self, places: np.ndarray, device: torch.device
    ) -> tuple[list[Tensor], dict[str, Tensor], Tensor]:
        """The maps, the keywords that go with them, and the labels of some images."""

        def taken(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array[places]).to(device).float()

        given = {} if self.embedding is None else {'embedding': taken(self.embedding)}
        labels = self.labels[torch.from_numpy(places)].to(device)
        return [taken(array) for array in self.maps], given, labels
