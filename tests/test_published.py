"""Data sets as published: boxes, three splits of every layout, and the readers' own options."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers import write_image
from PIL import Image

from fgplugins.data import class_folders, images
from fgplugins.data.layouts import LAYOUTS, read_split
from fgplugins.data.splits import Split, choose_per_class, cut, held_out
from fgplugins.errors import UserError

# ---------------------------------------------------------------------- archives as published


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')


def noise(path: Path, size: tuple[int, int] = (31, 23)) -> np.ndarray:
    """A PNG under whichever suffix, of pixels that differ all over; their array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, format='PNG')
    return pixels


def cub(root: Path, sizes: tuple[int, ...] = (9, 4, 1), boxes: list[str] | None = None) -> Path:
    """As many training images of each class as ``sizes`` says, and two for testing."""
    rows = [(y, flag) for y, n in enumerate(sizes) for flag in [1] * n + [0] * 2]
    names = [f'{y + 1:03}.bird_{y}/b_{i}.jpg' for i, (y, _) in enumerate(rows)]
    for name in names:
        noise(root / 'images' / name)
    ids = range(1, len(rows) + 1)
    write_lines(root / 'images.txt', [f'{i} {n}' for i, n in zip(ids, names, strict=True)])
    write_lines(
        root / 'image_class_labels.txt',
        [f'{i} {y + 1}' for i, (y, _) in zip(ids, rows, strict=True)],
    )
    write_lines(
        root / 'train_test_split.txt', [f'{i} {f}' for i, (_, f) in zip(ids, rows, strict=True)]
    )
    write_lines(root / 'classes.txt', [f'{y + 1} {y + 1:03}.bird_{y}' for y in range(len(sizes))])
    if boxes is not None:
        lines = [f'{i} {boxes[k % len(boxes)]}' for k, i in enumerate(ids)]
        write_lines(root / 'bounding_boxes.txt', lines)
    return root


def cars(
    root: Path, sizes: tuple[int, ...] = (9, 4, 1), boxes: list[tuple] | None = None,
    turned: bool = False,
) -> Path:  # fmt: skip
    from scipy.io import savemat

    rows = [(y, test) for y, n in enumerate(sizes) for test in [0] * n + [1] * 2]
    kinds = [('relative_im_path', 'O'), ('class', 'u1'), ('test', 'u1')]
    table = [(f'car_ims/{i:06}.jpg', y + 1, test) for i, (y, test) in enumerate(rows)]
    if boxes is not None:
        kinds += [(f'bbox_{end}', 'u1') for end in ('x1', 'y1', 'x2', 'y2')]
        table = [(*row, *boxes[i % len(boxes)]) for i, row in enumerate(table)]
    for row in table:
        noise(root / row[0])
    names = np.array([f'car {y}' for y in range(len(sizes))], object)
    content = {
        'annotations': np.array(table[::-1] if turned else table, kinds), 'class_names': names
    }  # fmt: skip
    savemat(root / 'cars_annos.mat', content)
    return root


def aircraft(
    root: Path, sizes: tuple[int, ...] = (9, 4, 1), boxes: list[str] | None = None,
    listed: bool = False,
) -> Path:  # fmt: skip
    """With ``listed``, every third training image is in the list for validation."""
    data = root / 'data'
    rows = [(y, test) for y, n in enumerate(sizes) for test in [False] * n + [True] * 2]
    lists: dict[str, list[str]] = {'trainval': [], 'test': [], 'train': [], 'val': []}
    for i, (y, test) in enumerate(rows):
        noise(data / 'images' / f'{i:07}.jpg')
        for name in ('test',) if test else ('trainval', 'train' if i % 3 else 'val'):
            lists[name].append(f'{i:07} variant {y}')
    for name in lists if listed else ('trainval', 'test'):
        write_lines(data / f'images_variant_{name}.txt', lists[name])
    if boxes is not None:
        lines = [f'{i:07} {boxes[i % len(boxes)]}' for i in range(len(rows))]
        write_lines(data / 'images_box.txt', lines)
    return root


