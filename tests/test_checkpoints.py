"""Checkpoints and what they meet: code in them, other classes, other methods, other folders."""

from __future__ import annotations

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

import argparse
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from helpers import image_folder
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

import fgplugins  # noqa: F401  (registers the timm models)
from fgplugins.data.classes import check_same_classes
from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.running import configs, work_folder
from fgplugins.zoo_mmpretrain.running.checkpoints import read_checkpoint
from fgplugins.zoo_mmpretrain.running.saved_settings import read_literals, saved_config

TOOLS = Path(__file__).parent.parent / 'tools'
CONFIG = """
_base_ = '{base}/gap_mobilenetv2_cub.py'
pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='PackInputs'),
]
loader = dict(batch_size=4, num_workers=0, dataset=dict(pipeline=pipeline, data_root='{data}'))
train_dataloader = val_dataloader = test_dataloader = loader
model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18, base_channels=8, stem_channels=8,
                  out_indices={levels}),
    head=dict(type='{head}', num_classes=3),
)
train_cfg = dict(max_epochs=1)
param_scheduler = dict(T_max=1)
"""
SPLITS = {'train': 5, 'test': 4}  # of five one is validated on; four make whole batches


def write_config(path: Path, data: Path, head: str = 'GAPHead') -> Path:
    levels = {'GAPHead': (3,), 'WARNHead': (1, 2, 3)}.get(head, (2, 3))
    base = TOOLS.parent / 'configs'
    path.write_text(CONFIG.format(base=base, data=data, head=head, levels=levels))
    return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('checkpoints')
    data = image_folder(root / 'data', SPLITS, side=32)
    write_config(root / 'gap.py', data)
    write_config(root / 'warn.py', data, 'WARNHead')
    return root


@pytest.fixture
def trained(folder: Path, run_tool: Callable) -> Path:
    """One epoch of gap on three classes, in a folder of its own."""
    work = folder / 'gap'
    if not work.exists():
        done = run_tool('train', str(folder / 'gap.py'), '--work-dir', str(work))
        assert done.returncode == 0, done.stderr
    return work


