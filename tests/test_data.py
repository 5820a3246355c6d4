"""Cluttered digits against the recipe, the folder layouts, and the pixels of image files."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers import image_folder, write_image
from PIL import Image

from fgplugins.data import images as image_files
from fgplugins.data.classes import in_order_of
from fgplugins.data.cluttered_digits import (
    TEST_DIGITS,
    VAL_DIGITS,
    clutter,
    cluttered_digits,
    source_digits,
)
from fgplugins.data.images import (
    check_decodable,
    check_readable,
    find_images,
    find_unreadable,
    is_image,
    read_image,
)
from fgplugins.data.layouts import read_split
from fgplugins.data.text_files import read_text
from fgplugins.errors import UserError


def naive_clutter(
    digits: np.ndarray, labels: np.ndarray, count: int, distractors: int, canvas: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The recipe one image and one pixel at a time, drawing the same random numbers."""
    n, side, _ = digits.shape
    rng = np.random.default_rng(seed)
    images = np.zeros((count, canvas, canvas))

    def draw(high: int) -> np.ndarray:
        return rng.integers(0, high, (count, 1, 1))[:, 0, 0]

    for _ in range(distractors):
        which, s_y, s_x = draw(n), draw(side - 7), draw(side - 7)
        t_y, t_x = draw(canvas - 7), draw(canvas - 7)
        for m in range(count):
            for y in range(8):
                for x in range(8):
                    images[m, t_y[m] + y, t_x[m] + x] += digits[which[m], s_y[m] + y, s_x[m] + x]
    images[images > 1] = 1
    rounds = -(-count // n)
    chosen = np.concatenate([rng.permutation(n) for _ in range(rounds)])[:count]
    t_y, t_x = draw(canvas - side + 1), draw(canvas - side + 1)
    for m in range(count):
        for y in range(side):
            for x in range(side):
                value = images[m, t_y[m] + y, t_x[m] + x] + digits[chosen[m], y, x]
                images[m, t_y[m] + y, t_x[m] + x] = min(max(value, 0), 1)
    return np.rint(images * 255).astype(np.uint8), labels[chosen]


@pytest.mark.parametrize('distractors', [0, 1, 8])
def test_clutter_follows_the_recipe(distractors: int) -> None:
    digits, labels = source_digits('train')
    digits, labels = digits[:3].astype(np.float64), labels[:3]
    ours = clutter(digits, labels, 7, distractors, 33, seed=5)
    theirs = naive_clutter(digits, labels, 7, distractors, 33, seed=5)
    assert np.array_equal(ours[1], theirs[1])
    assert np.abs(ours[0].astype(int) - theirs[0]).max() <= 1  # float32 rounding


def test_digits_of_the_splits_are_disjoint() -> None:
    train, val, test = (source_digits(split)[0] for split in ('train', 'val', 'test'))
    assert len(val) == VAL_DIGITS and len(test) == TEST_DIGITS
    assert len(train) + len(val) + len(test) == 1797
    digits = {image.tobytes() for split in (train, val, test) for image in split}
    assert len(digits) == len({image.tobytes() for image in train}) + VAL_DIGITS + TEST_DIGITS
    with pytest.raises(UserError, match="'train', 'val' or 'test'"):
        source_digits('valid')


def test_same_seed_same_images() -> None:
    one = cluttered_digits('train', 50, seed=1)
    again = cluttered_digits.__wrapped__('train', 50, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], cluttered_digits('train', 50, seed=2)[0])
    assert one[0].shape == (50, 40, 40) and one[0].dtype == np.uint8


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim])
    return header + b''.join(size.to_bytes(4, 'big') for size in array.shape) + array.tobytes()


def test_mnist_files_are_taken_where_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for stem in ('train', 't10k'):
        images = rng.integers(0, 256, (5, 28, 28), np.uint8)
        (tmp_path / f'{stem}-images-idx3-ubyte').write_bytes(idx(images))
        (tmp_path / f'{stem}-labels-idx1-ubyte').write_bytes(idx(np.arange(5, dtype=np.uint8)))
    found, labels = source_digits('test', str(tmp_path))
    assert np.allclose(found * 255, images) and labels.tolist() == [0, 1, 2, 3, 4]
    parts = [
        source_digits.__wrapped__(split, str(tmp_path))[1].tolist() for split in ('train', 'val')
    ]
    assert sorted(parts[0] + parts[1]) == [0, 1, 2, 3, 4] and len(parts[1]) == 2

    (tmp_path / 'train-images-idx3-ubyte').write_bytes(b'\0\0\x08\x03 cut')
    with pytest.raises(UserError, match='cut short'):
        source_digits('train', str(tmp_path))
    with pytest.raises(UserError, match='is not a folder'):
        source_digits('train', str(tmp_path / 'none'))


def birds(root: Path, *splits: str, classes: tuple[str, ...] = ('crow', 'duck')) -> Path:
    return image_folder(root, dict.fromkeys(splits or ('train', 'test'), 2), classes, side=8)


