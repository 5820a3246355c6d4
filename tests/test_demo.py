"""The demo: what it says of an image, what it refuses, and its page in a browser."""

from __future__ import annotations

import base64
import io
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from helpers import CLASSES, loop_softmax
from PIL import Image
from test_serving import TIMM_BACKBONE, config_checkpoint, messy, timm_checkpoint

pytest.importorskip('matplotlib')

import fgplugins
from fgplugins.demo import server
from fgplugins.demo.looking import HEADS, Look, Trained, look, open_trained
from fgplugins.errors import UserError
from fgplugins.serving.models import load_trained
from fgplugins.serving.publishing import publish
from fgplugins.utils.drawing import lay_over, resize_map
from fgplugins.utils.lettering import shortened
from fgplugins.zoo_timm.deploy import deployed_checkpoint

ROOT = Path(__file__).parent.parent
CPU = torch.device('cpu')
Run = Callable[..., subprocess.CompletedProcess]
__all__ = ['messy']  # a fixture


class Planted:
    """What runs code when a pickle is read."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path('it_ran'),)


@pytest.fixture
def picture(messy: Path) -> Path:
    return messy / 'b.png'


def expected(file: Path, picture: Path, **asked: object) -> tuple[dict[str, float], list]:
    """Probabilities and pictures by the model's own `show`."""
    loaded = load_trained(str(file))
    image, inputs = loaded.read_image(str(picture))
    scores, masks = loaded.show(inputs, **asked)
    p = loop_softmax(scores[0].tolist())
    maps = [lay_over(image, mask.numpy()) for level in masks for mask in level[0]]
    return dict(zip(CLASSES, p, strict=True)), [image, *maps]


def assert_looks(found: Look, p: dict[str, float], pictures: list) -> None:
    assert list(found.probabilities) == sorted(p, key=lambda name: -p[name])
    assert found.probabilities == pytest.approx(p, abs=1e-5)
    assert len(found.pictures) == len(pictures)
    for (ours, _), theirs in zip(found.pictures, pictures, strict=True):
        assert np.array_equal(ours, theirs)


def test_a_map_is_laid_over_an_image() -> None:
    """Pixel by pixel: 0.45 of grey and 0.55 of the colour, each stretched to its own range."""
    from matplotlib import colormaps

    image = np.random.default_rng(0).integers(10, 99, (5, 7, 3), dtype=np.uint8)
    mask = np.random.default_rng(1).random((2, 3))
    found, large = lay_over(image, mask), resize_map(mask, 5, 7)
    greys = [[sum(map(int, pixel)) / 3 for pixel in row] for row in image]
    low, high = min(map(min, greys)), max(map(max, greys))
    for y in range(5):
        for x in range(7):
            grey, colour = (greys[y][x] - low) / (high - low), colormaps['turbo'](large[y, x])
            for c in range(3):
                assert found[y, x, c] == pytest.approx(
                    255 * (0.45 * grey + 0.55 * colour[c]), abs=0.51
                )
    assert lay_over(image[:, :, :1], np.ones((1, 1))).shape == (5, 7, 3)


@pytest.mark.parametrize('method', fgplugins.list_methods())
def test_what_a_model_makes_of_an_image(method: str, picture: Path, tmp_path: Path) -> None:
    timm_checkpoint(tmp_path / 'a.pth', method)
    trained = open_trained(str(tmp_path / 'a.pth'), CPU)
    assert trained.name == f'{method} on test_efficientnet'
    found = look(trained, str(picture), 5)
    assert_looks(found, *expected(tmp_path / 'a.pth', picture))
    assert found.pictures[0][1] == 'what it sees' and found.message == ''
    assert found.pictures[1][1].startswith('level 1, ')
    assert len(look(trained, str(picture), 2).probabilities) == 2
    assert trained.takes_classes == (method == 'siou')


def test_the_maps_of_a_class(picture: Path, tmp_path: Path) -> None:
    timm_checkpoint(tmp_path / 'a.pth', 'siou')
    trained = open_trained(str(tmp_path / 'a.pth'), CPU)
    found = look(trained, str(picture), 5, [2])
    assert_looks(found, *expected(tmp_path / 'a.pth', picture, classes=[2]))
    assert [title for _, title in found.pictures[1:]] == ['level 1, eagle', 'level 2, eagle']


def test_only_some_heads_are_shown(picture: Path, tmp_path: Path) -> None:
    timm_checkpoint(tmp_path / 'a.pth')
    trained = open_trained(str(tmp_path / 'a.pth'), CPU)
    show = trained.loaded.show
    trained.loaded.show = lambda x: (show(x)[0], [m.repeat(1, 3, 1, 1) for m in show(x)[1]])
    found = look(trained, str(picture), 5)
    assert len(found.pictures) == 1 + 3 * HEADS
    assert found.message == f'{HEADS} heads of each level are shown'