def error_of(done: object) -> str:
    """The one line of an error."""
    assert done.returncode == 2, done.stdout[-1000:] + done.stderr[-1000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1 and 'Traceback' not in done.stderr, done.stderr
    return errors[0]


# -------------------------------------------------------------------------------- no code from data


def takes_checkpoint(tool: str, config: str, file: str) -> list[list[str]]:
    """Every way to give a tool a checkpoint; a new tool has to be added here."""
    return {
        'benchmark': [[file], [config, '--checkpoint', file], [config, '--versus', file]],
        'check_data': [],
        'compare': [],
        'report': [[file]],
        'coverage': [],
        'demo': [[file]],
        'deploy': [[config, file], ['gap', file, '--model-kwargs', 'backbone=resnet10t']],
        'export': [[file, 'out.onnx']],
        'get_flops': [[file], [config, '--checkpoint', file], [config, '--versus', file]],
        'get_memory': [[file], [config, '--checkpoint', file]],
        'predict': [[file, 'image.png', '--csv', 'out.csv']],
        'publish': [[file, 'published']],
        'show_attention': [
            [config, file, 'image.png'],
            ['gap', file, 'image.png', '--model-kwargs', 'backbone=resnet10t'],
            [file, file, 'image.png'],
        ],
        'split_data': [],
        'test': [[config, file]],
        'train': [
            [config, '--resume', file],
            [config, '--pretrained', file],
            [config, '--cfg-options', f'load_from={file}'],
        ],
    }[tool]  # fmt: skip


class Planted:
    """Pickles into a call."""

    def __reduce__(self) -> tuple:
        return os.system, ('touch ran',)


def plant(folder: Path) -> list[Path]:
    """Checkpoints that carry code, in every place where a reader has run some."""
    system = "dict(type='os.system', command='touch ran')"
    types = {
        'shell': system,
        'process': "dict(type='subprocess.Popen', args=['touch', 'ran'])",
        'backbone': f"dict(type='ImageClassifier', backbone={system})",
        'scope': "dict(type='ImageClassifier', backbone=dict(type='planted.Net'))",
        'exec': """dict(type='builtins.exec', source="open('ran', 'w')")""",
        'runner': "dict(type='mmengine.runner.runner.Runner', model=dict(), work_dir='ran')",
        'writer': "dict(type='mmengine.visualization.vis_backend.LocalVisBackend', save_dir='ran')",
        'layer': (
            "dict(type='ImageClassifier', backbone=dict(type='TIMMBackbone', "
            "model_name='resnet10t', norm_layer='planted.Norm'))"
        ),
        'reader': (
            "dict(type='ImageClassifier', backbone=dict(type='CLIPGenerator', "
            f"tokenizer_path={str(folder / 'pickle.pth')!r}))"
        ),
    }  # fmt: skip
    configs = {name: f'model = {text}\n' for name, text in types.items()}
    configs['statement'] = (
        "import os\nos.system('touch ran')\nmodel = dict(type='ImageClassifier')\n"
    )
    configs['call'] = "model = __import__('os').system('touch ran')\n"
    configs['key'] = "model = {__import__('os').system('touch ran'): 1}\n"
    configs['lazy'] = 'from planted import ran\nmodel = dict(type=ran)\n'
    configs['imports'] = (
        "custom_imports = dict(imports=['planted'])\nmodel = dict(type='ImageClassifier',"
        " custom_imports=dict(imports=['planted']))\n"
    )
    configs['pipeline'] = (
        "model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18))\n"
        f"test_dataloader = dict(dataset=dict(pipeline=[{system}]))\n"
    )  # fmt: skip
    (folder / 'planted.py').write_text("open('ran', 'w')\n")
    files = []
    for name, text in configs.items():
        files.append(folder / f'{name}.pth')
        meta = {'cfg': text, 'config': text, 'epoch': 0, 'iter': 0}
        content = {'state_dict': {}, 'meta': meta, 'optimizer': {}, 'message_hub': {}}
        torch.save(content, files[-1])
    files.append(folder / 'pickle.pth')
    torch.save({'state_dict': {}, 'meta': Planted()}, files[-1])
    files.append(folder / 'timm.pth')
    args = argparse.Namespace(model_kwargs={'backbone': 'resnet10t', 'x': Planted()})
    torch.save({'arch': 'gap', 'args': args, 'state_dict': {}}, files[-1])
    files.append(folder / 'architecture.pth')
    torch.save({'arch': str(folder / 'planted.py'), 'state_dict': {}}, files[-1])
    for name in (
        "x' + str(open('ran', 'w')) + '.pth",
        '$(touch ran).pth',
        '{{ x }}`touch ran`.pth',
    ):
        files.append(folder / name)
        torch.save({'state_dict': {}, 'meta': {'cfg': "model = dict(type='A')\n"}}, files[-1])
    return files


@pytest.mark.parametrize('tool', sorted(path.stem for path in TOOLS.glob('*.py')))
def test_no_tool_runs_code_of_a_checkpoint(
    tool: str, folder: Path, tmp_path: Path, run_tool: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)  # as for a command that is run there
    Image.new('RGB', (32, 32)).save(tmp_path / 'image.png')
    for file in plant(tmp_path):
        for arguments in takes_checkpoint(tool, str(folder / 'gap.py'), str(file)):
            if arguments[0] != str(file) and file.stem not in ('statement', 'pickle', 'timm'):
                continue  # whoever is given a config does not read the checkpoint's
            done = run_tool(tool, *arguments)
            assert not (tmp_path / 'ran').exists(), f'{tool} {arguments} ran code'
            assert error_of(done)


def test_initial_weights_run_no_code(folder: Path, tmp_path: Path, run_tool: Callable) -> None:
    """mmengine reads a file again with code allowed if it holds more than data."""
    file = next(f for f in plant(tmp_path) if f.stem == 'pickle')
    initial = {'type': 'Pretrained', 'checkpoint': str(file)}
    for place in ('model.init_cfg', 'model.backbone.init_cfg'):
        done = run_tool('train', str(folder / 'gap.py'), '--cfg-options', f'{place}={initial!r}')
        assert not (tmp_path / 'ran').exists()
        assert 'init_cfg' in error_of(done)


def test_a_resumed_checkpoint_runs_no_code(
    folder: Path, trained: Path, tmp_path: Path, run_tool: Callable
) -> None:
    """A whole one, with a config under the name that mmengine executes when it resumes."""
    shutil.copytree(trained, tmp_path / 'run')
    content = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=False)
    content['meta']['config'] = "import os\nos.system('touch ran')\n"
    torch.save(content, tmp_path / 'run/epoch_1.pth')
    more = ['train_cfg.max_epochs=2', 'param_scheduler.T_max=2']
    done = run_tool(
        'train', str(folder / 'gap.py'), '--work-dir', 'run', '--resume', '--cfg-options', *more
    )
    assert done.returncode == 0 and (tmp_path / 'run/epoch_2.pth').is_file(), done.stderr
    assert not (tmp_path / 'ran').exists()