def test_class_folders(tmp_path: Path) -> None:
    for split in ('train', 'val'):
        for name in ('wren', 'finch'):
            write_image(tmp_path / split / name / 'a.jpg')
            write_image(tmp_path / split / name / 'b.PNG')
    train, test = read_split(str(tmp_path), 'train'), read_split(str(tmp_path), 'test')
    assert train.classes == test.classes == ['finch', 'wren']
    assert train.labels == [0, 0, 1, 1]
    assert test.images[0] == str(tmp_path / 'val' / 'finch' / 'a.jpg')

    write_image(tmp_path / 'val' / 'robin' / 'a.jpg')
    with pytest.raises(UserError, match=r"class 'robin' in .*val is not in .*train"):
        read_split(str(tmp_path), 'test')
    (tmp_path / 'train' / 'robin').mkdir()
    with pytest.raises(UserError, match='robin has no images'):
        read_split(str(tmp_path), 'train')


@pytest.mark.parametrize('subset', [False, True])
def test_cub_as_published_and_its_subset(tmp_path: Path, subset: bool) -> None:
    """The subset separates by commas, counts from zero, and its flag 1 is the test split."""
    first, sep, train_flag = (0, ', ', 0) if subset else (1, ' ', 1)
    rows = {'images': [], 'image_class_labels': [], 'train_test_split': []}
    for i in range(4):
        name = f'{"ab"[i // 2]}/{i}.jpg'
        write_image(tmp_path / 'images' / name)
        rows['images'].append(f'{i + first}{sep}{name}')
        rows['image_class_labels'].append(f'{i + first}{sep}{i // 2 + first}')
        rows['train_test_split'].append(
            f'{i + first}{sep}{train_flag if i % 2 else 1 - train_flag}'
        )
    for name, lines in rows.items():
        (tmp_path / f'{name}.txt').write_text('\n'.join(lines) + '\n')
    (tmp_path / 'classes.txt').write_text(f'{first}{sep}a bird\n{first + 1}{sep}b bird\n')
    train, test = read_split(str(tmp_path), 'train'), read_split(str(tmp_path), 'test')
    assert [Path(f).name for f in train.images] == ['1.jpg', '3.jpg'] and train.labels == [0, 1]
    assert [Path(f).name for f in test.images] == ['0.jpg', '2.jpg']
    assert train.classes == ['a bird', 'b bird']
    (tmp_path / 'images' / 'a' / '1.jpg').unlink()
    with pytest.raises(UserError, match=r'1\.jpg, which is not there'):
        read_split(str(tmp_path), 'train')


@pytest.mark.parametrize('hundred', [False, True])
def test_cifar_as_published(tmp_path: Path, hundred: bool) -> None:
    rng = np.random.default_rng(0)
    key, names, meta = (
        ('fine_labels', 'fine_label_names', 'meta')
        if hundred
        else ('labels', 'label_names', 'batches.meta')
    )
    files = (
        ['train', 'test'] if hundred else [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']
    )
    for name in files:
        data = rng.integers(0, 256, (2, 3072)).astype(np.uint8)
        (tmp_path / name).write_bytes(pickle.dumps({'data': data, key: [0, 1]}))
    (tmp_path / meta).write_bytes(pickle.dumps({names: ['cat', 'dog']}))
    train, test = read_split(str(tmp_path), 'train'), read_split(str(tmp_path), 'test')
    assert train.images.shape == ((2 if hundred else 10), 32, 32, 3) and train.classes == [
        'cat',
        'dog',
    ]
    assert np.array_equal(test.images[1, 3, 5], data[1].reshape(3, 32, 32)[:, 3, 5])

    class Evil:
        def __reduce__(self) -> tuple:
            return print, ('run',)

    (tmp_path / files[-1]).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r'asks for builtins\.print'):
        read_split(str(tmp_path), 'test')


def test_svhn_as_published(tmp_path: Path) -> None:
    from scipy.io import savemat

    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), np.uint8)
    for split in ('train', 'test'):
        savemat(tmp_path / f'{split}_32x32.mat', {'X': images, 'y': [[10], [1], [9], [10]]})
    found = read_split(str(tmp_path), 'test')
    assert found.labels == [0, 1, 9, 0] and len(found.classes) == 10
    assert np.array_equal(found.images[2], images[..., 2])
    (tmp_path / 'train_32x32.mat').write_bytes(b'cut')
    with pytest.raises(UserError, match=r'train_32x32\.mat is not a MATLAB file'):
        read_split(str(tmp_path), 'train')


def test_cars_as_published(tmp_path: Path) -> None:
    from scipy.io import savemat

    kinds = [('relative_im_path', 'O'), ('class', 'u1'), ('test', 'u1')]
    rows = [(f'car_ims/{i}.jpg', i % 2 + 1, int(i > 2)) for i in range(5)]
    names = np.array(['AM General', 'Acura'], object)
    savemat(
        tmp_path / 'cars_annos.mat', {'annotations': np.array(rows, kinds), 'class_names': names}
    )
    for i in range(5):
        write_image(tmp_path / 'car_ims' / f'{i}.jpg')
    train, test = read_split(str(tmp_path), 'train'), read_split(str(tmp_path), 'test')
    assert train.labels == [0, 1, 0] and test.labels == [1, 0]
    assert train.classes == ['AM General', 'Acura'] and test.images[0].endswith('3.jpg')
    (tmp_path / 'car_ims' / '4.jpg').unlink()
    with pytest.raises(UserError, match=r'4\.jpg, which is not there'):
        read_split(str(tmp_path), 'test')


