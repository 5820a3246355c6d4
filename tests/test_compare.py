"""A comparison from the folder to the answer, on a network that is small and already trained."""

from __future__ import annotations

import io
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')
pytest.importorskip('statsmodels', reason='of the extra compare')
pytest.importorskip('optuna', reason='of the extra compare')

from fgplugins.compare import (
    best,
    command,
    comparison,
    disk,
    features,
    heads,
    plan,
    recipes,
    run_cell,
    run_costs,
    run_features,
)
from fgplugins.compare.cells import Cell, file_name, split_variant, variant
from fgplugins.compare.jobs import Job, only_process_in, read_json, unfinished, write_json
from fgplugins.compare.report import cells_to_report
from fgplugins.data.split_files import write_split_file
from fgplugins.errors import UserError
from fgplugins.serving.models import load_trained

ROOT = Path(__file__).parent.parent
COLOURS = {'blue': (40, 60, 200), 'green': (40, 180, 60), 'red': (200, 50, 40)}


@pytest.fixture(scope='module')
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network of timm with weights, in a folder."""
    folder = tmp_path_factory.mktemp('network') / 'small'
    torch.manual_seed(0)
    model = timm.create_model('test_resnet', num_classes=5)
    save_for_hf(model, folder)
    return f'local-dir:{folder}'


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes, flat."""
    root = tmp_path_factory.mktemp('images')
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for i in range(15):
            noise = generator.integers(-40, 40, (40, 40, 3))
            image = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / name / f'{i:02}.png')
    return root