def test_what_has_no_map_says_so(picture: Path, tmp_path: Path) -> None:
    """A plain network; and a network whose scores rest on no position of its last map."""
    plain = timm.create_model('test_resnet', num_classes=3).eval()
    data = timm.data.resolve_model_data_config(plain)
    saved = deployed_checkpoint(plain, 'test_resnet', {'num_classes': 3}, CLASSES, data)
    torch.save(saved, tmp_path / 'plain.pth')
    trained = open_trained(str(tmp_path / 'plain.pth'), CPU)
    assert trained.name == 'test_resnet, a plain network' and not trained.takes_classes
    found = look(trained, str(picture), 5)
    assert len(found.probabilities) == 3 and len(found.pictures) == 1
    assert found.message == 'no map: a plain network has no attention to show'

    timm_checkpoint(tmp_path / 'a.pth', 'gap')
    trained = open_trained(str(tmp_path / 'a.pth'), CPU)

    def show(_: object) -> None:
        raise fgplugins.methods.NoClassMap('the class token alone is read')

    trained.loaded.show = show
    found = look(trained, str(picture), 5)
    assert len(found.probabilities) == 3 and len(found.pictures) == 1
    assert found.message == 'no map: the class token alone is read'


@pytest.mark.usefixtures('room')
def test_every_kind_of_checkpoint_opens(picture: Path, tmp_path: Path) -> None:
    """A file of either zoo, a published folder, and the folder of a comparison."""
    config_checkpoint(tmp_path / 'epoch_1.pth', TIMM_BACKBONE)
    timm_checkpoint(tmp_path / 'a.pth')
    publish(load_trained(str(tmp_path / 'a.pth')), tmp_path / 'birds', [])
    (tmp_path / 'comparison/report').mkdir(parents=True)
    (tmp_path / 'comparison/comparison.json').write_text('{}')
    shutil.copy(tmp_path / 'a.pth', tmp_path / 'comparison/report/best.pth')
    for name in ('epoch_1.pth', 'a.pth', 'birds', 'comparison'):
        trained = open_trained(str(tmp_path / name), CPU)
        assert trained.file == str(tmp_path / name) and trained.classes == list(CLASSES)
        assert trained.name == 'warn on test_efficientnet'
        assert_looks(look(trained, str(picture), 5), *expected(tmp_path / name, picture))


def test_what_is_wrong_with_an_image_is_said(messy: Path, tmp_path: Path) -> None:
    timm_checkpoint(tmp_path / 'a.pth')
    trained = open_trained(str(tmp_path / 'a.pth'), CPU)
    Image.fromarray(np.full((9, 9), 7.5, np.float32)).save(messy / 'depth.tif')
    for name, reason in {
        'broken.jpg': 'broken.jpg cannot be read: its content is no image that can be decoded',
        'empty.png': 'empty.png cannot be read: it is empty',
        'depth.tif': 'depth.tif cannot be read: its floating-point values are between 7.5 and 7.5: '
        'scale them to between 0 and 1, or save it with 8 bits',
    }.items():
        assert look(trained, str(messy / name), 5) == Look(message=reason)

    def fail(path: str) -> None:
        raise RuntimeError(f'no layer for {path}')

    trained.loaded.read_image = fail
    found = look(trained, str(messy / 'b.png'), 5)
    assert found == Look(message='b.png: no layer for b.png')


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'P', 'RGBA', '1', 'I;16'])
def test_images_of_other_modes_are_read(mode: str, tmp_path: Path) -> None:
    timm_checkpoint(tmp_path / 'a.pth')
    trained = open_trained(str(tmp_path / 'a.pth'), CPU)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8))
    image = image.convert('I').convert('I;16') if mode == 'I;16' else image.convert(mode)
    image.save(tmp_path / 'a.tif')
    found = look(trained, str(tmp_path / 'a.tif'), 5)
    assert_looks(found, *expected(tmp_path / 'a.pth', tmp_path / 'a.tif'))


# -------------------------------------------------------------------------------- the command line


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list:
    """The pages that would be served, without Gradio; the settings of Gradio are put back."""
    for name in ('GRADIO_ANALYTICS_ENABLED', 'GRADIO_TEMP_DIR', 'HF_HUB_DISABLE_TELEMETRY',
                 'HF_HUB_OFFLINE', 'NO_PROXY', 'no_proxy'):  # fmt: skip
        monkeypatch.setenv(name, 'own')
    pages: list = []
    page = SimpleNamespace(build_page=lambda models, top_k: models)
    monkeypatch.setitem(sys.modules, 'fgplugins.demo.page', page)
    monkeypatch.setattr(server, 'need_gradio', lambda: None)
    monkeypatch.setattr(server, 'serve', lambda *given: pages.append((*given, dict(os.environ))))
    return pages


