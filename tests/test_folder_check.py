"""A folder checked: near-duplicates against all pairs in loops, and every kind of finding."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgplugins.data import duplicates
from fgplugins.data.duplicates import (
    NEAR,
    duplicate_sets,
    fingerprint,
    fingerprints,
    near_pairs,
    same_files,
)
from fgplugins.data.folder_check import check_folder
from fgplugins.data.folder_report import as_table, folder_report
from fgplugins.errors import UserError

pytest.importorskip('imagehash', reason='of the extra data')


def picture(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A picture with structure of its own."""
    noise = np.random.RandomState(seed).randint(0, 256, (9, 12, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def folder(root: Path, **counts: int) -> Path:
    """Different pictures of the classes crow and duck, as many in each split as asked."""
    number = 0
    for split, count in counts.items():
        for name in ('crow', 'duck'):
            for i in range(count):
                number += 1
                save(root / split / name / f'{i}.png', picture(number))
    return root


# ---------------------------------------------------------------------------------- near-duplicates


def naive_pairs(looks: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    found = []
    for i in range(len(looks)):
        for j in range(i + 1, len(looks)):
            bits = sum(
                (int(a) ^ int(b)).bit_count() for a, b in zip(looks[i], looks[j], strict=True)
            )
            if bits <= most:
                found.append((i, j, bits))
    return found


@pytest.mark.parametrize('most', [0, 7, 24, 33, 48])
def test_near_pairs_are_those_of_all_pairs(most: int) -> None:
    rng = np.random.default_rng(most)
    looks = rng.integers(0, 256, (60, 32), dtype=np.uint8)
    for i in range(30):  # near others by any number of bits
        looks[i] = looks[i + 30]
        for bit in rng.choice(256, rng.integers(0, 60), replace=False):
            looks[i, bit // 8] ^= 1 << (bit % 8)
    looks[5] = looks[6]
    expected = naive_pairs(looks, most)
    assert [tuple(map(int, row)) for row in zip(*near_pairs(looks, most), strict=True)] == expected
    assert len(expected) >= 1
    assert [len(column) for column in near_pairs(looks[:0], most)] == [0, 0, 0]


def test_bits_spread_evenly_are_found_too() -> None:
    """The worst case of the look-up by blocks: every block differs."""
    looks = np.random.default_rng(0).integers(0, 256, (2, 32), dtype=np.uint8)
    looks[1] = looks[0]
    looks[1, ::2] ^= 1
    looks[1, 1:16:2] ^= 2
    assert [int(column[0]) for column in near_pairs(looks, 24)] == [0, 1, 24]
    assert not len(near_pairs(looks, 23)[0])


def test_many_at_once_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = np.random.default_rng(0).integers(0, 4, (50, 32), dtype=np.uint8)
    whole = near_pairs(looks, 40)
    monkeypatch.setattr(duplicates, 'CELLS', 7)
    assert all(np.array_equal(a, b) for a, b in zip(whole, near_pairs(looks, 40), strict=True))


COPIES: dict[str, Callable[[Path, Image.Image], Path]] = {
    'resized by -5 %': lambda f, p: save(f / 'b.jpg', p.resize((228, 171)), quality=75),
    'resized by +5 %': lambda f, p: save(f / 'b.jpg', p.resize((252, 189)), quality=75),
    'half the size': lambda f, p: save(f / 'b.jpg', p.resize((120, 90)), quality=75),
    'grey': lambda f, p: save(f / 'b.png', p.convert('L')),
    'turned by EXIF': lambda f, p: save(
        f / 'b.jpg', p.transpose(Image.Transpose.ROTATE_90), exif=turned()
    ),
}


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize('name', COPIES)
def test_a_copy_is_near_and_other_pictures_are_not(tmp_path: Path, name: str) -> None:
    original = picture(1, (240, 180))
    paths = [save(tmp_path / 'a.png', original), COPIES[name](tmp_path, original)]
    paths += [save(tmp_path / f'{i}.png', picture(i, (240, 180))) for i in range(2, 8)]
    prints, bad = fingerprints(list(map(str, paths)), 2)
    assert not bad
    (found,) = duplicate_sets(prints)
    assert (found.kind, found.files) == ('near', sorted(map(str, paths[:2])))
    assert found.distance <= 12 < NEAR


def test_kinds_of_sets(tmp_path: Path) -> None:
    save(tmp_path / 'a.png', picture(1))
    shutil.copy(tmp_path / 'a.png', tmp_path / 'b.png')
    save(tmp_path / 'c.bmp', picture(1))
    save(tmp_path / 'd.jpg', picture(1), quality=60)
    save(tmp_path / 'e.png', picture(2))
    prints = {f.name: fingerprint(str(f)) for f in tmp_path.iterdir()}
    assert [(one.kind, one.files) for one in duplicate_sets(prints)] == [
        ('file', ['a.png', 'b.png']),
        ('pixels', ['a.png', 'b.png', 'c.bmp']),
        ('near', ['a.png', 'b.png', 'c.bmp', 'd.jpg']),
    ]
    assert len(duplicate_sets(prints, most=-1)) == 2
    assert duplicate_sets({}) == []
    del prints['d.jpg'], prints['b.png']
    assert [one.kind for one in duplicate_sets(prints)] == ['pixels'], 'and not near besides'


def test_plain_pictures_are_compared_by_pixels_only(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f'{i}.png', Image.new('RGB', (8, 8), (0, 90 * i, 0)))
    save(tmp_path / 'again.bmp', Image.new('RGB', (8, 8)))
    prints = {f.name: fingerprint(str(f)) for f in tmp_path.iterdir()}
    assert [(one.kind, one.files) for one in duplicate_sets(prints)] == [
        ('pixels', ['0.png', 'again.bmp'])
    ]


def test_near_duplicates_of_photographs(data_folder: Path) -> None:
    """On real birds: each one's copy is found, and no two different ones but one known pair."""
    files = sorted((data_folder / 'cub100' / 'images').glob('*/000*.jpg'))
    prints, _ = fingerprints(list(map(str, files)), 2)
    assert all(len(one.files) == 2 for one in duplicate_sets(prints))
    assert len(duplicate_sets(prints)) <= 1


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__('sys').modules, 'imagehash', None)
    with pytest.raises(UserError, match=r"need ImageHash: pip install 'fgplugins\[data\]'"):
        check_folder(str(folder(tmp_path, train=1, test=1)))
    monkeypatch.undo()
    monkeypatch.delattr(np, 'bitwise_count')
    with pytest.raises(UserError, match='need NumPy 2'):
        check_folder(str(tmp_path))


@pytest.mark.parametrize('seed', range(4))
def test_same_files_are_those_of_all_pairs(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    parts = []
    for part in range(3):
        paths = [tmp_path / f'{part}{i}' for i in range(6)]
        for path in paths:
            path.write_bytes(draw.choice([b'a', b'b', b'cc', b'dd', b'eee']))
        parts.append(list(map(str, paths)))
    of = {path: i for i, paths in enumerate(parts) for path in paths}
    expected = set()
    for one in of:
        for other in of:
            if of[one] != of[other] and Path(one).read_bytes() == Path(other).read_bytes():
                expected |= {one, other}
    assert {path for paths in same_files(parts) for path in paths} >= expected
    for paths in same_files(parts):
        assert len({Path(path).read_bytes() for path in paths}) == 1
        assert len({of[path] for path in paths}) > 1
    assert same_files([parts[0], parts[0]]) == [], 'the same path is not a copy'


# ----------------------------------------------------------------------------------------- findings


def texts(root: Path, level: str) -> list[str]:
    return [found.text for found in check_folder(str(root)).findings if found.level == level]


def test_a_good_folder(tmp_path: Path) -> None:
    found = check_folder(str(folder(tmp_path, train=12, test=3)))
    assert found.counts == {'train': [12, 12], 'test': [3, 3]} and found.findings == []
    assert found.sizes == dict.fromkeys(('smallest', 'median', 'largest'), (96, 72))
    assert folder_report(found).endswith('\n\nnothing to mend')


def test_all_broken_files_at_once(tmp_path: Path) -> None:
    root = folder(tmp_path, train=12, test=3)
    (root / 'train' / 'crow' / '0.png').write_bytes(b'')
    (root / 'train' / 'duck' / '1.png').write_bytes(b'no image')
    whole = (root / 'test' / 'duck' / '2.png').read_bytes()
    (root / 'test' / 'duck' / '2.png').write_bytes(whole[: len(whole) // 2])
    (root / 'test' / 'duck' / 'raw.CR2').write_bytes(b'II*\0')
    found = check_folder(str(root))
    assert list(found.unreadable) == [
        'test/duck/2.png', 'test/duck/raw.CR2', 'train/crow/0.png', 'train/duck/1.png',
    ]  # fmt: skip
    assert found.unreadable['train/crow/0.png'] == 'it is empty'
    assert 'convert it to PNG or JPEG' in found.unreadable['test/duck/raw.CR2']
    report = folder_report(found)
    assert all(name in report for name in found.unreadable)
    assert 'unreadable images: 4; replace or remove them' in report and '1 point to mend' in report


def test_skipped_files_and_why(tmp_path: Path) -> None:
    root = folder(tmp_path, train=12, test=3)
    (root / 'train' / 'crow' / '.hidden.png').touch()
    (root / '__MACOSX').mkdir()
    (root / '__MACOSX' / 'a.png').touch()
    (root / 'train' / 'crow' / 'boxes.xml').touch()
    (root / 'train' / 'crow' / 'film.mp4').touch()
    save(root / 'other' / 'x.png', picture(99))
    assert check_folder(str(root)).skipped == {
        '__MACOSX/a.png': 'hidden, or left by a system or program',
        'other/x.png': 'an image that the layout does not list',
        'train/crow/.hidden.png': 'hidden, or left by a system or program',
        'train/crow/boxes.xml': 'text beside images',
        'train/crow/film.mp4': 'no image (.mp4)',
    }
    assert len(texts(root, 'look')) == 4 and texts(root, 'mend') == []


def test_leaks_are_named_first(tmp_path: Path) -> None:
    root = folder(tmp_path, train=12, test=3)
    train, test = root / 'train', root / 'test'
    shutil.copy(train / 'crow' / '0.png', test / 'crow' / 'same.png')
    save(test / 'duck' / 'pixels.bmp', Image.open(train / 'duck' / '0.png'))
    save(
        test / 'crow' / 'near.jpg',
        Image.open(train / 'crow' / '1.png').resize((91, 68)),
        quality=75,
    )
    save(train / 'duck' / 'other.png', Image.open(train / 'crow' / '2.png'), compress_level=1)
    save(train / 'crow' / 'within.bmp', Image.open(train / 'crow' / '3.png'))
    found = check_folder(str(root))
    assert [finding.text.split(':')[0] for finding in found.findings] == [
        'same file across train, test', 'same pixels across train, test',
        'near-duplicates across train, test', 'same pixels in several classes',
        'same pixels within a split and class',
    ]  # fmt: skip
    assert [finding.level for finding in found.findings] == ['mend'] * 4 + ['look']
    assert found.findings[0].items == ['test/crow/same.png (test) = train/crow/0.png (train)']
    assert ': fingerprints differ in ' in found.findings[2].items[0]
    assert found.findings[3].items == ['train/crow/2.png (crow) = train/duck/other.png (duck)']
    assert found.as_json()['duplicates'][0]['across_parts'] is True
    only = check_folder(str(root), near=0)
    assert len(only.duplicates) <= len(found.duplicates)


def test_classes_that_are_few_small_or_absent(tmp_path: Path) -> None:
    one = folder(tmp_path / 'one', train=12, test=1)
    for split in ('train', 'test'):
        shutil.rmtree(one / split / 'duck')
    assert texts(one, 'mend') == ['crow is the only class: there is nothing to tell apart']
    bare = folder(tmp_path / 'bare', train=12, test=1)
    shutil.rmtree(bare / 'test' / 'duck')
    assert texts(bare, 'mend') == ['classes without test images: 1']
    tiny = folder(tmp_path / 'tiny', train=9, test=1)
    for i in range(100):
        save(tiny / 'train' / 'crow' / f'more{i}.png', picture(200 + i))
    looks = texts(tiny, 'look')
    assert looks[0] == 'classes with fewer than 10 training images: 1'
    assert looks[1].startswith('imbalance: crow has 109 training images, duck 9')
    alone = folder(tmp_path / 'alone', train=12)
    assert texts(alone, 'mend')[0].startswith('nothing to test on: fgplugins split_data')


def test_odd_sizes(tmp_path: Path) -> None:
    root = folder(tmp_path, train=12, test=2)
    save(root / 'train' / 'crow' / 'tiny.png', picture(50, (12, 9)))
    save(root / 'train' / 'crow' / 'long.png', picture(51, (300, 30)))
    (odd,) = (one for one in check_folder(str(root)).findings if 'odd sizes' in one.text)
    assert odd.items == ['train/crow/long.png: 300 x 30', 'train/crow/tiny.png: 12 x 9']


def test_a_flat_folder_is_offered_a_split(tmp_path: Path) -> None:
    root = folder(tmp_path, birds=12) / 'birds'
    found = check_folder(str(root))
    assert found.counts == {'all': [12, 12]}
    (finding,) = found.findings
    assert finding.text.endswith(f'fgplugins split_data {root} --val 0.2 --test 0.2')


def test_many_classes_are_summed_up() -> None:
    classes = [f'c{i:02}' for i in range(60)]
    lines = as_table(classes, {'train': list(range(10, 70)), 'test': [3] * 60})
    assert len(lines) == 18 and lines[-2].split() == ['45', 'others', '25', 'to', '69', '3']
    assert lines[-1].split() == ['all', str(sum(range(10, 70))), '180']
    assert len(as_table(classes[:40], {'train': [1] * 40})) == 42


# ------------------------------------------------------------------------------------- command line


def test_the_tool(tmp_path: Path, run_tool: Callable) -> None:
    root = folder(tmp_path / 'birds', train=12, test=3)
    done = run_tool('check_data', str(root), '--json', str(tmp_path / 'found.json'))
    assert done.returncode == 0 and 'crow      12     3' in done.stdout
    shutil.copy(root / 'train' / 'crow' / '0.png', root / 'test' / 'crow' / 'same.png')
    done = run_tool('check_data', str(root), '--json', str(tmp_path / 'found.json'))
    assert done.returncode == 1 and 'TO MEND\n  * same file across' in done.stdout
    content = json.loads((tmp_path / 'found.json').read_text())
    assert content['counts']['crow'] == {'train': 12, 'test': 4}
    assert content['duplicates'][0]['kind'] == 'file'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none'], "folder 'none' is not there: it should hold train/<class>/*.jpg"),
        (['empty'], "folder 'empty' holds nothing"),
        (['loose'], "folder 'loose' holds 1 images but no class folders"),
        (['birds', '--near', '-1'], '--near -1: must be between 0 and 48'),
        (['birds', '--near', '99'], '--near 99: must be between'),
        (['birds', '--workers', '0'], '--workers 0: must be 1 or more'),
        (['birds', '--json', 'nowhere/x.json'], '--json nowhere/x.json: there is no folder'),
    ],
)
def test_mistakes(
    tmp_path: Path, run_tool: Callable, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    folder(tmp_path / 'birds', train=1, test=1)
    (tmp_path / 'empty').mkdir()
    save(tmp_path / 'loose' / 'a.png', picture(1))
    monkeypatch.chdir(tmp_path)
    done = run_tool('check_data', *arguments)
    assert done.returncode == 2 and done.stderr.startswith('error: ')
    assert message in done.stderr and done.stderr.count('\n') == 1


def test_before_a_training_equal_files_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture, room: object
) -> None:
    from mmengine.config import Config

    from fgplugins.zoo_mmpretrain.running.data import check_images

    root = folder(tmp_path, train=2, test=2)
    pipeline = [{'type': 'fgplugins.LoadImage'}]
    built = {s: room.FineGrainedImages(str(root), s, pipeline=pipeline) for s in ('train', 'test')}
    loader = {'dataset': {'type': 'FineGrainedImages', 'pipeline': pipeline}}
    cfg = Config({'train_dataloader': loader, 'test_dataloader': loader})
    check_images(cfg, built)
    assert 'equal files' not in capsys.readouterr().out
    shutil.copy(root / 'train' / 'crow' / '0.png', root / 'test' / 'crow' / 'same.png')
    built['test'] = room.FineGrainedImages(str(root), 'test', pipeline=pipeline)
    check_images(cfg, built)
    assert 'note: equal files in several splits: 1 sets, as ' in capsys.readouterr().out


def test_before_a_training_a_note_of_the_folder_is_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture, room: object
) -> None:
    from mmengine.config import Config

    from fgplugins.zoo_mmpretrain.running.data import check_images

    root = folder(tmp_path, train=2, test=2)
    shutil.copytree(root / 'test', root / 'val')
    built = {s: room.FineGrainedImages(str(root), s, val_share=0.1) for s in ('train', 'val')}
    loader = {'dataset': {'type': 'FineGrainedImages', 'pipeline': []}}
    check_images(Config({'train_dataloader': loader, 'val_dataloader': loader}), built)
    out = capsys.readouterr().out
    assert 'note: train: ' in out and 'note: val: ' in out
    assert out.count('its own validation images: val_share=0.1 is not used') == 1
