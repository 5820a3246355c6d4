"""What is done with trained models: predicting files, exporting, publishing."""

from __future__ import annotations

import csv
import json
import math
import runpy
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from helpers import CLASSES, classifier, loop_softmax, write_image
from PIL import Image
from torch import nn

import fgplugins
from fgplugins.errors import UserError
from fgplugins.serving import predicting
from fgplugins.serving.files import find_files
from fgplugins.serving.models import load_trained
from fgplugins.serving.predicting import Prediction, predict, probabilities
from fgplugins.serving.preprocessing import as_timm_data, describe_preprocessing, read_steps
from fgplugins.serving.publishing import publish
from fgplugins.serving.results import find_results, read_results
from fgplugins.serving.rows import PredictionFile
from fgplugins.utils.loaded import LoadedModel
from fgplugins.zoo_timm.deploy import deployed_checkpoint

NETWORK = 'test_efficientnet'
METHODS = fgplugins.list_methods()
PIPELINE = [
    {'type': 'LoadImage'},
    {'type': 'Resize', 'scale': (40, 40)},
    {'type': 'CenterCrop', 'crop_size': 32},
    {'type': 'PackInputs'},
]
Run = Callable[..., subprocess.CompletedProcess]


def shaken(model: nn.Module) -> nn.Module:
    """A model as after training: nothing is zero, and no class always wins."""
    for p in model.parameters():
        nn.init.normal_(p, std=0.1)
    for name, buffer in model.named_buffers():
        if 'running' in name:
            nn.init.uniform_(buffer, 0.5, 1.5)
    return model.eval()


def timm_checkpoint(path: Path, method: str = 'warn', classes: tuple = CLASSES) -> nn.Module:
    """A file as timm's script leaves it, as far as loading asks."""
    arguments = {'backbone': NETWORK, 'num_classes': len(classes)}
    model = shaken(timm.create_model(method, **arguments))
    data = timm.data.resolve_model_data_config(model)
    data = {**data, 'input_size': (3, 64, 48), 'mean': (0.4, 0.5, 0.6), 'crop_pct': 0.9}
    torch.save(deployed_checkpoint(model, method, arguments, classes, data), path)
    return model


def config_checkpoint(
    path: Path, backbone: dict, head: str = 'WARNHead', pipeline: list = PIPELINE
) -> nn.Module:
    """A file as mmengine leaves it, with its config inside."""
    from mmengine.config import Config

    prepare = {'mean': [120.0, 110, 100], 'std': [60.0, 50, 40], 'to_rgb': True}
    model = shaken(classifier({'type': head}, backbone, data_preprocessor=prepare))
    cfg = Config({
        'model': {
            'type': 'FineGrainedClassifier',
            'backbone': backbone,
            'head': {'type': head, 'num_classes': 3},
        },
        'data_preprocessor': prepare,
        'test_dataloader': {'dataset': {'type': 'FineGrainedImages', 'pipeline': pipeline}},
    })  # fmt: skip
    meta = {'cfg': cfg.pretty_text, 'dataset_meta': {'classes': CLASSES}}
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, path)
    return model


