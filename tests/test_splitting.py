"""A folder divided into a split file: what every split must be, and that all sides read it."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from test_folder_check import folder, picture, save

from fgplugins.data.class_folders import has_validation
from fgplugins.data.layouts import read_split
from fgplugins.data.splitting import assign, check_shares, divide_folder, groups_by_pattern
from fgplugins.errors import UserError

SHARES = {'train': 0.6, 'val': 0.2, 'test': 0.2}


def several(root: Path, count: int = 10, birds: int = 2) -> Path:
    """Flat class folders: so many animals of each class, and so many photos of each."""
    for label, name in enumerate(('crow', 'duck', 'gull')):
        for animal in range(count):
            for photo in range(birds):
                seed = 1000 * label + 10 * animal + photo
                save(root / name / f'{name}{animal:02}_{photo}.png', picture(seed, (40, 30)))
    return root


def listed(path: Path) -> dict[str, list[str]]:
    content = json.loads(path.read_text(encoding='utf-8'))
    return {p: [f for own in content[p].values() for f in own] for p in ('train', 'val', 'test')}


# ---------------------------------------------------------------------------------- what a split is


def drawn(seed: int, alone: bool) -> tuple[list[str], list[int], list[str]]:
    draw = random.Random(seed)
    names, labels, groups = [], [], []
    for label in range(draw.randint(1, 6)):
        for group in range(draw.randint(3, 30)):
            for _ in range(1 if alone else draw.randint(1, 6)):
                names.append(f'{label}/{len(names):04}')
                labels.append(label)
                groups.append(names[-1] if alone else f'{label} {group}')
    return names, labels, groups


@pytest.mark.parametrize('alone', [True, False])
@pytest.mark.parametrize('seed', range(8))
def test_what_every_split_is(seed: int, alone: bool) -> None:
    names, labels, groups = drawn(seed, alone)
    parts = assign(names, labels, groups, SHARES, seed)
    assert set(parts) == set(SHARES), 'every image has a part, and every part images'
    of_group: dict[str, set[str]] = {}
    for group, part in zip(groups, parts, strict=True):
        of_group.setdefault(group, set()).add(part)
    assert all(len(own) == 1 for own in of_group.values()), 'groups are whole'
    largest = max(Counter(groups).values())
    for label in set(labels):
        own = Counter(p for p, y in zip(parts, labels, strict=True) if y == label)
        for part, share in SHARES.items():
            assert own[part] >= 1
            wanted = share * labels.count(label)
            # alone, rounded; in groups, one group more or less, and one for each part
            assert abs(own[part] - wanted) <= (1 if alone else largest + 2), (own, wanted)


@pytest.mark.parametrize('seed', range(4))
def test_the_order_of_the_files_does_not_matter(seed: int) -> None:
    names, labels, groups = drawn(seed, alone=False)
    parts = dict(zip(names, assign(names, labels, groups, SHARES, seed), strict=True))
    order = list(range(len(names)))
    random.Random(seed).shuffle(order)
    mixed = [[column[i] for i in order] for column in (names, labels, groups)]
    assert dict(zip(mixed[0], assign(*mixed, SHARES, seed), strict=True)) == parts
    others = {tuple(assign(names, labels, groups, SHARES, other)) for other in range(10)}
    assert len(others) > 1, 'another seed, another split'


def test_a_split_is_the_same_on_any_machine() -> None:
    """A split once made: as printed when this test was written."""
    names = [f'crow/{i}.jpg' for i in range(10)]
    parts = assign(names, [0] * 10, names, SHARES, 0)
    assert ''.join(part[1] for part in parts) == 'rraraerrre'


def test_groups_of_several_classes_stay_whole() -> None:
    names = [f'{label}/{i}' for label in range(2) for i in range(40)]
    labels = [0] * 40 + [1] * 40
    groups = [f'photo {i // 4}' for i in range(40)] * 2
    parts = assign(names, labels, groups, SHARES, 3)
    assert all(len({p for p, g in zip(parts, groups, strict=True) if g == one}) == 1
               for one in set(groups))  # fmt: skip
    assert Counter(parts) == {'train': 48, 'val': 16, 'test': 16}


def test_a_large_group_is_trained_on() -> None:
    names = [str(i) for i in range(50)]
    groups = ['large'] * 30 + names[30:]
    parts = assign(names, [0] * 50, groups, SHARES, 0)
    assert set(parts[:30]) == {'train'} and Counter(parts[30:]) == {'val': 10, 'test': 10}


def test_groups_by_pattern() -> None:
    names = ['crow/a1_0.jpg', 'crow/a1_1.jpg', 'duck/b7_0.jpg', 'duck/x.jpg']
    expected = {names[0]: 'a1', names[1]: 'a1', names[2]: 'b7'}
    assert groups_by_pattern(names, r'[ab]\d') == groups_by_pattern(names, r'/(\w+)_\d') == expected
    assert groups_by_pattern(names, r'(a1)|b7') == expected, 'a group without a part in it'


# ------------------------------------------------------------------------------------------ folders


def test_near_duplicates_and_groups_are_never_parted(tmp_path: Path) -> None:
    root = several(tmp_path / 'birds')
    for name in ('crow05_0', 'crow06_1'):  # copies of other animals' photos
        save(root / 'crow' / f'{name}x.jpg', picture(1), quality=75)
    found = divide_folder(str(root), 0.2, 0.2, group=r'(\w+)_\d')
    of_part = {p: {Path(f).name for f in s.images} for p, s in found.parts.items()}
    animals = [{name.split('_')[0] for name in names} for names in of_part.values()]
    assert not set.intersection(*animals) and len(set().union(*animals)) == 30
    joined = next(own for own in found.together if 'crow/crow05_0.png' in own)
    assert {Path(f).name[:6] for f in joined} == {'crow00', 'crow05', 'crow06'}, 'of one picture'
    assert sum(map(len, of_part.values())) == 62
    alone = divide_folder(str(root), 0.2, 0.2, near=None)
    assert alone.together == []


def test_a_folder_with_test_keeps_it(tmp_path: Path) -> None:
    root = folder(tmp_path, train=10, test=3)
    found = divide_folder(str(root), val=0.2, near=None)
    assert {part: len(own.images) for part, own in found.parts.items()} == {
        'train': 16, 'val': 4, 'test': 6
    }  # fmt: skip
    assert found.parts['test'].images == read_split(str(root), 'test').images
    for options, message in (
        ({'test': 0.2}, r'--test 0\.2: .* has test images of its own, which stay: leave --test'),
        ({'val': 0.2, 'test': 0.2}, '--test 0.2: '),
    ):
        with pytest.raises(UserError, match=message):
            divide_folder(str(root), **options)
    alone = folder(tmp_path / 'alone', train=10)
    assert sorted(divide_folder(str(alone), test=0.3).parts) == ['test', 'train']


@pytest.mark.parametrize(
    ('val', 'test', 'message'),
    [(1.2, 0, '--val 1.2: must be 0 or more and below 1'), (0, 1, '--test 1: must'),
     (-0.1, 0.2, '--val -0.1: must'), (float('nan'), 0.2, '--val nan: must'),
     (0, 0, 'neither --val nor --test is above 0'),
     (0.5, 0.5, '--val 0.5 and --test 0.5 leave nothing to train on')],
)  # fmt: skip
def test_shares_that_cannot_be_had(val: float, test: float, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check_shares(val, test)


def test_classes_with_too_few_images_are_named(tmp_path: Path) -> None:
    root = several(tmp_path, count=5)
    for i in range(1, 5):
        for photo in range(2):
            (root / 'duck' / f'duck{i:02}_{photo}.png').unlink()
    with pytest.raises(UserError, match=r"class 'duck' has 2 images: too few for train, val, test"):
        divide_folder(str(root), 0.2, 0.2)
    assert divide_folder(str(root), test=0.2, near=None).parts['test'].labels.count(1) == 1
    with pytest.raises(UserError, match=r'duck.* has 2 images in 1 group that may not be parted'):
        divide_folder(str(root), test=0.2, group=r'(\w+)_\d')
    with pytest.raises(UserError, match=r"'crow' \(and 2 more\) has 10 images in 1 group"):
        divide_folder(str(root), 0.2, 0.2, group='png')


# ------------------------------------------------------------------------------------- command line


def test_the_tool_and_all_that_read_its_file(
    tmp_path: Path, run_tool: Callable, room: ModuleType
) -> None:
    from fgplugins.zoo_timm.data import RunData

    root = several(tmp_path / 'birds')
    done = run_tool('split_data', str(root), '--val', '0.2', '--test', '0.2', '--seed', '3')
    assert done.returncode == 0, done.stderr
    assert re.search(r'crow +12 +4 +4 +60\.0 +20\.0 +20\.0', done.stdout)
    assert f'use: fgplugins train CONFIG --data-root {root}\n' in done.stdout
    lists = listed(root / 'split.json')
    assert sorted(f for own in lists.values() for f in own) == sorted(
        f.relative_to(root).as_posix() for f in root.glob('*/*.png')
    )
    for data_root in (str(root), str(root / 'split.json')):
        for split, names in lists.items():
            found = read_split(data_root, split)
            assert found.classes == ['crow', 'duck', 'gull']
            assert [os.path.relpath(f, root) for f in found.images] == sorted(names)
            dataset = room.FineGrainedImages(data_root, split)
            assert [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))] == list(
                found.images
            )
        data = RunData()
        sizes = [
            len(data.create_dataset('', data_root, s)) for s in ('train', 'validation', 'test')
        ]
        assert sizes == [36, 12, 12]
        assert has_validation(data_root)
        done = run_tool('check_data', data_root)
        assert done.returncode == 0 and 'layout: a split file' in done.stdout
    first = (root / 'split.json').read_bytes()
    again = run_tool('split_data', str(root), '--val', '0.2', '--test', '0.2', '--seed', '3')
    assert again.returncode == 2 and 'is there already: --overwrite replaces it' in again.stderr
    again = run_tool('split_data', str(root), '--val', '0.2', '--test', '0.2', '--seed', '3',
                     '--overwrite')  # fmt: skip
    assert again.returncode == 0 and (root / 'split.json').read_bytes() == first


def test_a_file_elsewhere(tmp_path: Path, run_tool: Callable) -> None:
    root = several(tmp_path / 'birds')
    (tmp_path / 'splits').mkdir()
    out = tmp_path / 'splits' / 'one.json'
    done = run_tool('split_data', str(root), '--test', '0.25', '--out', str(out))
    assert done.returncode == 0 and f'--data-root {out}' in done.stdout
    assert json.loads(out.read_text())['folder'] == '../birds'
    assert len(read_split(str(out), 'test').images) == 15
    whole = read_split(str(out), 'train')
    train, val = (read_split(str(out), split, val_share=0.2) for split in ('train', 'val'))
    assert sorted([*train.images, *val.images]) == sorted(whole.images)
    with pytest.raises(UserError, match='has no validation images of its own'):
        read_split(str(out), 'val')
    assert not has_validation(str(out))
    moved = tmp_path / 'moved'
    moved.mkdir()
    shutil.move(str(out), moved / 'one.json')
    assert len(read_split(str(moved / 'one.json'), 'test').images) == 15
    shutil.move(str(root), tmp_path / 'ducks')
    with pytest.raises(UserError, match=r'is of folder .*birds, which is not there'):
        read_split(str(moved / 'one.json'), 'test')


def test_without_test_images_val_is_tested_on(tmp_path: Path, run_tool: Callable) -> None:
    root = several(tmp_path)
    assert run_tool('split_data', str(root), '--val', '0.2').returncode == 0
    assert read_split(str(root), 'test').images == read_split(str(root), 'val').images
    val = read_split(str(root), 'val', val_share=0.3).images
    assert not set(val) & set(read_split(str(root), 'test', val_share=0.3).images)


def test_groups_stay_whole_in_a_share_to_validate_on(tmp_path: Path, run_tool: Callable) -> None:
    root = several(tmp_path, birds=3)
    run_tool('split_data', str(root), '--test', '0.2', '--group', r'(\w+)_\d')
    animals = [
        {Path(f).name.split('_')[0] for f in read_split(str(root), split, val_share=0.3).images}
        for split in ('train', 'val', 'test')
    ]
    assert all(animals) and not any(a & b for i, a in enumerate(animals) for b in animals[i + 1 :])


def test_a_file_that_does_not_fit_its_folder(tmp_path: Path, run_tool: Callable) -> None:
    root = several(tmp_path)
    run_tool('split_data', str(root), '--test', '0.2')
    save(root / 'crow' / 'new.png', picture(99))
    note = read_split(str(root), 'train').notes[-1]
    assert note.startswith('images that are not in split.json, and not read: 1, as crow/new.png')
    (root / 'crow' / 'crow00_0.png').unlink()
    (root / 'gull' / 'gull03_1.png').unlink()
    with pytest.raises(UserError, match=r'lists 2 of 60 images that are not there: .*gull03_1'):
        read_split(str(root), 'test')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c['test'].update(crow=[*c['test']['crow'], *c['train']['crow'][:1]]),
         r'lists images more than once: 1, as crow/'),
        (lambda c: c['test'].update(wren=[]), r"class 'wren' of test is not in classes"),
        (lambda c: c.update(classes='crow'), r"classes='crow' must be a list of names"),
        (lambda c: c['test'].update(crow='x.jpg'), r"test, 'crow' must be a list of paths"),
        (lambda c: c.update(folder=3), r'folder=3 must be the path of the images'),
        (lambda c: c.update(train={}), r'has no train images'),
    ],
)  # fmt: skip
def test_mistakes_in_a_split_file(
    tmp_path: Path, run_tool: Callable, change: Callable, message: str
) -> None:
    root = several(tmp_path, count=4)
    run_tool('split_data', str(root), '--test', '0.2')
    content = json.loads((root / 'split.json').read_text())
    change(content)
    (root / 'split.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_split(str(root), 'train')


def test_other_files_of_that_name(tmp_path: Path) -> None:
    root = folder(tmp_path, train=2, test=1)
    (root / 'split.json').write_text('{"train": [1, 2]}')
    assert len(read_split(str(root), 'train').images) == 4, 'of another program: not read'
    with pytest.raises(UserError, match='is no split file'):
        read_split(str(root / 'split.json'), 'train')
    (root / 'split.json').write_text('{"fgplugins_split": 1, ')
    with pytest.raises(UserError, match=r'split\.json is no JSON: .* or remove it'):
        read_split(str(root), 'train')


def test_a_flat_folder_is_offered_the_tool(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'fgplugins split_data .* --val 0\.2 --test 0\.2$'):
        read_split(str(several(tmp_path, count=1)), 'train')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none', '--val', '0.2'], "folder 'none' is not there"),
        (['empty', '--val', '0.2'], "folder 'empty' holds nothing"),
        (['loose', '--val', '0.2'], "folder 'loose' holds 1 images but no class folders"),
        (['few', '--val', '0.2', '--test', '0.2'], "class 'crow' (and 2 more) has 2 images"),
        (['birds'], 'neither --val nor --test is above 0'),
        (['birds', '--val', '2'], '--val 2: must be 0 or more and below 1'),
        (['birds', '--val', '0.6', '--test', '0.6'], 'leave nothing to train on'),
        (
            ['birds', '--test', '0.2', '--group', 'heron'],
            "--group 'heron': matches none of 24",
        ),
        (['birds', '--test', '0.2', '--group', '(a'], "--group '(a': is no regular expression"),
        (['birds', '--test', '0.2', '--out', 'no/x.json'], '--out no/x.json: there is no folder'),
        (['birds', '--test', '0.2', '--out', 'empty'], '--out empty: is a folder'),
        (['birds', '--test', '0.2', '--out', 'x.csv'], '--out x.csv: must end in .json'),
        (['birds', '--test', '0.2', '--workers', '0'], '--workers 0: must be 1 or more'),
        (
            ['broken', '--test', '0.2'],
            '1 images cannot be read, as broken/crow/crow00_0.png:',
        ),
    ],
)
def test_mistakes(
    tmp_path: Path, run_tool: Callable, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    several(tmp_path / 'birds', count=4)
    several(tmp_path / 'few', count=1)
    (several(tmp_path / 'broken', count=4) / 'crow' / 'crow00_0.png').write_bytes(b'')
    (tmp_path / 'empty').mkdir()
    save(tmp_path / 'loose' / 'a.png', picture(1))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob('*'))
    done = run_tool('split_data', *arguments)
    assert done.returncode == 2 and done.stderr.startswith('error: ')
    assert message in done.stderr and done.stderr.count('\n') == 1
    assert sorted(tmp_path.rglob('*')) == before, 'nothing was written'