def test_the_command(started: list, tmp_path: Path, run_tool: Run) -> None:
    timm_checkpoint(tmp_path / 'a.pth')
    done = run_tool('demo', 'a.pth', 'a.pth', '--port', '8123')
    assert done.returncode == 0, done.stderr
    ((models, host, port, settings),) = started
    assert [type(model) for model in models] == [Trained, Trained]
    assert (host, port) == ('127.0.0.1', 8123)
    assert settings['GRADIO_ANALYTICS_ENABLED'] == 'False' and settings['HF_HUB_OFFLINE'] == '1'
    assert settings['NO_PROXY'] == 'own,127.0.0.1,localhost'
    assert not Path(settings['GRADIO_TEMP_DIR']).exists(), 'images are not kept'


@pytest.mark.parametrize('place', ['file', 'folder', 'comparison'])
def test_a_planted_checkpoint_is_refused(
    place: str, started: list, tmp_path: Path, run_tool: Run
) -> None:
    """In words, before there is a server; nothing in it runs."""
    timm_checkpoint(tmp_path / 'a.pth')
    planted = {'arch': 'warn', 'state_dict': Planted()}
    names = {'file': 'b.pth', 'folder': 'birds', 'comparison': 'birds'}
    if place == 'file':
        torch.save(planted, tmp_path / 'b.pth')
    elif place == 'folder':
        publish(load_trained(str(tmp_path / 'a.pth')), tmp_path / 'birds', [])
        (tmp_path / 'birds/model.safetensors').unlink()
        torch.save(planted, tmp_path / 'birds/pytorch_model.bin')
    else:
        (tmp_path / 'birds/report').mkdir(parents=True)
        (tmp_path / 'birds/comparison.json').write_text('{}')
        (tmp_path / 'birds/report/best.pth').write_bytes(pickle.dumps(planted, 2))
    done = run_tool('demo', 'a.pth', names[place])
    assert done.returncode == 2 and started == []
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith('error: ') and names[place] in line and 'Traceback' not in line
    assert not (tmp_path / 'it_ran').exists()
    pickle.loads(pickle.dumps(planted))  # had it been read otherwise
    assert (tmp_path / 'it_ran').exists()


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['--top-k', '0'], '--top-k 0: must be at least 1'),
        (['--port', '70000'], '--port 70000: must be between 1 and 65535'),
        (['--device', 'nonsense'], '--device nonsense: '),
        (['nowhere.pth'], "checkpoint 'nowhere.pth' is not a file"),
    ],
)
def test_the_command_refuses(
    arguments: list, reason: str, started: list, tmp_path: Path, run_tool: Run
) -> None:
    timm_checkpoint(tmp_path / 'a.pth')
    done = run_tool('demo', 'a.pth', *arguments)
    assert done.returncode == 2 and reason in done.stderr and started == []
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_the_extra(run_tool: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.importlib.util, 'find_spec', lambda name: None)
    done = run_tool('demo', 'a.pth')
    assert done.returncode == 2
    assert done.stderr == (
        "error: the demo needs Gradio and matplotlib: pip install 'fgplugins[demo]'\n"
    )


@pytest.mark.parametrize(
    ('host', 'loopback'),
    [('127.0.0.1', True), ('localhost', True), ('::1', True), ('[::1]', True), ('127.1.2.3', True),
     ('0.0.0.0', False), ('::', False), ('192.168.0.7', False), ('example.org', False)],
)  # fmt: skip
def test_who_can_reach_an_address(host: str, loopback: bool) -> None:
    assert server.is_loopback(host) == loopback