def test_literals_are_what_mmengine_writes() -> None:
    text = "a = dict({'b': [1, -2.5, None]}, c=(1, ), d={'x-y': inf})\ne = True\nf = a_b.C\n"
    expected = {'a': {'b': [1, -2.5, None], 'c': (1,), 'd': {'x-y': float('inf')}}, 'e': True}
    assert read_literals(text) == {**expected, 'f': 'a_b.C'}
    for wrong in (
        'import os',
        'a = f()',
        'a = b',
        'a = dict(**b)',
        'a = {**b}',
        'a = [x for x in y]',
    ):
        with pytest.raises(ValueError, match='line 1'):
            read_literals(wrong)


def test_a_pipeline_of_a_checkpoint_is_not_built(
    trained: Path, tmp_path: Path, run_tool: Callable
) -> None:
    """A transform that is registered evaluates what it is given; of steps only sizes are read."""
    content = torch.load(trained / 'epoch_1.pth', weights_only=False)
    evil = (
        "dict(type='torchvision/ConvertImageDtype', "
        """dtype="float32 if open('ran', 'w') else 1"), """
    )
    text = content['meta']['cfg'].replace('pipeline=[', f'pipeline=[{evil}')
    content['meta']['cfg'] = text
    torch.save(content, tmp_path / 'a.pth')
    done = run_tool('get_flops', 'a.pth')
    assert done.returncode == 0 and 'input 3 x 32 x 32' in done.stdout, done.stderr
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    ('place', 'value'),
    [
        ('meta', [1]),
        ('meta.dataset_meta', [1, 2]),
        ('meta.dataset_meta.classes', 3),
        ('meta.epoch', 'x'),
        ('message_hub', 'x'),
        ('optimizer', 'x'),
        ('state_dict', [1]),
        ('state_dict', {1: 2}),
    ],
)
def test_a_damaged_checkpoint_names_the_entry(
    trained: Path, tmp_path: Path, place: str, value: object
) -> None:
    content = torch.load(trained / 'epoch_1.pth', weights_only=False)
    *path, last = place.split('.')
    inner = content
    for key in path:
        inner = inner[key]
    inner[last] = value
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=rf'is damaged: {place} is '):
        read_checkpoint(str(tmp_path / 'a.pth'))


def test_a_checkpoint_is_enough_for_reports(trained: Path, run_tool: Callable) -> None:
    """Its own config is read, of a file that any name may have."""
    odd = trained / "it's $HOME {{ x }}.pth"
    shutil.copy(trained / 'epoch_1.pth', odd)
    config = saved_config(read_checkpoint(str(odd)), str(odd))
    assert config.model.head.type == 'GAPHead' and config.default_scope == 'mmpretrain'
    for tool in ('get_flops', 'get_memory'):
        done = run_tool(tool, str(odd))
        assert done.returncode == 0, done.stderr
        assert odd.stem in done.stdout


# ------------------------------------------------------------------------ classes and methods


def test_classes_are_compared_by_name_and_order() -> None:
    check_same_classes(['a', 'b'], ('a', 'b'), 'x', 'y')
    for other, message in (
        (['a', 'c'], "class 1 is 'b' of 2 in the one, 'c' of 2 in the other"),
        (['b', 'a'], "(the same names in another order): class 0 is 'a'"),
        (['a', 'b', 'c'], "class 2 is none of 2 in the one, 'c' of 3"),
        ([], "class 0 is 'a' of 2 in the one, none of 0"),
    ):
        with pytest.raises(UserError) as caught:
            check_same_classes(['a', 'b'], other, 'x', 'y')
        assert message in str(caught.value)