def test_aircraft_as_published(tmp_path: Path) -> None:
    data = tmp_path / 'data'
    data.mkdir()
    (data / 'images_variant_trainval.txt').write_text('01 A340-200\n02 Boeing 717\n')
    (data / 'images_variant_test.txt').write_text('03 Boeing 717\n')
    for i in (1, 2, 3):
        write_image(data / 'images' / f'0{i}.jpg')
    train, test = read_split(str(tmp_path), 'train'), read_split(str(tmp_path), 'test')
    assert train.classes == ['A340-200', 'Boeing 717'] and train.labels == [0, 1]
    assert test.labels == [1] and test.images == [str(data / 'images' / '03.jpg')]
    (data / 'images_variant_test.txt').write_text('03 Concorde\n')
    with pytest.raises(UserError, match="'Concorde' in images_variant_test"):
        read_split(str(tmp_path), 'test')


def caltech256(root: Path, sizes: dict[str, int]) -> Path:
    for name, count in sizes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f'{name[:3]}_{i:04}.jpg').touch()
    return root


CALTECH = {'001.ak47': 98, '002.american-flag': 97, '056.dog': 80, '257.clutter': 30}


@pytest.mark.parametrize('inside', [False, True])
def test_caltech256_as_published(tmp_path: Path, inside: bool) -> None:
    images = caltech256(tmp_path / '256_ObjectCategories', CALTECH)
    (images / '056.dog' / 'greg' / 'vision309').mkdir(parents=True)  # as in the archive
    (images / '056.dog' / 'RENAME2').touch()
    root = str(images if inside else tmp_path)
    whole, test = read_split(root, 'train'), read_split(root, 'test')
    assert whole.classes == test.classes == ['ak47', 'american-flag', 'dog']
    assert [test.labels.count(y) for y in range(3)] == [25, 25, 25]
    assert [whole.labels.count(y) for y in range(3)] == [73, 72, 55]
    assert all(
        f'/{list(CALTECH)[y]}/{list(CALTECH)[y][:3]}_' in f
        for s in (whole, test)
        for f, y in zip(s.images, s.labels, strict=True)
    )
    assert len({*whole.images, *test.images}) == 98 + 97 + 80, 'disjoint, and nothing is lost'

    thirty, sixty = (read_split(root, 'train', train_per_class=n) for n in (30, 60))
    assert [thirty.labels.count(y) for y in range(3)] == [30, 30, 30]
    assert [sixty.labels.count(y) for y in range(3)] == [60, 60, 55], 'all, where there are fewer'
    assert set(thirty.images) < set(sixty.images) < set(whole.images)
    assert read_split(root, 'train', 30).images == thirty.images

    other = read_split(root, 'test', seed=1)
    assert other.labels == test.labels and set(other.images) != set(test.images)
    assert not set(other.images) & set(read_split(root, 'train', seed=1).images)


def test_the_split_of_caltech256_never_changes(tmp_path: Path) -> None:
    """These numbers are what everyone's test images are; another NumPy must not move them."""
    test = read_split(str(caltech256(tmp_path / 'x', {'001.ak47': 40})), 'test')
    numbers = {int(Path(f).stem[4:]) for f in test.images}
    assert set(range(40)) - numbers == {0, 1, 35, 4, 5, 6, 36, 37, 39, 14, 19, 20, 24, 26, 29}


def test_mistakes_with_caltech256(tmp_path: Path) -> None:
    few = caltech256(tmp_path / 'few' / '256_ObjectCategories', {'001.ak47': 25})
    with pytest.raises(UserError, match=r'001\.ak47 has 25 images: 25 are for testing'):
        read_split(str(few.parent), 'train')
    (tmp_path / 'none' / '256_ObjectCategories').mkdir(parents=True)
    with pytest.raises(UserError, match=r'has no category folders, as 001\.ak47'):
        read_split(str(tmp_path / 'none'), 'train')
    with pytest.raises(UserError, match=r'train_per_class=0: must be 1 or more'):
        read_split(str(few), 'train', train_per_class=0)
    # numbered folders of another data set are not taken for Caltech's
    birds = caltech256(tmp_path / 'images', {'001.Black_footed_Albatross': 40})
    with pytest.raises(UserError, match='it should hold train/<class>'):
        read_split(str(birds), 'train')


def test_a_choice_of_training_images_of_any_layout(tmp_path: Path, room: ModuleType) -> None:
    for split, count in (('train', 5), ('test', 4)):
        for name in ('finch', 'wren'):
            for i in range(count):
                write_image(tmp_path / split / name / f'{i}.jpg')
    two = read_split(str(tmp_path), 'train', train_per_class=2)
    assert two.labels == [0, 0, 1, 1] and len(set(two.images)) == 4
    assert [Path(f).parent.name for f in two.images] == ['finch', 'finch', 'wren', 'wren']
    assert len(read_split(str(tmp_path), 'test', train_per_class=2).images) == 8
    assert two.images != read_split(str(tmp_path), 'train', train_per_class=2, seed=3).images

    dataset = room.FineGrainedImages(str(tmp_path), train_per_class=2, split_seed=0)
    assert [dataset.get_data_info(i)['img_path'] for i in range(4)] == two.images