def dogs(
    root: Path, sizes: tuple[int, ...] = (9, 4, 1), boxes: list[list[tuple]] | None = None,
    lists: str = 'lists',
) -> Path:  # fmt: skip
    from scipy.io import savemat

    of: dict[str, list[tuple[str, int]]] = {'train': [], 'test': []}
    for y, n in enumerate(sizes):
        for i in range(n + 2):
            folder = f'n0208{y}-Breed_{y}-haired'
            name = f'{folder}/n0208{y}_{i}'
            noise(root / 'Images' / f'{name}.jpg')
            of['train' if i < n else 'test'].append((f'{name}.jpg', y + 1))
            if boxes is not None:
                objects = ''.join(
                    '<object><name>dog</name><bndbox>'
                    + ''.join(
                        f'<{tag}>{value}</{tag}>'
                        for tag, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box, strict=True)
                    )
                    + '</bndbox></object>'
                    for box in boxes[i % len(boxes)]
                )
                write_lines(root / 'Annotation' / name, [f'<annotation>{objects}</annotation>'])
    (root / lists).mkdir(parents=True, exist_ok=True)
    for name, rows in of.items():
        files = np.array([[file] for file, _ in rows], object)
        labels = np.array([[float(y)] for _, y in rows])
        savemat(root / lists / f'{name}_list.mat', {'file_list': files, 'labels': labels})
    return root


def food(root: Path, sizes: tuple[int, ...] = (12, 6, 2), shared: int = 0) -> Path:
    """So many samples a category; ``shared`` photos of the first one are in all others too."""
    write_lines(
        root / 'category.txt', ['id\tname', *(f'{y + 1}\tdish {y}' for y in range(len(sizes)))]
    )
    for y, n in enumerate(sizes):
        photos = [f'{100 * y + i}' for i in range(n)]
        if y:
            photos += [f'{i}' for i in range(shared)]
        for photo in photos:
            noise(root / f'{y + 1}' / f'{photo}.jpg')
        rows = [f'{photo} {y} {i % 3} {20 + y} {9 + i % 3}' for i, photo in enumerate(photos)]
        write_lines(root / f'{y + 1}' / 'bb_info.txt', ['img x1 y1 x2 y2', *rows])
    return root


ADIENCE_HEADER = 'user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\ttilt_ang'
AGES = ('(0, 2)', '(4, 6)', '(8, 12)', '(15, 20)', '(25, 32)', '(38, 43)', '(48, 53)', '(60, 100)')


def adience(root: Path, rows: list[list[tuple]] | None = None, folder: str = 'aligned') -> Path:
    """Rows are (user, image, face, age, gender), by fold; by default one person an age."""
    if rows is None:
        rows = [
            [
                (f'{fold}{k}@N00', f'{i}.jpg', 10 * k + i, AGES[k], 'fm'[k % 2])
                for k in range(8)
                for i in range(1 + k % 3)
            ]
            for fold in range(5)
        ]
    stem = {'aligned': 'landmark_aligned_face', 'faces': 'coarse_tilt_aligned_face'}[folder]
    for fold, people in enumerate(rows):
        lines = [f'{u}\t{i}\t{f}\t{a}\t{g}\t1\t2\t3\t4\t0' for u, i, f, a, g in people]
        write_lines(root / f'fold_{fold}_data.txt', [ADIENCE_HEADER, *lines])
        for user, image, face, *_ in people:
            noise(root / folder / user / f'{stem}.{face}.{image}')
    return root


def cifar(root: Path) -> Path:
    rng = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    for name, sizes in (('train', (9, 4, 1)), ('test', (2, 2, 2))):
        labels = [y for y, n in enumerate(sizes) for _ in range(n)]
        data = rng.integers(0, 256, (len(labels), 3072)).astype(np.uint8)
        (root / name).write_bytes(pickle.dumps({'data': data, 'fine_labels': labels}))
    (root / 'meta').write_bytes(pickle.dumps({'fine_label_names': ['a', 'b', 'c']}))
    return root


def svhn(root: Path, parts: tuple[str, ...] = ('train', 'test')) -> Path:
    from scipy.io import savemat

    root.mkdir(exist_ok=True)
    for i, part in enumerate(parts):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3, 40), np.uint8)
        y = [[10 if k % 10 == 0 else k % 10] for k in range(40)]
        savemat(root / f'{part}_32x32.mat', {'X': pixels, 'y': y})
    return root


def folders(root: Path) -> Path:
    for split, sizes in (('train', (9, 4, 1)), ('test', (2, 2, 2))):
        for y, n in enumerate(sizes):
            for i in range(n):
                write_image(root / split / 'abc'[y] / f'{i}.png')
    return root


def caltech(root: Path) -> Path:
    for name, count in (('001.ak47', 34), ('002.american-flag', 29), ('003.backpack', 26)):
        (root / '256_ObjectCategories' / name).mkdir(parents=True)
        for i in range(count):
            (root / '256_ObjectCategories' / name / f'{name[:3]}_{i:04}.jpg').touch()
    return root


