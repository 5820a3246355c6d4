"""Cluttered digits against the recipe, and the folder layouts."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgplugins.data.clutter import TEST_DIGITS, clutter, cluttered_digits, source_digits
from fgplugins.data.layouts import read_split
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


def test_train_and_test_digits_are_disjoint() -> None:
    train, test = source_digits('train')[0], source_digits('test')[0]
    assert len(test) == TEST_DIGITS and len(train) + len(test) == 1797
    seen = {image.tobytes() for image in train}
    assert not any(image.tobytes() in seen for image in test)


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

    (tmp_path / 'train-images-idx3-ubyte').write_bytes(b'\0\0\x08\x03 cut')
    with pytest.raises(UserError, match='cut short'):
        source_digits('train', str(tmp_path))
    with pytest.raises(UserError, match='is not a folder'):
        source_digits('train', str(tmp_path / 'none'))


def write_image(path: Path, size: tuple[int, int] = (8, 8), colour: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (colour, 20, 30)).save(path)


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


def test_a_choice_of_training_images_of_any_layout(tmp_path: Path) -> None:
    for split, count in (('train', 5), ('test', 4)):
        for name in ('finch', 'wren'):
            for i in range(count):
                write_image(tmp_path / split / name / f'{i}.jpg')
    two = read_split(str(tmp_path), 'train', train_per_class=2)
    assert two.labels == [0, 0, 1, 1] and len(set(two.images)) == 4
    assert [Path(f).parent.name for f in two.images] == ['finch', 'finch', 'wren', 'wren']
    assert len(read_split(str(tmp_path), 'test', train_per_class=2).images) == 8
    assert two.images != read_split(str(tmp_path), 'train', train_per_class=2, seed=3).images

    from fgplugins.zoo_mmpretrain import FineGrainedImages

    dataset = FineGrainedImages(str(tmp_path), train_per_class=2, split_seed=0)
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