@pytest.mark.parametrize('host', ['127.0.0.1', '0.0.0.0'])
def test_serving(host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Another host than this machine is said to be one; nothing is shared; Ctrl-C ends it."""
    theme = SimpleNamespace(Default=lambda **given: given)
    monkeypatch.setitem(sys.modules, 'gradio', SimpleNamespace(themes=theme))
    given: list = []
    page = SimpleNamespace(
        launch=lambda **options: (given.append(options), f'http://{host}:1/', None),
        close=lambda verbose: given.append('closed'),
    )

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server.time, 'sleep', interrupt)
    monkeypatch.setattr(server.signal, 'signal', lambda *_: None)
    server.serve(page, host, 1)
    options, closed = given
    assert (options['server_name'], options['server_port']) == (host, 1) and closed == 'closed'
    assert options['share'] is False and options['mcp_server'] is False
    assert options['theme']['font'] == ['system-ui', 'sans-serif']
    lines = capsys.readouterr().out.splitlines()
    note = f'note: --host {host}: anybody who reaches this machine there can use the demo'
    assert (note in lines) == (host == '0.0.0.0')
    assert lines[-2:] == [f'the demo is at http://{host}:1/ until Ctrl-C', 'the demo has ended']


def test_addresses_that_cannot_be_served_at(started: list, run_tool: Run) -> None:
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        port = other.getsockname()[1]
        taken = run_tool('demo', 'a.pth', '--port', str(port))
    assert taken.stderr == (
        f'error: --port {port}: is taken: another would work, or none to take a free one\n'
    )
    strange = run_tool('demo', 'a.pth', '--host', '192.0.2.1')
    assert strange.stderr == (
        'error: --host 192.0.2.1: is no address of this machine: 127.0.0.1 would work\n'
    )
    assert taken.returncode == strange.returncode == 2 and started == []


def test_when_gradio_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    theme = SimpleNamespace(Default=lambda **given: given)
    monkeypatch.setitem(sys.modules, 'gradio', SimpleNamespace(themes=theme))

    def launch(**_: object) -> None:
        raise ValueError('localhost is not accessible')

    with pytest.raises(UserError, match=r'^--host localhost --port 80: localhost is not access'):
        server.serve(SimpleNamespace(launch=launch), 'localhost', 80)


# ------------------------------------------------------------------------------------- in a browser


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts demos in processes of their own, and gives their addresses."""
    if not server.importlib.util.find_spec('gradio'):
        pytest.skip("no Gradio here: pip install 'fgplugins[demo]'")
    processes: list[subprocess.Popen] = []

    def start(*arguments: str) -> str:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / 'tools/demo.py'), *arguments],
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'TMPDIR': str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        ended = threading.Timer(120, process.kill)
        ended.start()
        lines = []
        for line in process.stdout:
            lines.append(line)
            found = re.search(r'the demo is at (\S+) until', line)
            if found:
                ended.cancel()
                return found[1]
        ended.cancel()
        return ''.join(lines)

    yield start
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode in (0, 2)
    assert not list(tmp_path.glob('fgplugins_demo_*')), 'images are not kept'


def drop(page: object, path: Path) -> None:
    """Drop a file on the page, as a mouse does."""
    content = base64.b64encode(path.read_bytes()).decode()
    data = page.evaluate_handle(
        """([content, name]) => {
            const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name));
            return data;
        }""",
        [content, path.name],
    )
    page.dispatch_event('#image button', 'drop', {'dataTransfer': data})


def shown_pictures(page: object, column: str, count: int, title: str) -> list[np.ndarray]:
    """The pictures of a column, as they are delivered, once there are so many under a title."""
    page.wait_for_function(
        """([column, count, title]) => {
            const captions = [...document.querySelectorAll(column + ' .caption-label')];
            return captions.length == count
                && captions[1].textContent.trim() == title
                && !document.querySelector(column + ' .generating');
        }""",
        arg=[column, count, title],
        timeout=30000,
    )
    files = page.evaluate(
        """column => Promise.all(
            [...document.querySelectorAll(column + ' .thumbnail-item img')].map(async image => {
                const answer = await fetch(image.src);
                const bytes = new Uint8Array(await answer.arrayBuffer());
                return btoa(String.fromCharCode(...bytes));
            })
        )""",
        column,
    )
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(file)))) for file in files]


# in a process of its own: Gradio leaves a loop of events behind
EVENTS = """
import pickle, sys
import torch
from fgplugins.demo.looking import open_trained
from fgplugins.demo.page import OWN, build_page

picture, broken = sys.argv[1:]
page = build_page([open_trained(f'{m}.pth', torch.device('cpu')) for m in ('gap', 'siou')], 2)
dropped, chosen = page.fns.values()
assert dropped.api_visibility == chosen.api_visibility == 'private'
found = dropped.fn(picture, OWN, OWN)
columns = [found[:3], found[3:]]
columns += [chosen.fn(picture, 2), chosen.fn(broken, OWN), chosen.fn(None, OWN)]
with open('columns.pkl', 'wb') as file:
    pickle.dump([(m.visible, m.value, p, pictures) for m, p, pictures in columns], file)
"""