ARCHIVES: dict[str, Callable[[Path], Path]] = {
    'cub': cub, 'cars': cars, 'aircraft': aircraft, 'dogs': dogs, 'food': food,
    'adience': adience, 'cifar': cifar, 'svhn': svhn, 'folders': folders, 'caltech': caltech,
}  # fmt: skip


def items(found: Split) -> list:
    """What tells the images of a split apart."""
    if isinstance(found.images, np.ndarray):
        return [image.tobytes() for image in found.images]
    boxes = found.boxes or [None] * len(found.images)
    return list(zip(found.images, boxes, strict=True))


def counts(found: Split) -> list[int]:
    return [found.labels.count(y) for y in range(len(found.classes))]


# -------------------------------------------------------------------------------- three splits


@pytest.mark.parametrize('share', [0.1, 0.25, 0.5, 0.99])
@pytest.mark.parametrize('name', list(ARCHIVES))
def test_training_images_are_cut_in_two(tmp_path: Path, name: str, share: float) -> None:
    root = str(ARCHIVES[name](tmp_path / name))
    whole, test = read_split(root, 'train'), read_split(root, 'test')
    for seed in (0, 1):
        whole = read_split(root, 'train', seed=seed)
        train, val = (read_split(root, s, seed=seed, val_share=share) for s in ('train', 'val'))
        assert not set(items(train)) & set(items(val)), 'disjoint'
        assert sorted(items(train) + items(val)) == sorted(items(whole)), 'nothing is lost'
        for part in (train, val):
            kept = [x for x in items(whole) if x in set(items(part))]
            assert items(part) == kept, 'in the order of the whole'
            assert part.classes == whole.classes
            labels = dict(zip(items(whole), whole.labels, strict=True))
            assert [labels[x] for x in items(part)] == part.labels
        if name not in ('adience', 'food'):  # whose groups stay together
            for n, kept, held in zip(counts(whole), counts(train), counts(val), strict=True):
                assert held == (min(max(1, round(share * n)), n - 1) if n > 1 else 0)
                assert kept + held == n
        again = read_split(root, 'val', seed=seed, val_share=share)
        assert items(again) == items(val)
        assert items(read_split(root, 'test', seed=seed, val_share=share)) == items(
            read_split(root, 'test', seed=seed)
        )
        few = read_split(root, 'train', train_per_class=2, seed=seed, val_share=share)
        assert set(items(few)) <= set(items(train))
    assert test.classes == whole.classes


@pytest.mark.parametrize('name', [n for n in ARCHIVES if n not in ('cifar', 'svhn')])
def test_a_copy_elsewhere_has_the_same_split(tmp_path: Path, name: str) -> None:
    """Whatever the order in which folders are listed, and wherever the data lie."""
    roots = [ARCHIVES[name](tmp_path / a / 'x') for a in ('one', 'other')]
    if name == 'cars':
        cars(roots[1], turned=True)
    if name == 'aircraft':
        lists = roots[1] / 'data' / 'images_variant_trainval.txt'
        write_lines(lists, lists.read_text().splitlines()[::-1])
    if name == 'adience':
        for i in range(5):
            header, *lines = (roots[1] / f'fold_{i}_data.txt').read_text().splitlines()
            write_lines(roots[1] / f'fold_{i}_data.txt', [header, *lines[::-1]])
    parts = []
    for root in roots:
        val = read_split(str(root), 'val', val_share=0.3)
        parts.append({os.path.relpath(image, root) for image in val.images})
    assert parts[0] == parts[1] and parts[0]


def test_the_order_of_a_listing_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folders(tmp_path / 'x')
    before = read_split(str(root), 'val', val_share=0.4).images
    scandir, iterdir = os.scandir, Path.iterdir
    monkeypatch.setattr(images.os, 'scandir', lambda path: list(scandir(path))[::-1])
    monkeypatch.setattr(
        class_folders.Path, 'iterdir', lambda path: iter(sorted(iterdir(path))[::-1])
    )
    assert read_split(str(root), 'val', val_share=0.4).images == before


def test_the_cut_never_changes() -> None:
    """These positions are what everyone validates on; another NumPy must not move them."""
    whole = Split(['a', 'b'], np.zeros((20, 1, 1, 3), np.uint8), [0, 1] * 10)
    whole.images[:, 0, 0, 0] = range(20)
    train, val = cut(whole, Path('x'), 0.3, 0)
    assert val.images[:, 0, 0, 0].tolist() == [0, 3, 6, 13, 15, 18] and len(train.labels) == 14