def test_wrong_and_empty_roots(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"'nowhere' is not a folder: pass --data-root; it may hold"
    ):
        read_split('nowhere', 'train')
    with pytest.raises(UserError, match=r'holds nothing; it should hold train/<class>'):
        read_split(str(tmp_path), 'train')
    (tmp_path / 'notes.txt').write_text('x')
    with pytest.raises(UserError, match=r'holds notes\.txt; it should hold'):
        read_split(str(tmp_path), 'train')


@pytest.mark.parametrize(
    ('name', 'train', 'test', 'classes'),
    [('cub100', 2999, 2903, 100), ('cifar10_jpeg', 50000, 10000, 10)],
)
def test_real_folders(data_folder: Path, name: str, train: int, test: int, classes: int) -> None:
    if not (data_folder / name).is_dir():
        pytest.skip(f'{name} is not unpacked in {data_folder}')
    found = read_split(str(data_folder / name), 'train')
    assert (len(found.images), len(found.classes)) == (train, classes)
    assert len(read_split(str(data_folder / name), 'test').images) == test


# ------------------------------------------------------------------------- what a scan takes


def test_which_files_are_images() -> None:
    for name in ('a.JPG', 'a.jfif', 'a.gif', 'a.avif', 'a.jp2', 'a.tga', 'a.mpo', 'a.pfm', 'a.qoi'):
        assert is_image(name), name
    for name in ('a.txt', 'a.svg', 'a.eps', 'a.wmf', 'a.h5', 'a.mpg', 'a.pdf', 'a.nef', 'jpg', 'a'):
        assert not is_image(name), name


@pytest.mark.parametrize(
    'name',
    ['.ipynb_checkpoints', '.Trash-1000', '__MACOSX', '@eaDir', '$Recycle.Bin', '#recycle',
     'System Volume Information', 'lost+found', '__pycache__'],
)  # fmt: skip
def test_what_systems_leave_behind_does_not_count(tmp_path: Path, name: str) -> None:
    root = birds(tmp_path)
    for folder in (root, root / 'train', root / 'train' / 'crow', root / 'test'):
        write_image(folder / name / 'x.jpg')
        write_image(folder / name / 'deep' / 'x.jpg')
        (folder / '.DS_Store').touch()
        (folder / '._0.png').touch()
        (folder / 'Thumbs.db').touch()
    for split in ('train', 'test'):
        found = read_split(str(root), split)
        assert (found.classes, found.labels) == (['crow', 'duck'], [0, 0, 1, 1])
        assert found.notes == [f'{split}: 4 images of 2 classes, 2 each']
    assert len(find_images(root)) == 8


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    store, root = tmp_path / 'store', tmp_path / 'birds'
    for i in range(3):
        write_image(store / 'gulls' / f'{i}.jpg')
    birds(root)
    for split in ('train', 'test'):
        (root / split / 'gull').symlink_to(store / 'gulls')
    (root / 'train' / 'crow' / 'more.jpg').symlink_to(store / 'gulls' / '0.jpg')
    (root / 'train' / 'crow' / 'itself').symlink_to('.')
    (root / 'train' / 'crow' / 'root').symlink_to(root)
    (store / 'gulls' / 'back').symlink_to(root / 'train')
    found = read_split(str(root), 'train')
    assert found.classes == ['crow', 'duck', 'gull']
    assert [found.labels.count(y) for y in range(3)] == [3, 2, 3]
    assert str(root / 'train' / 'gull' / '2.jpg') in found.images

    (root / 'train' / 'duck' / 'gone.jpg').symlink_to(store / 'no.jpg')
    with pytest.raises(
        UserError, match=r'duck/gone\.jpg is a link to .*no\.jpg, which is not there'
    ):
        read_split(str(root), 'train')