def test_other_classes_are_refused(
    folder: Path, trained: Path, tmp_path: Path, run_tool: Callable
) -> None:
    config, checkpoint = str(folder / 'gap.py'), str(trained / 'epoch_1.pth')
    other = image_folder(tmp_path / 'other', SPLITS, ('crow', 'dove', 'eagle'), side=32)
    root = ['--data-root', str(other)]
    line = error_of(run_tool('test', config, checkpoint, *root))
    assert "class 1 is 'duck' of 3 in the one, 'dove' of 3" in line
    assert "'dove'" in error_of(run_tool('train', config, '--resume', checkpoint, *root))
    fewer = image_folder(tmp_path / 'fewer', SPLITS, ('crow', 'duck'), side=32)
    line = error_of(run_tool('test', config, checkpoint, '--data-root', str(fewer)))
    assert "class 2 is 'eagle' of 3 in the one, none of 2" in line


def test_weights_of_other_classes_are_not_shown_beside(
    folder: Path, trained: Path, tmp_path: Path, run_tool: Callable
) -> None:
    other = torch.load(trained / 'epoch_1.pth', weights_only=False)
    other['meta']['dataset_meta']['classes'] = ('crow', 'dove', 'eagle')
    torch.save(other, tmp_path / 'other.pth')
    done = run_tool(
        'show_attention', str(folder / 'gap.py'), str(trained / 'epoch_1.pth'),
        str(folder / 'data/test'), '--versus', 'other.pth',
    )  # fmt: skip
    assert "--versus other.pth have other classes: class 1 is 'duck'" in error_of(done)


def test_weights_of_the_control_are_shown_beside(
    folder: Path, trained: Path, tmp_path: Path, run_tool: Callable
) -> None:
    """siou has the same weights as gap; on their own they are refused."""
    config = write_config(tmp_path / 'siou.py', folder / 'data', 'SIoUHead')
    model = MODELS.build(Config.fromfile(config).model)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'siou.pth')
    control, images = str(trained / 'epoch_1.pth'), str(folder / 'data/test')
    done = run_tool('show_attention', str(config), 'siou.pth', images, '--versus', control)
    assert done.returncode == 0, done.stderr
    assert 'was trained with GAPHead' in error_of(
        run_tool('show_attention', str(config), control, images)
    )


def test_classes_in_another_order_are_mapped(
    folder: Path, trained: Path, tmp_path: Path, run_tool: Callable
) -> None:
    """The data's order is set by their configuration here; the accuracy is that of the names."""
    config, checkpoint = str(folder / 'gap.py'), str(trained / 'epoch_1.pth')
    order = ['test_dataloader.dataset.metainfo.classes=["eagle","duck","crow"]']
    results = []
    for options in ([], order):
        extra = ['--cfg-options', *options] if options else []
        done = run_tool('test', config, checkpoint, '--json', 'a.json', '--out', 'a.pkl', *extra)
        assert done.returncode == 0, done.stderr
        results.append((tmp_path / 'a.json').read_text())
    assert 'put in the order of checkpoint' in done.stdout
    assert results[0] == results[1]


@pytest.mark.parametrize('tool', ['test', 'deploy', 'show_attention', 'train'])
def test_weights_of_another_method_are_refused(
    tool: str, folder: Path, trained: Path, run_tool: Callable
) -> None:
    config, checkpoint = str(folder / 'warn.py'), str(trained / 'epoch_1.pth')
    arguments = {
        'show_attention': [config, checkpoint, str(folder / 'data/test')],
        'train': [config, '--resume', checkpoint],
    }.get(tool, [config, checkpoint])
    assert 'was trained with GAPHead, the model has WARNHead' in error_of(
        run_tool(tool, *arguments)
    )
    bare = folder / 'bare.pth'  # of gap, which says nothing of itself
    weights = read_checkpoint(checkpoint)['state_dict']
    weights['head.method.W_G.weight'] = torch.zeros(4, 8)
    torch.save({'state_dict': weights}, bare)
    arguments = [str(bare) if a == checkpoint else a for a in arguments]
    arguments[0] = str(folder / 'gap.py')
    line = error_of(run_tool(tool, *arguments))
    assert ('it holds head.method.W_G.weight' in line) or tool == 'train'