def test_images_of_a_group_stay_together() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        groups = rng.integers(0, 12, 40).tolist()
        labels = rng.integers(0, 3, 40).tolist()
        taken, _ = held_out(groups, labels, 0.25, 3)
        inside = {groups[i] for i in taken}
        assert taken == {i for i in range(40) if groups[i] in inside}
        order = rng.permutation(40)
        again, _ = held_out([groups[i] for i in order], [labels[i] for i in order], 0.25, 3)
        assert {groups[order[i]] for i in again} == inside
        assert 0.1 < len(taken) / 40 < 0.6


def test_single_images_are_trained_on(tmp_path: Path) -> None:
    root = str(folders(tmp_path))
    train, val = (read_split(root, s, val_share=0.5) for s in ('train', 'val'))
    assert counts(train) == [5, 2, 1] and counts(val) == [4, 2, 0]
    for part in (train, val):
        assert 'too few images to validate on some: c' in part.notes
    assert 'no val images of c' in val.notes


def test_own_validation_images_win(tmp_path: Path) -> None:
    root = folders(tmp_path / 'three')
    for name in 'abc':
        write_image(root / 'val' / name / 'v.png')
    whole, val = read_split(str(root), 'train'), read_split(str(root), 'val')
    for share in (0.1, 0.5):
        kept, own = (read_split(str(root), s, val_share=share) for s in ('train', 'val'))
        assert kept.images == whole.images and own.images == val.images
        for part in (kept, own):
            assert part.notes[-1].endswith(
                f'its own validation images: val_share={share} is not used'
            )
    assert {Path(f).name for f in val.images} == {'v.png'}

    # val/ that stands in for test/ is what is tested on: it is not looked at before
    two = folders(tmp_path / 'two')
    (two / 'test').rename(two / 'val')
    assert read_split(str(two), 'val').images == read_split(str(two), 'test').images
    cut_off = read_split(str(two), 'val', val_share=0.5)
    assert counts(cut_off) == [4, 2, 0] and all('/train/' in f for f in cut_off.images)


def test_the_validation_list_of_aircraft(tmp_path: Path) -> None:
    root = str(aircraft(tmp_path, listed=True))
    whole, val = read_split(root, 'train'), read_split(root, 'val')
    assert len(whole.images) == 14, 'trainval'
    assert {int(Path(f).stem) % 3 for f in val.images} == {0}
    assert any(note.startswith('they are among the training images') for note in val.notes)
    kept, own = (read_split(root, s, val_share=0.1) for s in ('train', 'val'))
    assert own.images == val.images and not set(kept.images) & set(val.images)
    assert sorted(kept.images + own.images) == sorted(whole.images)
    assert own.notes[-1].endswith(': val_share=0.1 is not used')


@pytest.mark.parametrize('name', [n for n in ARCHIVES if n != 'aircraft'])
def test_no_validation_images(tmp_path: Path, name: str) -> None:
    root = str(ARCHIVES[name](tmp_path / name))
    with pytest.raises(
        UserError, match=r'no validation images of its own: set val_share, as .*val/'
    ):
        read_split(root, 'val')


@pytest.mark.parametrize('share', [1, -0.1, math.nan, '0.1', True, None])
def test_shares_that_are_none(tmp_path: Path, share: object) -> None:
    with pytest.raises(UserError, match=r'val_share=.*: must be 0 or more and below 1, as 0\.1'):
        read_split(str(folders(tmp_path)), 'train', val_share=share)


# --------------------------------------------------------------------------------------- boxes

# what is written, and the crop [top:bottom, left:right] of an image of 31 x 23
CUB_BOXES = {
    '3.0 4.0 10.0 5.0': (4, 9, 3, 13),
    '0.0 0.0 31.0 23.0': (0, 23, 0, 31),  # all borders
    '21 13 10 10': (13, 23, 21, 31),  # right and bottom borders
    '2.3 4.7 0.7 0.1': (4, 5, 2, 3),  # widened to whole pixels; 2.3 + 0.7 is 3, not more
    '2.5 3.5 4.0 4.0': (3, 8, 2, 7),
    '-3.0 -2.5 10.0 9.0': (0, 7, 0, 7),  # beyond the image
    '25.0 20.0 100.0 100.0': (20, 23, 25, 31),
}
INCLUSIVE_BOXES = {  # from one, with the last column and row
    (4, 5, 13, 9): (4, 9, 3, 13),
    (1, 1, 31, 23): (0, 23, 0, 31),
    (31, 23, 31, 23): (22, 23, 30, 31),  # one pixel
    (1, 1, 1, 1): (0, 1, 0, 1),
    (5, 6, 255, 200): (5, 23, 4, 31),  # beyond the image
    (0, 0, 2, 3): (0, 3, 0, 2),
}
DOG_BOXES = {  # edges from zero, all around
    ((3, 4, 13, 9),): (4, 9, 3, 13),
    ((0, 0, 31, 23),): (0, 23, 0, 31),
    ((3, 4, 6, 9), (10, 2, 13, 5), (4, 5, 5, 6)): (2, 9, 3, 13),
    ((5, 5, 90, 80),): (5, 23, 5, 31),
}
PIPELINE = [dict(type='LoadImage'), dict(type='CropToBox')]