@pytest.mark.parametrize(
    ('suffix', 'cure'),
    [('HEIC', 'pip install pillow-heif'), ('heif', 'pip install pillow-heif'),
     ('CR2', r'convert \.CR2 to PNG'), ('dng', 'convert'), ('jxl', 'convert'), ('svg', 'convert')],
)  # fmt: skip
def test_formats_that_cannot_be_decoded_are_refused(
    tmp_path: Path, suffix: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(  # as where pillow-heif is not installed
        image_files, 'IMAGE_SUFFIXES', image_files.IMAGE_SUFFIXES - image_files.HEIF_SUFFIXES
    )
    root = birds(tmp_path)
    for name in ('a', 'b'):
        (root / 'test' / 'duck' / f'{name}.{suffix}').touch()
    assert len(read_split(str(root), 'train').images) == 4
    with pytest.raises(UserError, match=rf': 2, as .*duck/a\.{suffix}: {cure}'):
        read_split(str(root), 'test')
    with pytest.raises(UserError, match=cure):
        find_images(root)
    check_decodable(['a.jpg', 'b'])  # a list may name files without a suffix


def test_names_of_the_splits(tmp_path: Path) -> None:
    for i, (train, test) in enumerate(
        [('Train', 'TEST'), ('training', 'Testing'), ('TRAIN', 'Valid'), ('train', 'validation')]
    ):
        root = birds(tmp_path / str(i), train, test)
        assert read_split(str(root), 'train').images[0] == str(root / train / 'crow' / '0.png')
        assert read_split(str(root), 'test').images[0] == str(root / test / 'crow' / '0.png')

    both = birds(tmp_path / 'both', 'train', 'test', 'val', 'Train')
    test, val = read_split(str(both), 'test'), read_split(str(both), 'val')
    assert Path(test.images[0]).parts[-3] == 'test' and Path(val.images[0]).parts[-3] == 'val'
    assert 'train/ is read, and Train/ beside it is not' in test.notes
    with pytest.raises(UserError, match=r"0' has no validation images of its own: set val_share"):
        read_split(str(tmp_path / '0'), 'val')
    with pytest.raises(UserError, match='has train/ but no test/ or val/ beside it'):
        read_split(str(birds(tmp_path / 'alone', 'train')), 'test')
    with pytest.raises(UserError, match=r'has no validation images .* add val/ beside train/ and'):
        read_split(str(caltech256(tmp_path / 'caltech', CALTECH)), 'val')
    with pytest.raises(UserError, match="split='dev': must be"):
        read_split(str(both), 'dev')


def test_nested_classes_are_named_by_their_path(tmp_path: Path) -> None:
    root = birds(tmp_path, classes=('ducks/mallard', 'ducks/teal', 'crow'))
    (root / 'train' / 'crow' / 'boxes').mkdir()
    (root / 'train' / 'crow' / 'boxes' / '0.xml').touch()
    found = read_split(str(root), 'train')
    assert found.classes == ['crow', 'ducks/mallard', 'ducks/teal']
    assert found.labels == read_split(str(root), 'test').labels == [0, 0, 1, 1, 2, 2]
    assert "by its path, as 'ducks/mallard'" in found.notes[1]

    write_image(root / 'train' / 'ducks' / 'x.jpg')
    with pytest.raises(
        UserError, match=r'train/ducks holds images itself and in ducks/mallard/: if'
    ):
        read_split(str(root), 'train')
    loose = birds(tmp_path / 'loose')
    write_image(loose / 'test' / 'x.jpg')
    with pytest.raises(UserError, match=r'images in test/ itself: 1, as .*x\.jpg: put'):
        read_split(str(loose), 'test')


def test_classes_of_both_splits_are_compared_as_they_read(tmp_path: Path) -> None:
    composed, decomposed = 'caf\u00e9', 'cafe\u0301'
    root = birds(tmp_path, 'train', classes=(composed, 'Crow'))
    birds(root, 'test', classes=(decomposed, 'Crow'))
    found = read_split(str(root), 'test')
    assert found.classes == ['Crow', composed] and found.labels == [0, 0, 1, 1]

    (root / 'test' / 'Crow').rename(root / 'test' / 'crow')
    with pytest.raises(
        UserError, match=r"class 'crow' in .*: 'Crow' there differs only in upper and"
    ):
        read_split(str(root), 'test')
    write_image(root / 'train' / decomposed / 'x.jpg')
    with pytest.raises(UserError, match=r'has two folders .* differ in their bytes only'):
        read_split(str(root), 'train')


def test_notes_say_what_is_odd(tmp_path: Path, room: ModuleType) -> None:
    root = birds(tmp_path, classes=('crow', 'duck', 'new\nline'))
    for image in (root / 'test' / 'new\nline').iterdir():
        image.unlink()
    write_image(root / 'train' / 'duck' / 'more.jpg')
    for name in ('film.mp4', 'list.txt', 'no suffix'):
        (root / 'train' / 'crow' / name).touch()
    assert read_split(str(root), 'test').notes == [
        'test: 4 images of 3 classes, 0 to 2 each', r'no test images of new\nline',
    ]  # fmt: skip
    counts, skipped = read_split(str(root), 'train').notes
    assert counts == 'train: 7 images of 3 classes, 2 to 3 each'
    assert skipped == f'skipped, for they are no images: 2 files, as {root}/train/crow/film.mp4'
    dataset = room.FineGrainedImages(str(root), lazy_init=True)
    assert dataset.notes == []
    dataset.full_init()
    assert dataset.notes == [counts, skipped]
    alone = birds(tmp_path / 'alone', classes=('crow',))
    assert read_split(str(alone), 'train').notes[1] == 'crow is the only class'


def test_folders_in_no_layout_are_told_what_they_hold(tmp_path: Path) -> None:
    flat = birds(tmp_path / 'flat', '.', classes=('crow', 'duck', 'eagle', 'gull'))
    with pytest.raises(
        UserError,
        match=r'holds 4 folders with images \(crow, duck, eagle, \.\.\.\) but no train/ and',
    ):
        read_split(str(flat), 'train')
    with pytest.raises(UserError, match='holds 2 images but no class folders'):
        read_split(str(flat / 'crow'), 'train')
    birds(tmp_path / 'outer' / 'unpacked')
    with pytest.raises(
        UserError, match=r'has no train/, but unpacked/ in it does: pass .*/unpacked'
    ):
        read_split(str(tmp_path / 'outer'), 'train')


# ------------------------------------------------------------------------------------- lists


@pytest.mark.parametrize(
    ('encoding', 'name'),
    [('utf-8', '乌鸦 é'), ('utf-8-sig', '乌鸦'), ('utf-16', 'Müller'), ('utf-32', '乌鸦'),
     ('gb18030', '乌鸦 717'), ('gb18030', '黄喉鹀'), ('cp1252', 'Müller’s Ærøskøbing'),
     ('latin-1', 'Façade \x81')],
)  # fmt: skip
@pytest.mark.parametrize('end', ['\n', '\r\n', '  \n', '\n\n'])
def test_lists_in_any_encoding(tmp_path: Path, encoding: str, name: str, end: str) -> None:
    for i, part in enumerate(('trainval', 'test')):
        write_image(tmp_path / 'images' / f'{i}.jpg')
        rows = f'{i} {name}{end}'
        (tmp_path / f'images_variant_{part}.txt').write_bytes(rows.encode(encoding))
    assert read_text(tmp_path / 'images_variant_test.txt').lstrip('\ufeff') == f'1 {name}{end}'
    for split in ('train', 'test'):
        found = read_split(str(tmp_path), split)
        assert (found.classes, found.labels) == ([name], [0])


def test_mistakes_in_cub_lists(tmp_path: Path) -> None:
    write_image(tmp_path / 'images' / 'a.jpg')

    def write(images: str, labels: str, flags: str, classes: str) -> str:
        for name, text in (
            ('images', images), ('image_class_labels', labels), ('train_test_split', flags),
            ('classes', classes),
        ):  # fmt: skip
            (tmp_path / f'{name}.txt').write_text(text)
        return str(tmp_path)

    root = write('1 a.jpg\n2 a.jpg', '1 1\n2 1\n', '1 1\n', '1 crow\n')
    found = read_split(root, 'train')
    assert (
        len(found.images) == 1
        and found.notes[-1] == 'images without label or split: 1, as number 2'
    )
    with pytest.raises(UserError, match=r"label 'crow' of image 1 is no number"):
        read_split(write('1 a.jpg', '1 crow', '1 1', '1 crow'), 'train')
    with pytest.raises(UserError, match=r'classes\.txt lacks class 2 of image 1'):
        read_split(write('1 a.jpg', '1 2', '1 1', '1 crow'), 'train')
    with pytest.raises(UserError, match=r"images\.txt, line 2: '2' is not"):
        read_split(write('1 a.jpg\n2', '1 1', '1 1', '1 crow'), 'train')


# ------------------------------------------------------------------------------------ pixels

NOISE = np.random.default_rng(0).integers(0, 256, (23, 31, 4), np.uint8)


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr'])
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif', 'webp', 'bmp', 'gif'])
def test_ordinary_images_are_read_as_before(
    tmp_path: Path, mode: str, suffix: str, room: ModuleType
) -> None:
    """Bit for bit what mmcv reads by Pillow, each way up; transparency aside, which it drops."""
    import mmcv

    image = Image.fromarray(NOISE[..., :3]).convert(mode)
    for orientation in range(9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f'{orientation}.{suffix}'
        try:
            image.save(path, exif=exif)
        except (OSError, ValueError):
            pytest.skip(f'{suffix} has no {mode}')
        try:
            with Image.open(path) as written:
                written.load()
        except OSError:  # YCbCr of Pillow 12.3 in TIFF
            pytest.skip(f'this Pillow does not read its own {suffix} of {mode}')
        colour = room.LoadImage().transform({'img_path': str(path)})
        assert np.array_equal(colour['img'], mmcv.imread(str(path), backend='pillow'))
        assert colour['img_shape'] == colour['ori_shape'] == colour['img'].shape[:2]
        grey = room.LoadImage(color_type='grayscale').transform({'img_path': str(path)})['img']
        assert np.array_equal(grey, mmcv.imread(str(path), 'grayscale', backend='pillow'))


def test_transparency_is_dropped_without_a_word(tmp_path: Path) -> None:
    rgba = Image.fromarray(NOISE)
    rgba.save(tmp_path / 'rgba.png')
    rgba.convert('LA').save(tmp_path / 'la.png')
    palette = Image.fromarray(NOISE[..., :3]).convert('P')
    palette.save(tmp_path / 'p.png', transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert np.array_equal(read_image(tmp_path / 'rgba.png'), NOISE[..., :3])
        grey = np.asarray(rgba.convert('LA'))[..., 0]
        assert np.array_equal(read_image(tmp_path / 'la.png'), np.stack([grey] * 3, axis=2))
        assert np.array_equal(read_image(tmp_path / 'p.png'), np.asarray(palette.convert('RGB')))


def tiff(pixels: bytes, width: int, bits: int, black: int = 1, signed: bool = False) -> bytes:
    """One row of grey samples, as other programs write them."""
    tags = [(256, width), (257, 1), (258, bits), (259, 1), (262, black), (273, 122), (277, 1),
            (279, len(pixels)), (339, 2 if signed else 1)]  # fmt: skip
    rows = [
        np.array([tag, 3], '<u2').tobytes() + np.array([1, value], '<u4').tobytes()
        for tag, value in tags
    ]
    header = b'II*\0\x08\0\0\0' + len(tags).to_bytes(2, 'little')
    return header + b''.join(rows) + b'\0' * 4 + pixels


def test_deep_pixels_keep_their_meaning(tmp_path: Path, room: ModuleType) -> None:
    ramp = np.linspace(0, 255, 16)
    deep = np.rint(ramp * 257).astype('<u2')
    row = deep[None]
    Image.fromarray(row).save(tmp_path / 'deep.png')
    Image.fromarray(row).save(tmp_path / 'deep.tif')
    Image.fromarray(row).save(tmp_path / 'deep.jp2', irreversible=False)
    Image.fromarray(row.astype(np.int32)).save(tmp_path / 'deep.pgm')
    Image.fromarray((row / 65535).astype(np.float32)).save(tmp_path / 'float.tif')
    Image.fromarray((row / 65535).astype(np.float32)).save(tmp_path / 'float.pfm')
    (tmp_path / '1023.pgm').write_bytes(
        b'P5 16 1 1023\n' + np.rint(ramp * 1023 / 255).astype('>u2').tobytes()
    )
    (tmp_path / 'negative.tif').write_bytes(tiff(deep[::-1].tobytes(), 16, 16, black=0))
    twelve = np.rint(ramp * 4095 / 255).astype(int)
    packed = [(a >> 4, (a & 15) << 4 | b >> 8, b & 255) for a, b in twelve.reshape(-1, 2)]
    (tmp_path / 'twelve.tif').write_bytes(tiff(bytes(np.ravel(packed).tolist()), 16, 12))
    for path in sorted(tmp_path.iterdir()):
        got = read_image(path)
        assert got.dtype == np.uint8 and got.shape == (1, 16, 3), path
        assert np.abs(got[0] - np.rint(ramp)[:, None]).max() <= 1, path
        loaded = room.LoadImage(color_type='grayscale').transform({'img_path': str(path)})['img']
        assert np.array_equal(loaded, got[..., 0])
    assert find_unreadable(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('values', 'reason'),
    [
        (np.float32([[0, 200]]), 'values are between 0 and 200: scale them to between 0 and 1'),
        (np.float32([[-0.1, 1]]), 'between -0.1 and 1'),
        (np.float32([[0.5, np.nan]]), 'between nan and nan'),
        (np.int32([[0, 255]]), 'integers, between 0 and 255, have no known white'),
        (np.int16([[-5, 9]]), 'integers, between -5 and 9, have'),
    ],
)
def test_values_without_a_known_range_are_refused(
    tmp_path: Path, values: np.ndarray, reason: str, room: ModuleType
) -> None:
    path = tmp_path / 'x.tif'
    if values.dtype == np.int16:
        path.write_bytes(tiff(values.tobytes(), 2, 16, signed=True))
    else:
        Image.fromarray(values).save(path)
    with pytest.raises(UserError, match=rf'image {path} cannot be read: .*{reason}'):
        room.LoadImage().transform({'img_path': str(path)})
    assert reason in find_unreadable([path])[0][1]


def test_first_frames_and_huge_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.new('RGB', (9, 7), colour) for colour in ('red', 'lime', 'blue')]
    for suffix in ('gif', 'webp', 'png', 'tif', 'avif'):
        path = tmp_path / f'x.{suffix}'
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert np.abs(read_image(path).astype(int) - (255, 0, 0)).max() < 9, suffix

    huge = write_image(tmp_path / 'huge.png', (12, 12))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)  # Pillow warns, and refuses from twice that
    with pytest.warns(Image.DecompressionBombWarning, match='144 pixels'):
        assert read_image(huge).shape == (12, 12, 3)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 60)
    with pytest.raises(
        UserError, match=rf'image {huge} cannot be read: .*144 pixels.*make it smaller'
    ):
        read_image(huge)