def run(*arguments: str, folder: Path, network: str, out: Path) -> subprocess.CompletedProcess:
    """The tool, with a process for every cell."""
    given = [str(folder), '--backbone', network, '--size', '64', '--out', str(out), *arguments]
    return subprocess.run(
        [sys.executable, str(ROOT / 'tools' / 'compare.py'), *given],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def run_here(*arguments: str, folder: Path, network: str, out: Path) -> tuple[int, str]:
    """The tool, with all cells in this process; its exit code and what it says."""

    def one_by_one(jobs: list[Job], devices: list[str], display: str) -> None:
        for job in unfinished(jobs):
            print(f'{job.name}: started')
            job.clear()
            of = {'features': run_features.run, 'costs': run_costs.run, 'cells': run_cell.run}
            run = of[job.folder.parent.name]
            try:
                run(job.folder)
            except Exception as error:
                job.fail(repr(error))

    given = [str(folder), '--backbone', network, '--size', '64', '--out', str(out), *arguments]
    said, code = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.setattr(command, 'run_local', one_by_one)
        patch.setattr(sys, 'argv', ['compare.py', *given])
        try:
            runpy.run_path(str(ROOT / 'tools' / 'compare.py'), run_name='__main__')
        except SystemExit as exit_:
            code = exit_.code or 0
    return code, said.getvalue()


def results(out: Path) -> dict:
    return json.loads((out / 'report' / 'results.json').read_text(encoding='utf-8'))


def without_times(content: object) -> object:
    """The results without what differs from one run of the same to the next."""
    if isinstance(content, dict):
        dropped = ('seconds', 'command', 'cost')
        return {k: without_times(v) for k, v in content.items() if k not in dropped}
    return [without_times(v) for v in content] if isinstance(content, list) else content


@pytest.fixture(scope='module')
def quick(tmp_path_factory: pytest.TempPathFactory, folder: Path, network: str) -> Path:
    """A finished quick comparison: two methods and the control, two seeds."""
    out = tmp_path_factory.mktemp('quick') / 'out'
    asked = ('--quick', '--methods', 'warn', 'clan', '--seeds', '2', '--epochs', '4')
    code, said = run_here(*asked, folder=folder, network=network, out=out)
    assert code == 0, said
    assert '6 cells (3 rows x 2 seeds), 0 finished' in said
    return out


def test_a_quick_comparison_ends_in_an_answer(quick: Path, folder: Path) -> None:
    found = results(quick)
    (backbone,) = found['backbones']
    assert [row['method'] for row in backbone['rows']] == ['gap', 'warn', 'clan']
    assert all(len(row['runs']) == 2 and not row['failed'] for row in backbone['rows'])
    assert backbone['verdict']
    assert found['asked']['images'] == {'train': 27, 'val': 9, 'test': 9}
    split = json.loads((quick / 'split.json').read_text(encoding='utf-8'))
    assert (quick / split['folder']).resolve() == folder
    assert not (folder / 'split.json').exists()
    for name in ('results.md', 'results.csv', 'best.pth', 'best.json', 'index.html'):
        assert (quick / 'report' / name).is_file(), name


def test_the_same_again_runs_nothing_and_an_amended_one_the_new(
    quick: Path, folder: Path, network: str, tmp_path: Path
) -> None:
    out = tmp_path / 'out'
    shutil.copytree(quick, out)
    before = {p: p.read_bytes() for p in out.glob('cells/*/result.json')}
    (out / 'report' / 'index.html').unlink()
    again = ('--quick', '--methods', 'warn', 'clan', '--seeds', '2', '--epochs', '4', '--no-page')
    code, said = run_here(*again, folder=folder, network=network, out=out)
    assert code == 0, said
    assert '6 finished' in said
    assert 'started' not in said
    assert not (out / 'report' / 'index.html').exists()
    more = ('--quick', '--methods', 'clan', 'att2', '--seeds', '4', '--epochs', '4')
    code, said = run_here(*more, folder=folder, network=network, out=out)
    assert code == 0, said
    assert {p: p.read_bytes() for p in before} == before
    assert len(list(out.glob('cells/*/result.json'))) == 6 + 2 * 2 + 4
    rows = {row['method']: len(row['runs']) for row in results(out)['backbones'][0]['rows']}
    assert rows == {'gap': 4, 'clan': 4, 'att2': 4, 'warn': 2}
    found = results(out)
    assert {c['command'].count('--seeds 4') for c in found['cells'] if c['seed'] > 1} == {1}
    assert {c['command'].count('--seeds 2') for c in found['cells'] if c['method'] == 'warn'} == {1}
    report = (out / 'report' / 'results.md').read_text(encoding='utf-8')
    assert report.count('compare.py') + report.count('fgplugins compare') == 2

    image = folder / 'red' / 'more.png'
    shutil.copy(folder / 'red' / '00.png', image)
    try:
        code, said = run_here(*more, folder=folder, network=network, out=out)
    finally:
        image.unlink()
    assert code == 2
    assert said.endswith(f'than {folder} has now: give another --out\n')
    write_split_file(folder / 'split.json', folder, comparison.parts_of(out), [], {})
    try:
        code, said = run_here(*more, folder=folder, network=network, out=out)
    finally:
        (folder / 'split.json').unlink()
    assert code == 2
    assert 'another split of them' in said


def test_a_failed_cell_is_a_row_with_its_reason(
    quick: Path, folder: Path, network: str, tmp_path: Path
) -> None:
    out = tmp_path / 'out'
    shutil.copytree(quick, out)
    (cell,) = out.glob('cells/warn-*-s1-*')
    for name in ('result.json', 'scores.npz'):
        (cell / name).unlink()
    (cell / 'cell.json').write_text('{"damaged": 1}', encoding='utf-8')
    (out / 'report' / 'index.html').unlink()
    asked = ('--quick', '--methods', 'warn', 'clan', '--seeds', '2', '--epochs', '4')
    code, said = run_here(*asked, folder=folder, network=network, out=out)
    assert code == 2
    assert 'error: 1 of 6 cells failed, as warn on ' in said
    rows = {row['method']: row for row in results(out)['backbones'][0]['rows']}
    assert len(rows['warn']['runs']) == 1
    assert 'damaged' in rows['warn']['failed'][0]['reason']
    assert 'damaged' in (out / 'report' / 'index.html').read_text(encoding='utf-8')


@pytest.mark.slow
def test_killed_three_times_it_ends_as_the_uninterrupted_one(
    folder: Path, network: str, tmp_path: Path
) -> None:
    out, whole = tmp_path / 'out', tmp_path / 'whole'
    asked = [
        str(folder), '--backbone', network, '--size', '64', '--out', str(out), '--quick',
        '--methods', 'warn', 'clan', '--seeds', '2', '--epochs', '4', '--devices', 'cpu', 'cpu',
    ]  # fmt: skip
    again = [str(whole) if a == str(out) else a for a in asked]
    tool = [sys.executable, str(ROOT / 'tools' / 'compare.py')]
    assert subprocess.run([*tool, *again], capture_output=True).returncode == 0
    moments = np.random.default_rng(int(time.time())).uniform(8, 30, 3)
    for moment in moments:
        process = subprocess.Popen(
            [*tool, *asked], stdout=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    ran = subprocess.run([*tool, *asked], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert without_times(results(out)) == without_times(results(whole)), f'killed at {moments}'


@pytest.mark.parametrize('name', ['test_resnet', 'test_convnext', 'test_vit', 'test_efficientnet'])
def test_features_are_what_the_network_gives(name: str, tmp_path: Path) -> None:
    """The maps that all rows share give each the scores of its whole model."""
    torch.manual_seed(0)
    save_for_hf(timm.create_model(name, num_classes=5), tmp_path / name)
    network = f'local-dir:{tmp_path / name}'
    recipe = {'arguments': {}, 'size': 64}
    rows = {
        row: features.build_row(row, network, 3, recipe)
        for row in ('gap', 'gap:head=mean', 'warn', 'att2', 'clan')
    }
    found = features.plan_features(network, rows)
    images = torch.randn(4, 3, 64, 64)
    with torch.inference_mode():
        given = features._read_all(rows, images)
        for row, model in rows.items():
            maps, embedding = found.rows[row]
            named = {} if embedding is None else {'embedding': given[embedding]}
            scores = model.method([given[name] for name in maps], **named)
            torch.testing.assert_close(scores, model(images))
    assert {name: tuple(v.shape[1:]) for name, v in given.items()} == found.shapes


def test_quick_cells_train_on_the_same_order_of_images(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[tuple[str, int], list[list[int]]] = {}
    original = features.Features.__call__
    for cell_folder in sorted(quick.glob('cells/*')):
        cell = run_cell.read_cell(cell_folder)
        taken: list[list[int]] = []

        def noted(
            self: features.Features, places: np.ndarray, device: torch.device,
            taken: list[list[int]] = taken,
        ) -> object:  # fmt: skip
            taken.append(places.tolist())
            return original(self, places, device)

        monkeypatch.setattr(features.Features, '__call__', noted)
        monkeypatch.setattr(run_cell, 'write_json', lambda *_: None)
        run_cell._run_quick(cell, quick, cell_folder, 3, torch.device('cpu'))
        seen[cell.method, cell.seed] = taken
    for seed in (0, 1):
        assert seen['gap', seed] == seen['warn', seed] == seen['clan', seed]
    assert seen['gap', 0] != seen['gap', 1]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts whose images quick cells score, in order."""
    events: list[str] = []
    opened = features.Features.__init__

    def noted(self: features.Features, folder: Path, maps: list, z: object, part: str) -> None:
        opened(self, folder, maps, z, part)
        self.part = part

    def scored(method: object, of: features.Features, device: torch.device) -> torch.Tensor:
        events.append(of.part)
        return heads.score(method, of, device)

    monkeypatch.setattr(features.Features, '__init__', noted)
    monkeypatch.setattr(run_cell, 'score', scored)
    return events


@pytest.mark.parametrize('trial', [None, 0])
def test_test_images_are_scored_once_and_last(
    quick: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    trial: int | None,
    scored: list[str],
) -> None:
    out = tmp_path / 'out'
    shutil.copytree(quick, out)
    (first,) = out.glob('cells/warn-*-s0-*')
    cell = run_cell.read_cell(first)
    cell = Cell(**{**cell.as_json(), 'seed': 7, 'trial': trial})
    job = plan.job_of(cell, out)
    monkeypatch.setattr(
        run_cell, 'train_head', lambda *a: (scored.append('train'), heads.train_head(*a))
    )
    run_cell.run(job.folder)
    assert scored == (['train', 'val'] if trial is not None else ['train', 'val', 'test'])
    with np.load(job.folder / 'scores.npz') as kept:
        assert ('test_scores' in kept) == (trial is None)


@pytest.mark.parametrize('trial', [None, 0])
def test_whole_networks_score_test_images_once_and_last(
    quick: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trial: int | None
) -> None:
    from fgplugins.compare import training

    events: list[str] = []
    trained = SimpleNamespace(
        train=lambda progress: events.append('train'),
        scores=lambda part: (events.append(part), torch.zeros(9, 3))[1],
        earlier=0.0,
        cfg=SimpleNamespace(train_cfg=SimpleNamespace(max_epochs=1)),
    )
    monkeypatch.setattr(training, 'FineTuned', lambda *given: trained)
    monkeypatch.setattr(training, 'shrink', lambda folder: None)
    shutil.copytree(quick, tmp_path / 'out')
    digest = json.loads((quick / 'comparison.json').read_text(encoding='utf-8'))['split']
    recipe = recipes.row_recipe(recipes.read_recipe('finetune'), 'gap')
    job = plan.job_of(Cell(digest, 'a', 'gap', 'finetune', recipe, 0, trial), tmp_path / 'out')
    run_cell.run(job.folder)
    assert events == (['train', 'val'] if trial is not None else ['train', 'val', 'test'])


def test_nothing_is_tested_before_the_tuning_is_done(
    folder: Path, network: str, tmp_path: Path, scored: list[str]
) -> None:
    asked = ('--quick', '--methods', 'att2', '--seeds', '2', '--epochs', '2', '--tune', '3')
    code, said = run_here(*asked, '--no-page', folder=folder, network=network, out=tmp_path / 'out')
    assert code == 0, said
    assert scored == ['val'] * 6 + ['val', 'test'] * 4
    assert len(results(tmp_path / 'out')['trials']) == 6


def test_a_cell_is_trained_by_one_process_at_a_time(
    quick: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / 'out'
    shutil.copytree(quick, out)
    (folder,) = out.glob('cells/warn-*-s0-*')
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    refused = pytest.raises(UserError, match=f'^{folder.name}: another process trains this cell')
    with only_process_in(folder), refused:
        run_cell.run(folder)
    assert {p: p.read_bytes() for p in before} == before
    monkeypatch.setattr(run_cell, '_run', lambda folder: ran.append(folder))
    ran: list[Path] = []
    run_cell.run(folder)
    monkeypatch.setenv('RANK', '1')  # the main process of the same cell holds it
    with only_process_in(folder):
        run_cell.run(folder)
    assert ran == [folder, folder]


def test_the_best_checkpoint_gives_the_scores_of_its_cell(quick: Path) -> None:
    loaded = load_trained(str(quick))
    best = results(quick)['best']
    assert best['method'] in type(loaded.method).__name__.lower()
    assert loaded.classes == sorted(COLOURS)
    test = comparison.parts_of(quick)['test']
    prepared = loaded.prepare()
    images = torch.stack([prepared.read(path) for path in test.images])
    with torch.inference_mode():
        scores = loaded.model(prepared.finish(images))
    with np.load(quick / 'cells' / best['key'] / 'scores.npz') as kept:
        wanted = torch.from_numpy(kept['test_scores'])
    # the maps were kept as float16
    torch.testing.assert_close(scores.softmax(1), wanted.softmax(1), rtol=0, atol=0.01)


def test_what_was_damaged_is_mended_or_named(
    quick: Path, folder: Path, network: str, tmp_path: Path
) -> None:
    out = tmp_path / 'out'
    shutil.copytree(quick, out)
    asked = ('--quick', '--methods', 'warn', 'clan', '--seeds', '2', '--epochs', '4', '--no-page')

    def again() -> str:
        code, said = run_here(*asked, folder=folder, network=network, out=out)
        assert code == 0, said
        return said

    cell = out / 'cells' / results(out)['best']['key']
    content = (cell / 'result.json').read_text()
    (cell / 'result.json').write_text(content[:100])
    assert '5 finished' in again()
    assert without_times(results(out)) == without_times(results(quick))
    file = out / 'report' / 'best.pth'
    whole = file.read_bytes()
    file.write_bytes(whole[:-500])
    assert str(file) in again()
    assert len(file.read_bytes()) == len(whole)
    file.unlink()
    weights = (cell / 'method.pth').read_bytes()
    for damage in (lambda: (cell / 'method.pth').write_bytes(weights[:-500]),
                   lambda: (cell / 'method.pth').unlink()):  # fmt: skip
        damage()
        said = again()
        assert f'no checkpoint that can be read: remove {cell}, and the same command' in said
        assert not file.exists() and str(file) not in said
    shutil.rmtree(cell)
    assert str(file) in again()
    assert file.exists()


def test_a_network_in_a_folder_keeps_the_size_that_it_was_given(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fgplugins.compare.cost import measure_costs

    save_for_hf(timm.create_model('test_vit', num_classes=5), tmp_path / 'a vit')
    monkeypatch.chdir(tmp_path)
    backbone = command._anywhere('local-dir:a vit')
    assert backbone == f'local-dir:{tmp_path / "a vit"}'
    assert command._anywhere('resnet50') == 'resnet50'
    recipe = {'arguments': {}, 'size': 96}
    for row in ('gap', 'clan'):
        model = features.build_row(row, backbone, 3, recipe)
        assert model.backbone.pos_embed.shape[1] == 37
        content = best.deployed_checkpoint(
            model, model.method_name, best._arguments(model), list(COLOURS),
            best.reader(backbone, model.input_size).data,
        )  # fmt: skip
        torch.save(content, tmp_path / 'best.pth')
        loaded = load_trained(str(tmp_path / 'best.pth'))
        assert loaded.input_size[1:] == (96, 96)
    costs = measure_costs(tmp_path, backbone, {'gap': recipe}, 3, 'cpu')
    assert costs['gap']['params'] > 0
    rows = {'gap': features.build_row('gap', backbone, 3, {**recipe, 'size': 100})}
    with pytest.raises(UserError, match=r'images of 100 x 100: Input .* another --size'):
        features.plan_features(backbone, rows)


def test_tuning_gives_all_rows_as_many_trials_and_goes_on_where_it_was(
    quick: Path, tmp_path: Path
) -> None:
    from fgplugins.compare.tuning import tune, tuned_before

    recipe = recipes.read_recipe('quick')
    asked = {('net', row): recipes.row_recipe(recipe, row) for row in ('gap', 'warn')}
    ran: list[str] = []
    tried: dict[str, dict[float, float]] = {'gap': {}, 'warn': {}}

    def pretend(jobs: list[Job]) -> None:
        for job in jobs:
            cell = run_cell.read_cell(job.folder)
            if not job.finished:
                ran.append(cell.method)
                # the best rate is about three times the recipe's
                score = -abs(np.log(cell.recipe['lr'] / recipe['lr'] / 3))
                tried[cell.method][cell.recipe['lr']] = score
                write_json(job.folder / 'result.json', {'val': {'top1': score}})

    chosen = tune(tmp_path, 'x', 'quick', asked, 12, pretend)
    assert ran.count('gap') == ran.count('warn') == 12
    for (_, row), found in chosen.items():
        assert found['lr'] == max(tried[row], key=tried[row].get)
        assert tried[row][found['lr']] > tried[row][recipe['lr']]
    assert chosen['net', 'warn']['arguments'] == {'output_init': 'zero'}
    assert tune(tmp_path, 'x', 'quick', asked, 12, pretend) == chosen
    assert len(ran) == 24
    for key, recipe in asked.items():  # for those who amend it
        assert tuned_before(tmp_path, 'x', 'quick', key, recipe, 12) == chosen[key]
        assert tuned_before(tmp_path, 'x', 'quick', key, recipe, 13) is None
    assert len(list((tmp_path / 'cells').iterdir())) == 24


def test_recipes_are_scaled_with_all_that_counts_epochs() -> None:
    recipe = recipes.row_recipe(recipes.read_recipe('finetune', epochs=12), 'art')
    assert recipe['train_cfg']['max_epochs'] == 12
    before = recipes.row_recipe(recipes.read_recipe('finetune'), 'art')
    factor = 12 / before['train_cfg']['max_epochs']
    for key in ('begin', 'period'):
        assert recipe['custom_hooks'][1][key] == round(before['custom_hooks'][1][key] * factor)
    warm_up, cosine = recipe['param_scheduler']
    assert (warm_up['end'], cosine['begin'], cosine['T_max']) == (2, 2, 10)
    halved = recipes.rescale(recipe, 'finetune', 2, 0.5)
    assert halved['train_cfg']['max_epochs'] == 6
    assert halved['custom_hooks'][1]['begin'] == round(recipe['custom_hooks'][1]['begin'] / 2)
    lr = recipe['optim_wrapper']['optimizer']['lr']
    assert halved['optim_wrapper']['optimizer']['lr'] == pytest.approx(2 * lr)
    assert json.loads(json.dumps(halved)) == halved


def test_variants_are_read_and_written_alike() -> None:
    row = 'warn:levels=[1, 2],mask=sigmoid,heads=2'
    method, arguments = split_variant(row)
    assert (method, arguments) == ('warn', {'levels': [1, 2], 'mask': 'sigmoid', 'heads': 2})
    assert split_variant(variant(method, arguments)) == (method, arguments)
    with pytest.raises(UserError, match='is not KEY=VALUE'):
        split_variant('warn:heads')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--methods', 'wran'], "--methods wran: 'wran' is not registered; did you mean warn?"),
        (['--methods', 'siou', '--quick'], 'siou differentiates scores by maps inside the network'),
        (['--methods', 'art', '--quick'], 'art trains a second network'),
        (['--backbone', 'resnet5'], "--backbone 'resnet5' is not a timm model"),
        (['--seeds', '0'], '--seeds 0: must be a whole number, 1 or more'),
        (['--lr', '-1'], '--lr -1: must be above 0'),
        (['--methods', 'warn:haeds=2'], "'haeds'"),
        (['--devices', 'tpu'], "--devices 'tpu'"),
        (
            ['--methods', 'warn:drop_path_rate=0.1', '--quick'],
            'changes the backbone, which all rows',
        ),
        (['--methods', 'all', 'warn'], '--methods all: stands alone'),
        (['--methods', 'warn:num_classes=5'], 'num_classes is the same for all rows'),
        (['--jobs', 'slurm'], '--jobs slurm: this machine has no srun'),
        (['--out', 'o' * 300], 'File name too long'),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    arguments: list[str], message: str, folder: Path, network: str, tmp_path: Path,
    run_tool: Callable,
) -> None:  # fmt: skip
    given = [] if '--backbone' in arguments else ['--backbone', network]
    ran = run_tool('compare', str(folder), '--out', 'out', *given, *arguments)
    assert ran.returncode == 2, ran.stdout
    (line,) = ran.stderr.splitlines()
    assert message in line
    assert not (tmp_path / 'out').exists()


def test_folders_that_cannot_be_compared_are_refused(
    folder: Path, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    run_tool: Callable, quick: Path,
) -> None:  # fmt: skip
    def refused(of: Path, out: Path, *arguments: str) -> str:
        ran = run_tool('compare', str(of), '--out', str(out), '--backbone', network, *arguments)
        assert ran.returncode == 2, ran.stdout
        (line,) = ran.stderr.splitlines()
        return line

    one, few, out = tmp_path / 'one', tmp_path / 'few', tmp_path / 'out'
    shutil.copytree(folder / 'red', one / 'red')
    assert "has one class, 'red'" in refused(one, out)
    for name in ('red', 'blue'):
        (few / name).mkdir(parents=True)
        for file in sorted((folder / name).iterdir())[:2]:
            shutil.copy(file, few / name)
    assert 'too few for train, val, test' in refused(few, out)
    assert 'is the comparison of' in refused(one, quick)
    broken = tmp_path / 'broken'  # an image of a part that lies apart
    shutil.copytree(folder, broken / 'train')
    shutil.copytree(folder, broken / 'test')
    (broken / 'test' / 'red' / '03.png').write_bytes(b'no image')
    assert '03.png' in refused(broken, out)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').touch()
    assert 'holds files, but no comparison' in refused(folder, tmp_path / 'mine')
    assert "nothing' is not there" in refused(tmp_path / 'nothing', out)
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(disk.shutil, 'disk_usage', lambda _: full)
    assert f'--out {out}: maps of {network} 0.0 GB; 0.0 GB are free' in refused(
        folder, out, '--quick'
    )
    assert f'--out {out}: checkpoints 0.1 GB; 0.0 GB are free' in refused(folder, out)
    assert not out.exists()


def test_maps_that_are_replaced_make_room(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {'arguments': {}, 'size': 64}
    rows = {'gap': features.build_row('gap', network, 3, recipe)}
    planned = features.plan_features(network, rows)
    stored = features.features_folder(tmp_path, network)
    stored.mkdir(parents=True)
    size = features.bytes_of(planned.shapes.values(), 100)
    for name in planned.shapes:  # of a run that was killed
        (stored / f'train_{name}.npy').write_bytes(b'x' * 100_000)
    files = list(stored.glob('*.npy'))
    replaced = features.bytes_replaced(stored, planned, 'x')
    assert replaced >= 100_000 * len(files)
    free = int(size * 1.5)
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(disk.shutil, 'disk_usage', lambda _: usage)
    disk.check_disk(tmp_path, {'a': size}, 0, ['less'])
    with pytest.raises(UserError, match=r'a .* GB, b .* GB; .* GB are free: .* or less, no b'):
        disk.check_disk(tmp_path, {'a': size, 'b': size}, 0, ['less', 'no b'])
    disk.check_disk(tmp_path, {'a': size, 'b': size}, size, ['less'])


def test_maps_that_are_gone_are_computed_again(quick: Path, network: str, tmp_path: Path) -> None:
    stored = features.features_folder(tmp_path, network)
    shutil.copytree(features.features_folder(quick, network), stored)
    asked = read_json(stored / 'rows.json')
    rows = {r: features.build_row(r, network, 3, recipe) for r, recipe in asked['rows'].items()}
    planned = features.plan_features(network, rows)
    split = read_json(stored / 'features.json')['split']
    assert features.missing_arrays(stored, planned, split) == {}
    assert features.bytes_replaced(stored, planned, split) == 0
    file = stored / f'val_{min(planned.shapes)}.npy'
    whole = file.read_bytes()
    for damage in (lambda: file.unlink(), lambda: file.write_bytes(whole[:-100])):
        damage()
        assert features.missing_arrays(stored, planned, split) == planned.shapes
    file.write_bytes(whole)
    assert features.missing_arrays(stored, planned, split) == {}
    (stored / 'features.json').write_text('{"arrays"')
    assert features.missing_arrays(stored, planned, split) == planned.shapes


def test_images_and_results_are_kept_apart(
    folder: Path, network: str, tmp_path: Path, run_tool: Callable
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for out in ([], ['--out', 'blue/results'], ['--out', '.']):
        ran = run_tool('compare', '.', '--backbone', network, '--dry-run', *out)
        assert ran.returncode == 2
        other = tmp_path.parent / f'compare_{tmp_path.name}'
        assert f'lies among the images of {tmp_path}: give another place, as --out {other}\n' in (
            ran.stderr
        )
    assert {p.name for p in tmp_path.iterdir()} == set(COLOURS)


def test_the_same_images_by_another_path(quick: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / 'link').symlink_to(folder, target_is_directory=True)
    (tmp_path / 'in').mkdir()
    detour = tmp_path / 'in' / '..' / 'link'
    for same in (folder, tmp_path / 'link', detour):
        assert comparison.check_folder_free(quick, same) is not None
    with pytest.raises(UserError, match='is the comparison of'):
        comparison.check_folder_free(quick, tmp_path / 'in')


def test_a_split_that_was_cut_off_is_in_nobodys_way(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = comparison.settle_parts(str(folder), 1)
    out = tmp_path / 'out'

    def full(number: int) -> None:
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space'):
        patch.setattr(os, 'fsync', full)
        comparison.write_comparison(out, parts, {'folder': str(folder)})
    assert comparison.check_folder_free(out, folder) is None
    (out / '.split.json.123').write_text('{')  # killed
    assert comparison.check_folder_free(out, folder) is None


def test_a_split_file_with_a_mark_is_read(folder: Path, tmp_path: Path) -> None:
    parts = comparison.settle_parts(str(folder), 1)
    file = tmp_path / 'split.json'
    write_split_file(file, folder, parts.parts, parts.together, parts.asked)
    file.write_text(file.read_text(encoding='utf-8'), encoding='utf-8-sig')
    assert comparison.settle_parts(str(file), 1).asked == parts.asked
    assert comparison.default_name(file) == f'compare_{folder.name}'


def test_names_of_digits(network: str, tmp_path: Path, run_tool: Callable) -> None:
    asked = ('compare', 'digits', '--quick', '--backbone', network, '--dry-run', '--size', '64')
    for out, root, images in (
        ([], 'compare_digits', 'compare_digits_images'),
        (['--out', 'a/b'], 'a/b', 'a/b_images'),
        (['--out', '.'], '.', f'../{tmp_path.name}_images'),
    ):
        ran = run_tool(*asked, *out)
        assert ran.returncode == 0, ran.stderr
        assert f'{images}: 1400 images' in ran.stdout
        assert f'seeds) in {root}, as' in ran.stdout


def test_the_default_backbone_is_for_the_devices_that_are_used(
    folder: Path, tmp_path: Path, run_tool: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, 'default_devices', lambda: ['cuda:0'])
    monkeypatch.setattr(command.plan, 'default_backbone', lambda gpu: 1 / 0 if gpu else ('x', 'y'))
    ran = run_tool('compare', str(folder), '--devices', 'cpu', '--dry-run')
    assert "'x' is not a timm model" in ran.stderr
    monkeypatch.setattr(command, 'check_devices', lambda devices: list(devices))
    with pytest.raises(ZeroDivisionError):
        run_tool('compare', str(folder), '--dry-run')


@pytest.mark.parametrize('size', [None, 160])
@pytest.mark.parametrize('backbone', ['test_resnet', 'test_efficientnet', 'test_vit'])
def test_costs_are_of_the_images_that_are_trained_on(
    backbone: str, size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fgplugins.compare.training import config_of
    from fgplugins.zoo_mmpretrain.running.settings import pipeline_size

    recipe = recipes.row_recipe(recipes.read_recipe('finetune', size=size), 'gap')
    cell = Cell('x', backbone, 'gap', 'finetune', recipe, 0)
    cfg = config_of(cell, tmp_path, 3, tmp_path)
    trained_on = pipeline_size(cfg.test_dataloader.dataset.pipeline)
    model = features.build_row('gap', backbone, 3, recipe, pretrained=False)
    assert model.input_size == trained_on
    if backbone != 'test_vit':  # which takes its own size only
        assert trained_on == ((size or 224),) * 2


def test_a_dry_run_writes_nothing(
    folder: Path, network: str, tmp_path: Path, run_tool: Callable
) -> None:
    ran = run_tool(
        'compare', str(folder), '--backbone', network, '--out', 'out', '--dry-run', '--methods',
        'warn', '--jobs', 'slurm', '--size', '64',
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert '10 cells (2 rows x 5 seeds)' in ran.stdout
    assert '#SBATCH --array=0-9' in ran.stdout
    assert not (tmp_path / 'out').exists()


def test_a_dry_run_writes_no_digits(network: str, tmp_path: Path, run_tool: Callable) -> None:
    asked = ('compare', 'digits', '--quick', '--backbone', network, '--dry-run', '--size', '64')
    ran = run_tool(*asked)
    assert ran.returncode == 0, ran.stderr
    assert '600 to train on, 200 to validate, 600 to test' in ran.stdout
    refused = run_tool(*asked[:-3], '--methods', 'warn:haeds=2')
    assert refused.returncode == 2 and 'haeds' in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_knows_what_is_finished(
    quick: Path, folder: Path, network: str, run_tool: Callable
) -> None:
    ran = run_tool(
        'compare', str(folder), '--backbone', network, '--out', str(quick), '--dry-run', '--quick',
        '--methods', 'warn', 'clan', '--seeds', '3', '--epochs', '4', '--size', '64', '--jobs',
        'slurm',
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert '#SBATCH --array=0-2' in ran.stdout, 'six of nine are finished'


def test_folders_of_names_are_told_apart() -> None:
    others = [f'local-dir:/{name}' for name in ('网络甲', '网络乙', 'a b', 'a_b')]
    names = ['resnet50', *others]
    found = [file_name(name) for name in names]
    assert len(set(found)) == len(names) and found[0] == 'resnet50'
    assert all(name.isascii() and '/' not in name for name in found)


def test_devices_of_a_cell_share_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from fgplugins.compare.training import config_of

    recipe = recipes.row_recipe(recipes.read_recipe('finetune', batch_size=6), 'gap')
    cell = Cell('x', 'resnet18', 'gap', 'finetune', recipe, 0)
    sizes = []
    for processes in ('1', '3'):
        monkeypatch.setenv('WORLD_SIZE', processes)
        sizes.append(config_of(cell, Path('data'), 2, Path('out')).train_dataloader.batch_size)
    assert sizes == [6, 2]
    monkeypatch.setenv('WORLD_SIZE', '4')
    with pytest.raises(UserError, match='4 devices of a cell do not divide a batch of 6 images: '
                                        'a --batch-size that they do, as 8'):  # fmt: skip
        config_of(cell, Path('data'), 2, Path('out'))


def test_cells_of_earlier_commands_are_reported_with_those_asked_for(tmp_path: Path) -> None:
    def cell(
        method: str, seed: int, backbone: str = 'a', begun: bool = False, **more: object
    ) -> Cell:
        found = Cell('x', backbone, method, 'quick', {'lr': 1.0, **more}, seed)
        job = plan.job_of(found, tmp_path)
        if not begun:
            write_json(job.folder / 'result.json', {})
        return found

    def trial(number: int, done: bool = True) -> Cell:
        found = replace(asked[0], seed=1000, trial=number)
        job = plan.job_of(found, tmp_path)
        if done:
            write_json(job.folder / 'result.json', {})
        return found

    asked = [cell('gap', 0), cell('clan', 0)]
    diverged = cell('warn', 1, begun=True)
    write_json(diverged.folder(tmp_path) / 'failed.json', {'reason': 'diverged'})
    cell('warn', 2, lr=3.0)  # of another recipe
    cell('gap', 0, 'b', lr=3.0), cell('warn', 0, 'b')  # whose control is of another recipe
    both = [cell('gap', 0, 'c'), cell('warn', 0, 'c')]
    trials = [trial(0), trial(1), trial(2, done=False)]
    damaged = cell('att2', 0).folder(tmp_path)
    (damaged / 'cell.json').write_text('{')
    cell('siou', 0, begun=True)
    for number, more in ((0, []), (1, trials[:1]), (9, trials[:2])):
        found, left_out = cells_to_report(tmp_path, asked, lambda *row: {'lr': 1.0}, number)
        assert found[:2] == asked
        assert {c.key for c in found[2:]} == {c.key for c in [diverged, *both, *more]}
        assert left_out == ['gap on b', 'warn on b']
    # where this command's rows are tuned, and those of earlier ones are not
    found, left_out = cells_to_report(tmp_path, asked, lambda *row: None)
    assert found == asked
    assert set(left_out) == {'gap on b', 'gap on c', 'warn on a', 'warn on b', 'warn on c'}


@pytest.mark.slow
def test_whole_networks_are_trained_by_all_methods(
    folder: Path, network: str, tmp_path: Path
) -> None:
    out = tmp_path / 'out'
    asked = ('--methods', 'all', '--seeds', '1', '--epochs', '2', '--batch-size', '9')
    ran = run(*asked, '--devices', 'cpu', 'cpu', folder=folder, network=network, out=out)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    rows = results(out)['backbones'][0]['rows']
    assert [row['method'] for row in rows] == ['gap', 'art', 'att2', 'clan', 'siou', 'warn']
    assert all(len(row['runs']) == 1 for row in rows)
    assert load_trained(str(out)).classes == sorted(COLOURS)


@pytest.mark.slow
def test_the_local_executor_of_submitit_runs_a_comparison(
    quick: Path, folder: Path, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    """Maps, cells and costs: each a task of submitit, with the results of cells run here."""
    pytest.importorskip('submitit', reason='of clusters')
    from fgplugins.compare import cluster

    monkeypatch.setattr(cluster, 'check_slurm', lambda: None)
    monkeypatch.setattr(cluster, 'run_slurm', partial(cluster.run_slurm, executor='local'))
    out = tmp_path / 'out'
    asked = ('--quick', '--methods', 'warn', 'clan', '--seeds', '2', '--epochs', '4')
    on = ('--jobs', 'slurm', '--gpus', '0')
    code, said = run_here(*asked, *on, folder=folder, network=network, out=out)
    assert code == 0, said
    assert '6 of 6 cells finished' in said
    tasks = list((out / 'jobs').glob('*_submitted.pkl'))
    assert len(tasks) == 1 + 6 + 1, 'maps, cells, costs'
    rows, wanted = (results(of)['backbones'][0]['rows'] for of in (out, quick))
    for found, expected in zip(rows, wanted, strict=True):
        assert found['method'] == expected['method']
        assert without_times(found['runs']) == without_times(expected['runs'])


class Killed(Exception):
    pass


@pytest.mark.slow
def test_a_killed_cell_goes_on_from_its_last_epoch(
    quick: Path, network: str, tmp_path: Path
) -> None:
    """To the bit, as if nothing had been."""
    from fgplugins.compare.training import FineTuned

    recipe = recipes.read_recipe('finetune', epochs=3, batch_size=9, size=64)
    found = {}
    for name, killed in (('whole', False), ('killed', True)):
        cell = Cell('x', network, 'art', 'finetune', recipes.row_recipe(recipe, 'art'), 3)
        folder = tmp_path / name
        folder.mkdir()
        epochs: list[int] = []
        spent: list[float] = []

        def note(
            epoch: int, of: int, seconds: float,
            epochs: list[int] = epochs, spent: list[float] = spent,
        ) -> None:  # fmt: skip
            epochs.append(epoch)
            spent.append(seconds)

        def stop(epoch: int, of: int, seconds: float) -> None:
            if epoch == 2:  # the checkpoint of the first epoch is there
                raise Killed

        if killed:
            with pytest.raises((Killed, UserError)):
                FineTuned(cell, quick / 'split.json', 3, folder).train(stop)
            seconds = folder / 'run' / 'seconds.json'
            assert len(read_json(seconds)['until_epoch']) == 2  # one more than is kept
            write_json(seconds, {'until_epoch': [1000.0, 5000.0]})
        training = FineTuned(cell, quick / 'split.json', 3, folder)
        training.train(note)
        assert epochs == ([2, 3] if killed else [1, 2, 3])
        assert training.earlier == (1000 if killed else 0)
        assert training.earlier < spent[0] < spent[-1] < training.earlier + 600
        found[name] = {part: training.scores(part) for part in ('val', 'test')}
    for part in ('val', 'test'):
        assert torch.equal(found['whole'][part], found['killed'][part])
    kept = sorted(folder.glob('run/epoch_*.pth'))
    assert [path.name for path in kept] == ['epoch_2.pth', 'epoch_3.pth']
    for path, gone_on_from in ((kept[1], str(kept[0])), (kept[0], None)):
        path.write_bytes(path.read_bytes()[:-1000])  # killed while it was written
        training = FineTuned(cell, quick / 'split.json', 3, folder)
        assert training.cfg.load_from == gone_on_from
        assert (training.earlier > 1000) == (gone_on_from is not None)


@pytest.mark.slow
def test_a_fine_tuned_cell_can_be_finished_wherever_it_was_stopped(
    quick: Path, network: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    from fgplugins.compare import training

    out = tmp_path / 'out'
    shutil.copytree(quick, out)
    recipe = recipes.read_recipe('finetune', epochs=2, batch_size=9, size=64)
    recipe = recipes.row_recipe(recipe, 'art')
    job = plan.job_of(Cell('x', network, 'art', 'finetune', recipe, 3), out)
    seconds = job.folder / 'run' / 'seconds.json'

    def scores() -> dict[str, np.ndarray]:
        with np.load(job.folder / 'scores.npz') as kept:
            return dict(kept)

    def stop(path: Path, content: object) -> None:
        if path.name == 'result.json':
            raise Killed
        write_json(path, content)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run_cell, 'write_json', stop)
        run_cell.run(job.folder)
    wanted = scores()
    write_json(seconds, {'until_epoch': [1000.0, 2000.0]})

    def full(folder: Path) -> None:
        raise OSError('no space is left')

    with monkeypatch.context() as patch:  # trained, but not scored; then the disk is full
        patch.setattr(training, 'shrink', full)
        run_cell.run(job.folder)
    assert (
        'note: the checkpoint keeps the state of its training: no space' in capsys.readouterr()[0]
    )
    assert job.finished
    checkpoint = job.folder / 'run' / 'epoch_2.pth'
    large = checkpoint.stat().st_size
    for _ in range(2):  # the second time from weights alone
        (job.folder / 'scores.npz').write_bytes(b'')
        assert not job.finished
        run_cell.run(job.folder)
        assert job.finished
        assert checkpoint.stat().st_size < large
        found = scores()
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    result = read_json(job.folder / 'result.json')
    assert 2000 < result['seconds']['train'] < 2600


@pytest.mark.slow
def test_a_cell_has_several_devices(folder: Path, network: str, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    asked = ('--methods', 'warn', '--seeds', '1', '--epochs', '1', '--batch-size', '6')
    ran = run(*asked, '--devices', 'cpu+cpu', folder=folder, network=network, out=out)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    for log in out.glob('cells/*/log.txt'):
        assert 'Distributed launcher: pytorch' in log.read_text(encoding='utf-8')
    assert len(list(out.glob('cells/*/result.json'))) == 2