def assert_crops(room: ModuleType, root: Path, wanted: list[tuple]) -> None:
    """Every image of both splits is cropped as wanted, by the rank of its file."""
    seen = 0
    for split in ('train', 'test'):
        dataset = room.FineGrainedImages(str(root), split, pipeline=PIPELINE)
        for i in range(len(dataset)):
            results = dataset[i]
            path = Path(results['img_path'])
            top, bottom, left, right = wanted[int(path.stem.split('_')[-1]) % len(wanted)]
            pixels = np.asarray(Image.open(path))[top:bottom, left:right, ::-1]
            assert np.array_equal(results['img'], pixels), path
            assert results['img_shape'] == pixels.shape[:2] and 'gt_box' not in results
            seen += 1
    assert seen == 20


@pytest.mark.usefixtures('zoo')
class TestCrops:
    def test_cub(self, tmp_path: Path, room: ModuleType) -> None:
        assert_crops(room, cub(tmp_path, boxes=list(CUB_BOXES)), list(CUB_BOXES.values()))

    def test_cars(self, tmp_path: Path, room: ModuleType) -> None:
        root = cars(tmp_path, boxes=list(INCLUSIVE_BOXES))
        assert_crops(room, root, list(INCLUSIVE_BOXES.values()))

    def test_aircraft(self, tmp_path: Path, room: ModuleType) -> None:
        boxes = [' '.join(map(str, box)) for box in INCLUSIVE_BOXES]
        assert_crops(room, aircraft(tmp_path, boxes=boxes), list(INCLUSIVE_BOXES.values()))

    @pytest.mark.parametrize('lists', ['lists', '.'])
    def test_dogs(self, tmp_path: Path, room: ModuleType, lists: str) -> None:
        root = dogs(tmp_path, boxes=list(DOG_BOXES), lists=lists)
        assert_crops(room, root, list(DOG_BOXES.values()))

    def test_food(self, tmp_path: Path, room: ModuleType) -> None:
        root = food(tmp_path / 'UECFOOD100', shared=2)
        dataset = room.FineGrainedImages(str(tmp_path), 'train', pipeline=PIPELINE)
        for i in range(len(dataset)):
            results, y = dataset[i], dataset[i]['gt_label']
            path = Path(results['img_path'])
            rows = (root / f'{y + 1}' / 'bb_info.txt').read_text().splitlines()
            row = next(row for row in rows if row.split()[0] == path.stem)
            left, top, right, bottom = map(int, row.split()[1:])
            pixels = np.asarray(Image.open(path))[top:bottom, left:right, ::-1]
            assert np.array_equal(results['img'], pixels)


def test_boxes_stay_with_their_images(tmp_path: Path) -> None:
    root = str(cub(tmp_path, boxes=[f'{i} 0 1 1' for i in range(20)]))

    def right(found: Split) -> bool:
        return all(
            box[0] == int(Path(image).stem.split('_')[1])
            for image, box in zip(found.images, found.boxes, strict=True)
        )

    whole = read_split(root, 'train')
    order = whole.classes[::-1]
    for found in (
        whole, read_split(root, 'test'), choose_per_class(whole, 3, 5),
        read_split(root, 'train', 2), read_split(root, 'train', classes=order),
        read_split(root, 'val', val_share=0.4), read_split(root, 'train', 1, val_share=0.4),
    ):  # fmt: skip
        assert right(found)
    assert read_split(root, 'train', classes=order).labels == [2 - y for y in whole.labels]


def test_no_boxes(tmp_path: Path, room: ModuleType) -> None:
    for name in ('cub', 'cars', 'aircraft', 'dogs', 'folders', 'cifar'):
        root = str(ARCHIVES[name](tmp_path / name))
        assert read_split(root, 'train').boxes is None
        results = room.FineGrainedImages(root).get_data_info(0)
        assert 'gt_box' not in results
        with pytest.raises(UserError, match=r'image .* has no box: .*bounding_boxes\.txt \(CUB'):
            room.CropToBox().transform(room.LoadImage().transform(results))