TIMM_BACKBONE = {'type': 'TimmNetwork', 'model_name': NETWORK}


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Three pictures at different depths among what else lies in folders."""
    folder = tmp_path / 'photos'
    generator = np.random.default_rng(0)
    for name in ('b.png', 'deep/er/a.jpg', 'deep/c, "d".png'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (50, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    write_image(folder / '.hidden' / 'x.png')
    (folder / '._b.png').write_bytes(b'x')
    (folder / 'notes.txt').write_text('no picture')
    (folder / 'broken.jpg').write_text('no picture')
    (folder / 'empty.png').write_bytes(b'')
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------------------------ probabilities


def test_probabilities_of_scores_that_are_logarithms() -> None:
    """Mixed log-probabilities (warn) are renormalised; log-probabilities come out as they are."""
    experts = [[0.2, -1.0, 3.0], [1.5, 0.3, -0.4]]
    gates = [0.3, 0.7]
    mixed = [
        sum(g * math.log(loop_softmax(e)[y]) for g, e in zip(gates, experts, strict=True))
        for y in range(3)
    ]
    total = sum(math.exp(s) for s in mixed)
    assert total < 0.99
    found = probabilities(torch.tensor([mixed], dtype=torch.float64))[0].tolist()
    assert found == pytest.approx([math.exp(s) / total for s in mixed], abs=1e-6)
    p = torch.tensor([loop_softmax(experts[0])])
    torch.testing.assert_close(probabilities(p.log()), p)
    assert probabilities(torch.zeros(1, 2), multi_label=True).tolist() == [[0.5, 0.5]]


# -------------------------------------------------------------------------------------------- files


def test_files_of_a_messy_folder(messy: Path) -> None:
    found = find_files([str(messy / 'b.png'), str(messy), str(messy / 'notes.txt')])
    names = ['b.png', 'broken.jpg', 'deep/c, "d".png', 'deep/er/a.jpg', 'empty.png', 'notes.txt']
    assert [path for path, _ in found] == [str(messy / name) for name in names]
    assert found[2][1] == 'deep/c, "d".png'
    (messy / 'none').mkdir()
    for name, reason in ((str(messy / 'none'), 'no images in'), ('nowhere.png', 'is not there')):
        with pytest.raises(UserError, match=reason):
            find_files([name])


def test_batches_are_prepared_as_timm_prepares_one(messy: Path, tmp_path: Path) -> None:
    timm_checkpoint(tmp_path / 'a.pth')
    loaded = load_trained(str(tmp_path / 'a.pth'))
    transform = timm.data.create_transform(**loaded.data, is_training=False)
    prepared, paths = loaded.prepare(), [messy / 'b.png', messy / 'deep/er/a.jpg']
    batch = prepared.finish(torch.stack([prepared.read(str(path)) for path in paths]))
    expected = torch.stack([transform(Image.open(path).convert('RGB')) for path in paths])
    assert torch.equal(batch, expected) and batch.shape == (2, 3, 64, 48)
    assert torch.equal(loaded.read_image(str(paths[0]))[1], batch[:1])


# --------------------------------------------------------------------------------------- predicting


@pytest.mark.parametrize('workers', [0, 2])
def test_predict_writes_a_row_a_file(
    workers: int, messy: Path, tmp_path: Path, run_tool: Run
) -> None:
    model = timm_checkpoint(tmp_path / 'a.pth')
    done = run_tool(
        'predict', 'a.pth', 'photos', '--csv', 'out.csv', '--top-k', '2', '--batch-size', '2',
        '--workers', str(workers), '--device', 'cpu',
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert '2 of 5 images cannot be read' in done.stdout
    assert done.stdout.splitlines()[-1].startswith('out.csv: 5 images, ')
    rows = rows_of(tmp_path / 'out.csv')
    assert list(rows[0]) == ['file', 'class', 'score', 'class_2', 'score_2', 'error']
    errors = {row['file']: row['error'] for row in rows if row['error']}
    assert errors == {
        'photos/broken.jpg': 'its content is no image that can be decoded',
        'photos/empty.png': 'it is empty',
    }
    loaded = load_trained(str(tmp_path / 'a.pth'))
    for row in rows:
        if not row['error']:
            with torch.no_grad():
                scores = model(loaded.read_image(str(tmp_path / row['file']))[1])[0]
            p = loop_softmax(scores.tolist())
            best = sorted(range(3), key=lambda y: -p[y])
            assert [row['class'], row['class_2']] == [CLASSES[y] for y in best[:2]]
            assert float(row['score']) == pytest.approx(p[best[0]], abs=2e-6)
    assert not (tmp_path / 'out.csv.partial').exists()


def test_predict_without_names_and_with_maps(messy: Path, tmp_path: Path, run_tool: Run) -> None:
    pytest.importorskip('matplotlib')
    model = timm_checkpoint(tmp_path / 'a.pth')
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'weights.pth')
    given = ['--model', 'warn', '--model-kwargs', f'backbone={NETWORK}', 'num_classes=3']
    done = run_tool(
        'predict', 'weights.pth', 'photos/b.png', 'photos/deep/er', *given, '--workers', '0',
        '--maps', 'maps',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {row['class'] for row in rows_of(tmp_path / 'predictions.csv')} <= {'0', '1', '2'}
    pictures = {str(p.relative_to(tmp_path / 'maps')) for p in (tmp_path / 'maps').rglob('*.png')}
    assert pictures == {'b.png.png', 'a.jpg.png'}
    assert run_tool('predict', 'weights.pth', 'photos').returncode == 2


def test_what_is_done_is_kept(
    messy: Path, tmp_path: Path, run_tool: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm_checkpoint(tmp_path / 'a.pth')

    def interrupted(*_: object) -> Iterator[list[Prediction]]:
        yield [Prediction([0], [0.5]), Prediction([], [], 'broken')]
        raise KeyboardInterrupt

    monkeypatch.setattr(predicting, 'predict', interrupted)
    done = run_tool('predict', 'a.pth', 'photos', '--csv', 'out.csv', '--top-k', '1')
    assert done.returncode == 130
    assert 'note: 2 of 5 images are done: out.csv.partial' in done.stderr
    assert len(rows_of(tmp_path / 'out.csv.partial')) == 2
    assert not (tmp_path / 'out.csv').exists()
    with pytest.raises(RuntimeError), PredictionFile(tmp_path / 'none.csv', CLASSES, 1):
        raise RuntimeError
    assert not list(tmp_path.glob('none*'))


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['--top-k', '0'], '--top-k 0: must be at least 1'),
        (['--workers', '-1'], '--workers -1: must be at least 0'),
        (['--csv', 'out.txt'], '--csv out.txt: must end in .csv'),
        (['--csv', 'nowhere/out.csv'], '--csv nowhere/out.csv: there is no folder nowhere'),
        (['--device', 'nonsense'], '--device nonsense: '),
        (['--maps', 'photos/b.png'], '--maps photos/b.png: is a file, not a folder'),
        (['--model', 'warn', '--maps', 'maps'], 'checkpoint'),
    ],
)
def test_predict_refuses(
    arguments: list[str], reason: str, messy: Path, tmp_path: Path, run_tool: Run
) -> None:
    (tmp_path / 'a.pth').write_bytes(b'nothing')
    done = run_tool('predict', 'a.pth', 'photos', *arguments)
    assert done.returncode == 2 and reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


# --------------------------------------------------------------------------- checkpoints of configs


@pytest.mark.usefixtures('room')
def test_a_config_in_its_checkpoint_prepares_images(messy: Path, tmp_path: Path) -> None:
    """The tensors are those that ``tools/test.py`` gives the model."""
    from mmengine.dataset import Compose, pseudo_collate
    from mmpretrain.registry import TRANSFORMS

    model = config_checkpoint(tmp_path / 'a.pth', TIMM_BACKBONE)
    loaded = load_trained(str(tmp_path / 'a.pth'))
    assert loaded.classes == list(CLASSES) and loaded.input_size == (3, 32, 32)
    paths = [str(messy / 'b.png'), str(messy / 'deep/er/a.jpg')]
    pipeline = Compose([TRANSFORMS.build(dict(step)) for step in PIPELINE])
    batch = pseudo_collate([pipeline({'img_path': path}) for path in paths])
    inputs = model.data_preprocessor(batch, training=False)['inputs']
    prepared = loaded.prepare()
    found = prepared.finish(torch.stack([prepared.read(path) for path in paths]))
    assert torch.equal(found, inputs)
    with torch.no_grad():
        p = model(inputs).softmax(dim=1)
    (ours,) = predict(loaded, paths, 8, 0, 3)
    for n, one in enumerate(ours):
        assert one.scores == p[n, one.labels].tolist()


@pytest.mark.usefixtures('room')
@pytest.mark.parametrize(
    ('step', 'reason'),
    [
        ({'type': 'os.system'}, r"'os.system', which is no registered transform"),
        ({'type': 'LoadImageFromFile', 'backend_args': {'backend': 'x'}}, 'backend_args'),
        ({'type': 'Albumentations', 'transforms': [{'type': 'Nothing'}]}, "'Nothing'"),
    ],
)
def test_pipelines_that_ask_for_more_are_refused(step: dict, reason: str, tmp_path: Path) -> None:
    config_checkpoint(tmp_path / 'a.pth', TIMM_BACKBONE, pipeline=[step, *PIPELINE])
    with pytest.raises(UserError, match=reason) as caught:
        load_trained(str(tmp_path / 'a.pth'))
    assert '--model' in str(caught.value)


# ------------------------------------------------------------------------------------ preprocessing


@pytest.mark.parametrize('mode', ['center', 'squash', 'border'])
def test_a_description_is_what_timm_does(mode: str, tmp_path: Path) -> None:
    """Followed step by step with Pillow alone."""
    timm_checkpoint(tmp_path / 'a.pth')
    loaded = load_trained(str(tmp_path / 'a.pth'))
    loaded.data |= {'crop_mode': mode, 'input_size': (3, 48, 48), 'interpolation': 'bilinear'}
    found = describe_preprocessing(loaded)
    words = read_steps(found)
    scaled = math.floor(48 / 0.9)
    assert str(scaled) in words and '48 x 48 around the centre' in words
    if mode != 'border':
        assert as_timm_data(found, 'x')['crop_mode'] == mode
    if mode == 'squash':
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
        edge = (scaled - 48) // 2
        by_hand = image.resize((scaled, scaled), Image.Resampling.BILINEAR)
        by_hand = np.asarray(by_hand.crop((edge, edge, edge + 48, edge + 48))) / 255
        by_hand = (by_hand - found['mean']) / found['std']
        theirs = timm.data.create_transform(**loaded.data, is_training=False)(image)
        np.testing.assert_allclose(by_hand.transpose(2, 0, 1), theirs, atol=1e-5)


def test_what_timm_cannot_prepare_is_named() -> None:
    known = {'channels': 'RGB', 'size': [32, 32], 'mean': [0.5] * 3, 'std': [0.5] * 3}
    resize = {'step': 'resize', 'size': [40, 40], 'interpolation': 'bilinear', 'library': 'OpenCV'}
    yuv = {'step': 'LocalContrastYUV', 'radius': 3}
    with pytest.raises(UserError, match=r'LocalContrastYUV \(radius=3\)'):
        as_timm_data({**known, 'steps': [resize, yuv]}, 'net')
    with pytest.raises(UserError, match='blue first'):
        as_timm_data({**known, 'channels': 'BGR', 'steps': [resize]}, 'net')


# --------------------------------------------------------------------------------------- publishing


def published(loaded: LoadedModel, folder: Path) -> nn.Module:
    """Load what is published, and hold its scores to those of the model."""
    publish(loaded, folder, [])
    again = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    x = torch.randn(2, *loaded.input_size)
    with torch.no_grad():
        assert torch.equal(again(x), loaded.model(x))
    assert again.pretrained_cfg['label_names'] == list(CLASSES)
    return again


@pytest.mark.parametrize('method', METHODS)
def test_published_from_timm(method: str, tmp_path: Path) -> None:
    timm_checkpoint(tmp_path / 'a.pth', method)
    loaded = load_trained(str(tmp_path / 'a.pth'))
    again = published(loaded, tmp_path / 'birds')
    is_network = fgplugins.get_method(method).is_network
    assert type(again).__name__ == ('EfficientNet' if is_network else 'ComposedModel')
    back = load_trained(str(tmp_path / 'birds'))
    assert back.classes == list(CLASSES)
    for key in ('input_size', 'mean', 'std', 'crop_pct', 'crop_mode', 'interpolation'):
        assert back.data[key] == loaded.data[key], key


@pytest.mark.usefixtures('room')
@pytest.mark.parametrize('method', METHODS)
def test_published_from_a_config(method: str, tmp_path: Path) -> None:
    head = f'{fgplugins.get_method(method).__name__}Head'
    config_checkpoint(tmp_path / 'a.pth', TIMM_BACKBONE, head)
    published(load_trained(str(tmp_path / 'a.pth')), tmp_path / 'birds')
    data = load_trained(str(tmp_path / 'birds')).data
    assert data['input_size'] == (3, 32, 32) and data['crop_mode'] == 'squash'
    assert data['mean'] == pytest.approx((120 / 255, 110 / 255, 100 / 255), abs=1e-7)


@pytest.mark.usefixtures('room')
def test_networks_of_mmpretrain_are_refused(tmp_path: Path) -> None:
    backbone = {'type': 'ResNet', 'depth': 18, 'out_indices': (1, 2, 3)}
    config_checkpoint(tmp_path / 'a.pth', backbone)
    with pytest.raises(UserError, match=r"MMPretrain's own ResNet.*--backbone"):
        publish(load_trained(str(tmp_path / 'a.pth')), tmp_path / 'birds', [])
    assert not (tmp_path / 'birds').exists()


def test_the_card_runs(
    messy: Path, tmp_path: Path, run_tool: Run, capsys: pytest.CaptureFixture
) -> None:
    timm_checkpoint(tmp_path / 'model-3.pth.tar')
    (tmp_path / 'test.json').write_text(json.dumps({'metrics': {'accuracy/top1': 91.234}}))
    done = run_tool('publish', 'model-3.pth.tar', 'birds', '--results', 'test.json')
    assert done.returncode == 0 and 'scores equal bit for bit: birds' in done.stdout, done.stderr
    card = (tmp_path / 'birds/README.md').read_text()
    assert '| accuracy/top1 | 91.23 |' in card and 'license: unknown' in card
    assert '1. duck' in card and '`warn` on `test_efficientnet`, 3 classes' in card
    assert all(len(line) <= 160 for line in card.splitlines())
    snippet = card.split('```python\n')[1].split('```')[0]
    write_image(tmp_path / 'photo.jpg', (90, 70))
    exec(snippet, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and {line.split()[0] for line in lines} == set(CLASSES)
    done = run_tool('publish', 'model-3.pth.tar', 'birds')
    assert done.returncode == 2 and 'not empty' in done.stderr
    done = run_tool('predict', 'birds', 'photos/b.png', '--csv', 'a.csv', '--workers', '0')
    assert done.returncode == 0 and rows_of(tmp_path / 'a.csv')[0]['class'] in CLASSES


def test_results_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    log = tmp_path / '20260101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    entries = [{'loss': 1.0, 'step': 2}, {'accuracy/top1': 50.0, 'time': 2.0, 'step': 1}]
    entries += [{'accuracy/top1': 75.0, 'time': 2.0, 'step': 2}]
    log.write_text('\n'.join(map(json.dumps, entries)) + '\n{"accuracy')
    found = find_results(tmp_path / 'epoch_2.pth')
    assert found == [('accuracy/top1, validation while training, epoch 2', '75.00')]
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/summary.csv').write_text('epoch,eval_loss,eval_top1\n0,1,20.5\n1,1,30.5\n')
    found = find_results(tmp_path / 'run/checkpoint-1.pth.tar')
    assert found == [('eval_top1, validation while training, epoch 1', '30.5')]
    assert find_results(tmp_path / 'last.pth.tar') == []
    (tmp_path / 'a.json').write_text('[1]')
    with pytest.raises(UserError, match='no numbers'):
        read_results(tmp_path / 'a.json')


# ---------------------------------------------------------------------------------------- exporting


# as tests/test_export.py, some seconds each: here a network and a method on one are enough
@pytest.mark.parametrize(
    'method',
    [pytest.param(m, marks=[] if m in ('gap', 'warn') else [pytest.mark.slow]) for m in METHODS],
)
def test_exported(method: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip('onnx', reason='install the extra export')
    onnxruntime = pytest.importorskip('onnxruntime', reason='install the extra export')
    from fgplugins.serving.onnx_file import export_onnx

    timm_checkpoint(tmp_path / 'a.pth', method)
    loaded = load_trained(str(tmp_path / 'a.pth'))
    dynamic = method in ('clan', 'warn')
    assert export_onnx(loaded, tmp_path / 'a.onnx', dynamic_batch=dynamic) <= 1e-4
    assert [p.name for p in tmp_path.glob('a.onnx*')] == ['a.onnx']
    props = {p.key: p.value for p in onnx.load(tmp_path / 'a.onnx').metadata_props}
    assert json.loads(props['class_names']) == list(CLASSES)
    assert json.loads(props['preprocessing']) == describe_preprocessing(loaded)
    assert (props['method'], props['network']) == (method, NETWORK)
    session = onnxruntime.InferenceSession(str(tmp_path / 'a.onnx'))
    x = torch.randn(5 if dynamic else 1, *loaded.input_size)
    (scores,) = session.run(['scores'], {'images': x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(scores), loaded.model(x), atol=1e-4, rtol=1e-4)


def test_exports_that_differ_are_not_written(
    tmp_path: Path, run_tool: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('onnxscript', reason='install the extra export')
    from fgplugins.serving import onnx_file

    timm_checkpoint(tmp_path / 'a.pth', 'gap')

    class Program:
        model = SimpleNamespace(metadata_props={})

        def save(self, path: str, external_data: bool) -> None:
            Path(path).write_bytes(b'x')

    monkeypatch.setattr(torch.onnx, 'export', lambda *_, **__: Program())
    monkeypatch.setattr(onnx_file, '_difference', lambda *_: 0.5)
    done = run_tool('export', 'a.pth', 'a.onnx')
    assert done.returncode == 2 and 'differ from those of PyTorch by 5.0e-01' in done.stderr
    assert not list(tmp_path.glob('*.onnx*'))
    assert 'must end in .onnx' in run_tool('export', 'a.pth', 'a.pt').stderr
    find = 'importlib.util.find_spec'
    monkeypatch.setattr(find, lambda name: None if name == 'onnxscript' else object())
    done = run_tool('export', 'a.pth', 'a.onnx')
    assert "exporting needs onnxscript: pip install 'fgplugins[export]'" in done.stderr


@pytest.mark.filterwarnings('ignore::ResourceWarning')  # timm leaves its files open
def test_the_timing_script(tmp_path: Path, run_tool: Run) -> None:
    done = run_tool(
        'time_predict', '--images', '6', '--batch-size', '4', '--workers', '0', '--rounds', '1',
        '--network', NETWORK, '--size', '80', '60', '--json', 'a.json', folder='scripts',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'a.json').read_text())
    assert found['images'] == 6 and found['ratio'] > 0


def test_help_is_of_light_modules() -> None:
    """What the tools import before they know what to do."""
    root = Path(__file__).parent.parent
    for name in ('predict', 'export', 'publish'):
        names = runpy.run_path(str(root / f'tools/{name}.py'), run_name='tool')
        modules = {getattr(value, '__module__', None) for value in names.values()}
        ours = {m for m in modules if str(m).startswith('fgplugins')}
        assert ours <= {'fgplugins.errors', 'fgplugins.utils.command_line'}