@pytest.mark.slow
def test_the_page_without_a_browser(messy: Path, picture: Path, tmp_path: Path) -> None:
    """What its events call, and that nobody can call them in another way."""
    if not server.importlib.util.find_spec('gradio'):
        pytest.skip("no Gradio here: pip install 'fgplugins[demo]'")
    for method in ('gap', 'siou'):
        timm_checkpoint(tmp_path / f'{method}.pth', method)
    (messy / '<b>.jpg').write_text('no picture')
    subprocess.run(
        [sys.executable, '-c', EVENTS, str(picture), str(messy / '<b>.jpg')],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'GRADIO_ANALYTICS_ENABLED': 'False'},
        check=True,
    )
    *both, asked, broken, nothing = pickle.loads((tmp_path / 'columns.pkl').read_bytes())
    for method, (visible, _, p, pictures) in zip(('gap', 'siou'), both, strict=True):
        assert not visible
        of_all, theirs = expected(tmp_path / f'{method}.pth', picture)
        best = dict(sorted(of_all.items(), key=lambda item: -item[1])[:2])
        assert_looks(Look(p, pictures), best, theirs)
    assert [title for _, title in asked[3][1:]] == ['level 1, eagle', 'level 2, eagle']
    visible, message, p, pictures = broken
    assert visible and '&lt;b&gt;.jpg cannot be read' in message and (p, pictures) == (None, [])
    assert nothing[0] is False and nothing[2:] == (None, [])


@pytest.mark.slow
def test_the_page_in_a_browser(
    browser: object, running: Callable, messy: Path, picture: Path, tmp_path: Path
) -> None:
    """Two checkpoints side by side; nothing is asked of another machine."""
    name = 'a&b <img src=x onerror=alert(1)>.pth'
    timm_checkpoint(tmp_path / name)
    timm_checkpoint(tmp_path / 'siou.pth', 'siou')
    url = running(name, 'siou.pth')
    assert re.fullmatch(r'http://127\.0\.0\.1:\d+/', url)
    page = browser.new_page(viewport={'width': 1200, 'height': 900})
    elsewhere, wrong = [], []
    page.on('console', lambda line: line.type == 'error' and wrong.append(line.text))
    page.on('pageerror', lambda error: wrong.append(str(error)))

    def only_here(route: object) -> None:
        if route.request.url.startswith((url, 'data:', 'blob:')):
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    page.route('**/*', only_here)
    page.goto(url)
    page.wait_for_selector('#image button')
    drop(page, picture)
    for number, file, method, title in (
        (0, name, 'warn', 'level 1, head 1'),
        (1, 'siou.pth', 'siou', 'level 1, predicted'),
    ):
        column = f'#model-{number}'
        p, pictures = expected(tmp_path / file, picture)
        found = shown_pictures(page, column, len(pictures), title)
        for ours, theirs in zip(found, pictures, strict=True):
            assert np.array_equal(ours, theirs)
        text = page.inner_text(column)
        assert text.startswith(f'{method} on test_efficientnet') and shortened(file) in text
        best = sorted(p, key=lambda one: -p[one])
        said = re.findall(r'^(crow|duck|eagle)\n+(\d+)%$', text, re.MULTILINE)
        assert [one for one, _ in said] == best
        assert [int(share) for _, share in said] == pytest.approx(
            [100 * p[one] for one in best], abs=0.51
        )
    assert not page.is_visible('#model-0 [aria-label="maps of"]')

    page.click('#model-1 [aria-label="maps of"]')
    page.click('[role=option][aria-label=eagle]')
    _, pictures = expected(tmp_path / 'siou.pth', picture, classes=[2])
    found = shown_pictures(page, '#model-1', len(pictures), 'level 1, eagle')
    assert all(np.array_equal(a, b) for a, b in zip(found, pictures, strict=True))

    page.click('#image [aria-label="Clear"]')
    page.wait_for_selector('#image [data-testid=upload-text]')
    drop(page, messy / 'broken.jpg')
    for number in (0, 1):
        page.wait_for_function(
            """([column, text]) =>
                document.querySelector(column + ' [role=alert]')?.textContent == text
                && !document.querySelector(column + ' .thumbnail-item')
            """,
            arg=[
                f'#model-{number}',
                'broken.jpg cannot be read: its content is no image that can be decoded',
            ],
        )
    assert elsewhere == [] and wrong == []

    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(('127.0.0.2', int(url.rstrip('/').rsplit(':', 1)[1])))  # at 127.0.0.1 alone
    torch.save({'arch': 'warn', 'state_dict': Planted()}, tmp_path / 'planted.pth')
    (line,) = running('siou.pth', 'planted.pth').strip().splitlines()
    assert line.startswith("error: checkpoint 'planted.pth'") and not (tmp_path / 'it_ran').exists()