def test_boxes_that_hold_nothing(room: ModuleType) -> None:
    image = np.zeros((23, 31, 3), np.uint8)

    def crop(box: tuple, **more: object) -> tuple:
        results = {
            'img': image,
            'img_path': 'a/b.jpg',
            'ori_shape': (23, 31),
            'gt_box': box,
            **more,
        }
        return room.CropToBox().transform(results)['img'].shape[:2]

    assert crop((0, 0, 31, 23)) == (23, 31) and crop((30, 22, 99, 99)) == (1, 1)
    for box in ((31, 0, 40, 5), (0, 23, 5, 30), (-9, 0, 0, 5), (5, 5, 5, 9), (7, 5, 6, 9)):
        with pytest.raises(UserError, match=r'image a/b\.jpg has no pixel of its 31 x 23'):
            crop(box)
    for more in ({'ori_shape': (46, 62)}, {'flip': True}):
        with pytest.raises(UserError, match=r'a/b\.jpg was changed before: put CropToBox right'):
            crop((0, 0, 5, 5), **more)


@pytest.mark.parametrize('line', ['2 1.0 2.0 3.0', '2 1 2 3 x', '2 1 2 3 nan', '2 1 2 3 4 5', '2'])
def test_lines_that_are_no_boxes(tmp_path: Path, line: str) -> None:
    for root, file in (
        (cub(tmp_path / 'cub', boxes=['0 0 5 5']), 'bounding_boxes.txt'),
        (aircraft(tmp_path / 'air', boxes=['1 1 5 5']), 'data/images_box.txt'),
        (food(tmp_path / 'food'), '1/bb_info.txt'),
    ):
        lines = (root / file).read_text().splitlines()
        write_lines(root / file, [lines[0], line, *lines[2:]])
        with pytest.raises(UserError, match=rf'{file}, line 2: ') as caught:
            read_split(str(root), 'train')
        assert repr(line) in str(caught.value) and '\n' not in str(caught.value)


def test_boxes_that_are_absent(tmp_path: Path) -> None:
    root = cub(tmp_path / 'cub', boxes=['0 0 5 5'])
    lines = (root / 'bounding_boxes.txt').read_text().splitlines()
    write_lines(root / 'bounding_boxes.txt', lines[1:])
    with pytest.raises(UserError, match=r'bounding_boxes\.txt has no box of image 1: add it'):
        read_split(str(root), 'train')
    root = dogs(tmp_path / 'dogs', boxes=list(DOG_BOXES))
    file = root / 'Annotation' / 'n02080-Breed_0-haired' / 'n02080_1'
    bomb = '<!DOCTYPE x [<!ENTITY a "b">]><annotation>&a;</annotation>'
    for text in (bomb, '<annotation/>', '<annotation', '<a><bndbox><xmin>1</xmin></bndbox></a>'):
        for encoding in ('utf-8', 'utf-16'):
            file.write_text(text, encoding)
            with pytest.raises(UserError, match=r'n02080_1 is no annotation with boxes: '):
                read_split(str(root), 'train')
    file.unlink()
    with pytest.raises(UserError, match=r'n02080_1, the box of .*n02080_1\.jpg, is not there'):
        read_split(str(root), 'train')


def test_fractions_are_exact() -> None:
    from fgplugins.data.boxes import outward

    tenth = Fraction('0.1')
    assert outward(tenth, tenth, tenth + Fraction('0.2'), Fraction('0.3') * 10) == (0, 0, 1, 3)


# ------------------------------------------------------------------------------------- readers


def test_options_go_to_their_layouts(tmp_path: Path, room: ModuleType) -> None:
    for name in ARCHIVES:
        root = str(ARCHIVES[name](tmp_path / name))
        for option in ('extra', 'label', 'fold', 'seed', 'typo'):
            if option in {'svhn': ['extra'], 'adience': ['label', 'fold']}.get(name, ()):
                continue
            with pytest.raises(UserError, match=rf"options: '{option}' is not an option of ") as c:
                read_split(root, 'train', options={option: 1})
            text = str(c.value)
            assert ('Adience takes it' in text) == (option in ('label', 'fold'))
            assert ('SVHN takes it' in text) == (option == 'extra') and '\n' not in text
    dataset = room.FineGrainedImages(
        str(tmp_path / 'adience'), 'val', val_share=0.5, options=dict(label='age', fold=3)
    )
    found = read_split(
        str(tmp_path / 'adience'), 'val', val_share=0.5, options={'label': 'age', 'fold': 3}
    )
    assert [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))] == found.images
    assert dataset.metainfo['classes'][2] == '8-13'