DAMAGED = {
    'empty': (b'', 'it is empty'),
    'page': (b'<!DOCTYPE html>', 'no image that can be decoded'),
    'heic': (b'\0\0\0\x18ftypheic' + bytes(30), 'it is HEIC: pip install pillow-heif'),
    'eps': (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n', 'no image'),
    'hdf': (b'\x89HDF\r\n\x1a\n' + bytes(50), 'no image that can be decoded'),
}


def test_all_broken_images_are_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: ModuleType
) -> None:
    root = birds(tmp_path)
    for name, (content, _) in DAMAGED.items():
        (root / 'test' / 'crow' / f'{name}.jpg').write_bytes(content)
    photo = root / 'train' / 'duck' / 'cut.jpg'
    Image.fromarray(NOISE[..., :3]).resize((200, 200)).save(photo)
    photo.write_bytes(photo.read_bytes()[:-900])
    odd = root / 'train' / 'duck' / 'new\nline.jpg'
    odd.touch()
    train, test = (room.FineGrainedImages(str(root), split) for split in ('train', 'test'))
    seen = []
    found = dict(find_unreadable(find_images(root), lambda *counts: seen.append(counts)))
    assert seen == [(15, 15)] and len(found) == 7
    assert 'truncated' in found[str(photo)]
    for name, (_, reason) in DAMAGED.items():
        assert reason in found[str(root / 'test' / 'crow' / f'{name}.jpg')]
    with pytest.raises(UserError) as caught:
        check_readable(train, test)
    text = str(caught.value)
    assert text.startswith('7 of 15 images cannot be read (replace or remove them): ')
    assert f'{photo}: image file is truncated' in text and r'new\nline.jpg: it is empty' in text
    assert text.endswith('; and 2 more') and len(text.splitlines()) == 1

    check_readable(find_images(root / 'test' / 'duck'))
    monkeypatch.setattr(image_files, 'HEADERS_ONLY_ABOVE', 14)
    assert str(photo) not in dict(find_unreadable(find_images(root))), 'its header is whole'