# ---------------------------------------------------------------------------------- a run's folder


MORE = ['--cfg-options', 'train_cfg.max_epochs=2', 'param_scheduler.T_max=2']


def test_a_copied_folder_goes_on_by_itself(
    folder: Path, trained: Path, tmp_path: Path, run_tool: Callable
) -> None:
    """With the saved config, where the folder is now; the original stays as it was."""
    shutil.copytree(trained, tmp_path / 'copy')
    before = sorted(f.name for f in trained.iterdir())
    done = run_tool('train', str(tmp_path / 'copy/gap.py'), '--resume', *MORE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'copy/epoch_2.pth').is_file()
    assert sorted(f.name for f in trained.iterdir()) == before


def test_the_best_checkpoint_of_the_original_survives_a_copy(
    folder: Path, tmp_path: Path, run_tool: Callable
) -> None:
    best = ['default_hooks.checkpoint.save_best=auto', 'default_hooks.checkpoint.rule=less']
    config = str(folder / 'gap.py')
    done = run_tool('train', config, '--work-dir', 'a', '--cfg-options', *best)
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / 'a').glob('best_*.pth')
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    hub = torch.load(tmp_path / 'b/epoch_1.pth', weights_only=False)['message_hub']
    assert str(tmp_path / 'a') in str(Path(hub['runtime_info']['best_ckpt']).resolve())
    # an accuracy that is always better than before, so that the best one is replaced
    better = [*best[:1], 'default_hooks.checkpoint.rule=greater', 'optim_wrapper.optimizer.lr=0.0']
    done = run_tool(
        'train', config, '--work-dir', 'b', '--resume', '--cfg-options', *better,
        'train_cfg.max_epochs=3', 'param_scheduler.T_max=3',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert kept.is_file()


def test_a_second_run_sets_the_first_aside(
    folder: Path, tmp_path: Path, run_tool: Callable
) -> None:
    config = str(folder / 'gap.py')
    first = run_tool('train', config, '--work-dir', 'run', *MORE)
    assert first.returncode == 0 and 'set aside' not in first.stdout, first.stderr
    second = run_tool('train', config, '--work-dir', 'run')
    assert second.returncode == 0, second.stderr
    (line,) = [text for text in second.stdout.splitlines() if 'set aside' in text]
    aside = tmp_path / line.rsplit(' ', 1)[1]
    assert {'epoch_1.pth', 'epoch_2.pth', 'attention_maps.png', 'gap.py'} <= {
        f.name for f in aside.iterdir()
    }
    assert [f.name for f in sorted((tmp_path / 'run').glob('*.pth'))] == ['epoch_1.pth']
    assert work_folder.latest_checkpoint(tmp_path / 'run').name == 'epoch_1.pth'
    assert work_folder.latest_checkpoint(aside).name == 'epoch_2.pth'


def test_a_mistake_in_a_second_run_leaves_the_first_in_place(
    folder: Path, trained: Path, tmp_path: Path, run_tool: Callable
) -> None:
    shutil.copytree(trained, tmp_path / 'run')
    config = [str(folder / 'gap.py'), '--work-dir', 'run', '--cfg-options']
    for mistake in ('optim_wrapper.optimizer.lr=-1', 'val_evaluator.type=Acuracy'):
        assert error_of(run_tool('train', *config, mistake))
        assert (tmp_path / 'run/epoch_1.pth').is_file()
    assert work_folder.latest_checkpoint(tmp_path / 'run').name == 'epoch_1.pth'
    (tmp_path / 'run/last_checkpoint').write_bytes(b'\xff\xfe\xfa')
    assert work_folder.latest_checkpoint(tmp_path / 'run').name == 'epoch_1.pth'


def test_what_goes_wrong_in_training_is_one_line(
    folder: Path, tmp_path: Path, run_tool: Callable
) -> None:
    """As a hook of the zoo's that exchanges a loss; the whole of it is kept."""
    switch = {'action_epoch': 1, 'loss': {'type': 'CrossEntropyLoss'}}
    hook = {'type': 'SwitchRecipeHook', 'schedule': [switch]}
    done = run_tool(
        'train', str(folder / 'gap.py'), '--work-dir', 'run', '--cfg-options',
        f'custom_hooks=[{hook}]',
    )  # fmt: skip
    line = error_of(done)
    assert 'stopped' in line and 'loss_module' in line
    assert 'Traceback' in Path(line.rsplit('where: ', 1)[1]).read_text()


def test_going_on_by_another_count_is_refused(
    folder: Path, trained: Path, tmp_path: Path, run_tool: Callable
) -> None:
    loop = "train_cfg={'_delete_':True,'type':'IterBasedTrainLoop','max_iters':9}"
    done = run_tool(
        'train', str(folder / 'gap.py'), '--work-dir', str(trained), '--resume', '--cfg-options',
        loop,
    )  # fmt: skip
    assert 'its training counted epochs, the config counts iterations' in error_of(done)


@pytest.mark.parametrize('option', ['--pretrained', 'load_from'])
def test_starting_from_what_would_be_set_aside(
    option: str, folder: Path, trained: Path, tmp_path: Path, run_tool: Callable
) -> None:
    shutil.copytree(trained, tmp_path / 'run')
    given = [option, 'run/epoch_1.pth']
    if option == 'load_from':
        given = ['--cfg-options', 'load_from=run/epoch_1.pth']
    line = error_of(run_tool('train', str(folder / 'gap.py'), '--work-dir', 'run', *given))
    assert 'run/epoch_1.pth lies in the work folder' in line
    assert (tmp_path / 'run/epoch_1.pth').is_file()


def test_a_config_beside_somebody_elses_checkpoint(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    """Only a run's own folder is taken for the work folder."""
    (tmp_path / 'here').mkdir()
    config = write_config(tmp_path / 'here/gap.py', folder / 'data')
    shutil.copy(trained / 'epoch_1.pth', tmp_path / 'here')
    args = argparse.Namespace(config=str(config), cfg_options=None, work_dir=None, data_root=None)
    assert configs.load_config(args).work_dir == 'work_dirs/gap'
    (tmp_path / 'here/last_checkpoint').write_text('elsewhere/epoch_1.pth')
    assert configs.load_config(args).work_dir == str(tmp_path / 'here')


def test_two_runs_in_one_folder_are_refused(
    folder: Path, tmp_path: Path, run_tool: Callable
) -> None:
    (tmp_path / 'run').mkdir()
    with FileLock(tmp_path / 'run' / work_folder.LOCK):
        line = error_of(run_tool('train', str(folder / 'gap.py'), '--work-dir', 'run'))
    assert 'another run is writing there' in line


def test_resuming_a_finished_run_says_its_result(
    folder: Path, trained: Path, run_tool: Callable
) -> None:
    done = run_tool(
        'train', str(folder / 'gap.py'), '--work-dir', str(trained), '--resume'
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'is of the last epoch already (1)' in done.stdout
    assert 'top-1 on the validation data after the last epoch (1): ' in done.stdout


def test_the_saved_config_forgets_where_weights_came_from(
    folder: Path, trained: Path, tmp_path: Path, run_tool: Callable
) -> None:
    start = tmp_path / 'start.pth'
    shutil.copy(trained / 'epoch_1.pth', start)
    config = str(folder / 'gap.py')
    done = run_tool('train', config, '--work-dir', 'run', '--pretrained', str(start))
    assert done.returncode == 0, done.stderr
    start.unlink()
    assert 'start.pth' not in (tmp_path / 'run/gap.py').read_text()
    for arguments in (
        ['test', 'run/gap.py', 'run/epoch_1.pth'],
        ['show_attention', 'run/gap.py', 'run/epoch_1.pth', str(folder / 'data/test')],
        ['get_flops', 'run/epoch_1.pth'],
        ['train', 'run/gap.py', '--resume', *MORE],
    ):
        done = run_tool(*arguments)
        assert done.returncode == 0, done.stderr