def test_extra_digits(tmp_path: Path) -> None:
    root = str(svhn(tmp_path, ('train', 'test', 'extra')))
    train, more = (read_split(root, 'train', options=o) for o in (None, {'extra': True}))
    assert len(train.labels) == 40 and len(more.labels) == 80
    assert np.array_equal(more.images[:40], train.images) and more.images.flags.c_contiguous
    assert not np.array_equal(more.images[40:], train.images) and more.labels[40] == 0
    kept, val = (
        read_split(root, s, val_share=0.25, options={'extra': True}) for s in ('train', 'val')
    )
    assert counts(val) == [2] * 10 and len(kept.labels) == 60
    assert len(read_split(root, 'train', options={'extra': False}).labels) == 40
    with pytest.raises(UserError, match=r"extra=True adds to the training images.* 'test'"):
        read_split(root, 'test', options={'extra': True})
    with pytest.raises(UserError, match=r"extra='yes': must be True or False"):
        read_split(root, 'train', options={'extra': 'yes'})
    (tmp_path / 'extra_32x32.mat').unlink()
    with pytest.raises(UserError, match=r'needs .*extra_32x32\.mat, which is not there'):
        read_split(root, 'train', options={'extra': True})


@pytest.mark.parametrize('lists', ['lists', '.'])
def test_dogs_as_published(tmp_path: Path, lists: str) -> None:
    root = dogs(tmp_path, lists=lists)
    train, test = read_split(str(root), 'train'), read_split(str(root), 'test')
    assert train.classes == test.classes == [f'Breed_{y}-haired' for y in range(3)]
    assert counts(train) == [9, 4, 1] and counts(test) == [2, 2, 2]
    assert test.images[0] == str(root / 'Images' / 'n02080-Breed_0-haired' / 'n02080_9.jpg')
    Path(test.images[0]).unlink()
    with pytest.raises(UserError, match=r'test_list\.mat names .*n02080_9\.jpg, which is not'):
        read_split(str(root), 'test')
    from scipy.io import savemat

    savemat(root / lists / 'test_list.mat', {'labels': [1]})
    with pytest.raises(UserError, match=r'test_list\.mat has no file_list: it is no list of'):
        read_split(str(root), 'train')
    files = np.array(['x/a.jpg', 'y/b.jpg'], object)
    savemat(root / lists / 'test_list.mat', {'labels': [7, 7], 'file_list': files})
    with pytest.raises(UserError, match=r'label 7 is of x and of y'):
        read_split(str(root), 'train')


def test_food_as_published(tmp_path: Path) -> None:
    root = food(tmp_path, sizes=(20, 10, 5), shared=4)
    train, test = read_split(str(root), 'train'), read_split(str(root), 'test')
    assert train.classes == test.classes == ['dish 0', 'dish 1', 'dish 2']
    assert len(train.images) + len(test.images) == 20 + 14 + 9
    assert len({*items(train), *items(test)}) == 20 + 14 + 9
    photos = [{Path(f).stem for f in part.images} for part in (train, test)]
    assert not photos[0] & photos[1], 'all copies of a photo are in one part'
    assert all(counts(test)), 'stratified'
    others = read_split(str(root), 'test', seed=1)
    assert set(items(others)) != set(items(test))
    kept, val = (read_split(str(root), s, val_share=0.25) for s in ('train', 'val'))
    assert not {Path(f).stem for f in kept.images} & {Path(f).stem for f in val.images}
    shared = [
        part for part in (train, test) if {'0', '1', '2', '3'} & {Path(f).stem for f in part.images}
    ]
    assert all(any(n.startswith('dishes beside others') for n in part.notes) for part in shared)

    alone = food(tmp_path / 'alone', sizes=(20, 10, 5))
    assert counts(read_split(str(alone), 'test')) == [4, 2, 1], 'a fifth'
    (root / '2' / '100.jpg').unlink()
    with pytest.raises(UserError, match=r'2/bb_info\.txt names .*2/100\.jpg, which is not there'):
        read_split(str(root), 'train')
    write_lines(root / 'category.txt', ['id name', '1 dish', 'x dish'])
    with pytest.raises(UserError, match=r"category\.txt, line 3: 'x dish' is not \"<id> <name>\""):
        read_split(str(root), 'train')