def test_data_sets_that_are_checked(tmp_path: Path, room: ModuleType) -> None:
    from mmengine.dataset import ConcatDataset, RepeatDataset

    root = birds(tmp_path)
    bad = root / 'train' / 'crow' / '0.png'
    bad.write_bytes(b'')
    train, test = (room.FineGrainedImages(str(root), split) for split in ('train', 'test'))
    for data in ([ConcatDataset([test, train])], [test, RepeatDataset(train, 3), train]):
        with pytest.raises(UserError, match=rf'^image {bad} cannot be read: it is empty; replace'):
            check_readable(*data)
    check_readable(test, room.ClutteredDigits('test', num_images=3))


def test_loading_keeps_what_mmcv_offers(tmp_path: Path, room: ModuleType) -> None:
    path = write_image(tmp_path / 'x.png')
    loaded = room.LoadImage(to_float32=True).transform({'img_path': str(path)})['img']
    assert loaded.dtype == np.float32 and loaded[0, 0].tolist() == [30, 20, 100]
    deep = tmp_path / 'deep.png'
    Image.fromarray(np.full((3, 3), 40000, np.uint16)).save(deep)
    other = room.LoadImage(imdecode_backend='cv2', color_type='unchanged')
    assert other.transform({'img_path': str(deep)})['img'].max() == 40000
    (tmp_path / 'empty.png').touch()
    for name in ('empty.png', 'none.png'):
        results = {'img_path': str(tmp_path / name)}
        assert room.LoadImage(ignore_empty=True).transform(dict(results)) is None
        with pytest.raises(UserError, match=rf'image .*{name} cannot be read: '):
            room.LoadImage().transform(results)