@pytest.mark.parametrize('folder', ['aligned', 'faces'])
@pytest.mark.parametrize('label', ['gender', 'age'])
def test_folds_of_adience(tmp_path: Path, folder: str, label: str) -> None:
    root = str(adience(tmp_path, folder=folder))
    everyone = []
    for fold in range(5):
        options = {'label': label, 'fold': fold}
        train, test = (read_split(root, s, options=options) for s in ('train', 'test'))
        assert {Path(f).parent.name[0] for f in test.images} == {str(fold)}
        assert not set(train.images) & set(test.images)
        assert len(train.images) + len(test.images) == 75
        everyone += test.images
        for part in (train, test):
            for image, y in zip(part.images, part.labels, strict=True):
                k = int(Path(image).parent.name[1])
                assert y == (k if label == 'age' else k % 2)
        kept, val = (read_split(root, s, val_share=0.3, options=options) for s in ('train', 'val'))
        people = [{Path(f).parent.name for f in part.images} for part in (kept, val)]
        assert not people[0] & people[1] and all(counts(val)), 'a person is in one part'
    assert len(set(everyone)) == 75
    assert train.classes == (
        ['female', 'male'] if label == 'gender'
        else ['0-2', '4-6', '8-13', '15-20', '25-32', '38-43', '48-53', '60-100']
    )  # fmt: skip
    assert read_split(root, 'test').labels == read_split(root, 'test', options={'fold': 0}).labels


AGE_CLASSES = {
    '(0, 2)': 0, '2': 0, '3': None, '(8, 12)': 2, '(8, 13)': 2, '13': 2, '(8,12)': 2,
    '(8, 23)': None, '(27, 32)': 4, '35': None, '(38, 42)': 5, '(38, 48)': None, '45': None,
    '57': None, '(60, 100)': 7, 'None': None, '': None, '101': None, '(25, 32': None,
}  # fmt: skip


def test_labels_of_adience(tmp_path: Path) -> None:
    rows = [(f'{i}@N', 'x.jpg', i, age, 'f') for i, age in enumerate(AGE_CLASSES)]
    others = [('a@N', 'y.jpg', 1, '(0, 2)', g) for g in ('u', '', 'm')]
    root = str(adience(tmp_path, [rows, others, [], [], []]))
    test = read_split(root, 'test', options={'label': 'age'})
    wanted = {f'{i}@N': y for i, y in enumerate(AGE_CLASSES.values()) if y is not None}
    assert {Path(f).parent.name: y for f, y in zip(test.images, test.labels, strict=True)} == wanted
    skipped = list(AGE_CLASSES.values()).count(None)
    assert any(f'faces without age among the classes: {skipped}, as' in n for n in test.notes)
    train = read_split(root, 'train')
    assert train.labels == [1]
    assert "faces without gender among the classes: 2, as 'u', ''" in train.notes


def test_mistakes_with_adience(tmp_path: Path) -> None:
    root = adience(tmp_path)
    for options, message in (
        ({'label': 'name'}, "label='name': must be 'gender' or 'age'"),
        ({'fold': 5}, 'fold=5: must be a whole number from 0 to 4'),
        ({'fold': '1'}, "fold='1': must be"),
        ({'fold': True}, 'fold=True: must be'),
    ):
        with pytest.raises(UserError, match=message):
            read_split(str(root), 'train', options=options)
    face = next((root / 'aligned').rglob('*.jpg'))
    face.rename(face.with_suffix('.png'))
    with pytest.raises(UserError, match=r'fold_\d_data\.txt names .*, which is not there'):
        for fold in range(2):
            read_split(str(root), 'train', options={'fold': fold})
    write_lines(root / 'fold_1_data.txt', [ADIENCE_HEADER, 'a\tb\tc'])
    with pytest.raises(UserError, match=r'fold_1_data\.txt, line 2: .* has 3 columns only'):
        read_split(str(root), 'test', options={'fold': 1})
    write_lines(root / 'fold_1_data.txt', ['user_id\tage'])
    with pytest.raises(UserError, match=r'fold_1_data\.txt, line 1: it has no column original_im'):
        read_split(str(root), 'test', options={'fold': 1})
    (root / 'fold_1_data.txt').unlink()
    with pytest.raises(UserError, match=r'fold_1_data\.txt cannot be read: No such file'):
        read_split(str(root), 'test', options={'fold': 1})
    (root / 'aligned').rename(root / 'other')
    with pytest.raises(UserError, match=r'has the lists of Adience but neither aligned/ nor'):
        read_split(str(root), 'train')


def test_all_layouts_are_named() -> None:
    import fgplugins.data.layouts as module

    for layout in module.KNOWN[:-2] + module.KNOWN[-1:]:
        assert layout.name in LAYOUTS and layout.name in module.__doc__