# -------------------------------------------------------------------------------- class order


def test_classes_in_a_wanted_order(tmp_path: Path, room: ModuleType) -> None:
    root = str(birds(tmp_path / 'birds', classes=('crow', 'duck', 'caf\u00e9')))
    wanted = ('duck', 'emu', 'cafe\u0301', 'crow')
    file = tmp_path / 'classes.txt'
    file.write_bytes('\r\n'.join(wanted).encode('utf-8-sig'))
    for kwargs in (
        {'classes': wanted},
        {'classes': str(file)},
        {'metainfo': {'classes': list(wanted)}},
        {'metainfo': {'classes': str(file)}},
        {'classes': ['not', 'these'], 'metainfo': {'classes': wanted}},  # as in MMPretrain
    ):
        for split in ('train', 'test'):
            dataset = room.FineGrainedImages(root, split, **kwargs)
            assert dataset.metainfo['classes'] == wanted
            for i in range(6):
                info = dataset.get_data_info(i)
                folder = Path(info['img_path']).parent.name
                assert info['gt_label'] == {'duck': 0, 'caf\u00e9': 2, 'crow': 3}[folder]
        assert f'no {split} images of emu' in dataset.notes
    lazy = room.FineGrainedImages(root, classes=wanted, lazy_init=True, indices=3)
    assert lazy.metainfo['classes'] == wanted
    lazy.full_init()
    assert len(lazy) == 3

    with pytest.raises(
        UserError, match="class 'caf\u00e9' of the data is not in classes, which begin"
    ):
        room.FineGrainedImages(root, classes=['duck', 'crow'])
    with pytest.raises(UserError, match="classes: 'crow' is named twice"):
        room.FineGrainedImages(root, classes=['duck', 'crow', 'crow'])
    with pytest.raises(UserError, match=r'none\.txt cannot be read: No such file'):
        room.FineGrainedImages(root, classes=str(tmp_path / 'none.txt'))


def test_arrays_take_a_wanted_order_too(tmp_path: Path, room: ModuleType) -> None:
    for name in ('train', 'test'):
        data = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
        (tmp_path / name).write_bytes(pickle.dumps({'data': data, 'fine_labels': [0, 1]}))
    (tmp_path / 'meta').write_bytes(pickle.dumps({'fine_label_names': ['cat', 'dog']}))
    found = room.FineGrainedImages(str(tmp_path), classes=('dog', 'eel', 'cat'))
    assert found.get_gt_labels().tolist() == [2, 0]
    assert in_order_of(('b', 'a'), ('a', 'b'), [0, 1, 1]) == (['b', 'a'], [1, 0, 0])
    backwards = tuple('9876543210')
    digits = room.ClutteredDigits('test', num_images=9, metainfo={'classes': backwards})
    usual = room.ClutteredDigits('test', num_images=9)
    assert (digits.get_gt_labels() == 9 - usual.get_gt_labels()).all()
