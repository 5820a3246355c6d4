"""The page of a comparison in a real browser without a network: Chromium, by Playwright."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from page_helpers import draw_images, make_comparison, results_of, save_network, script_content

sync_api = pytest.importorskip('playwright.sync_api', reason='of the extra test')
pytest.importorskip('mmpretrain', reason='of the MMPretrain side')
pytest.importorskip('statsmodels', reason='of the extra compare')

from fgplugins.page import command
from fgplugins.page.command import Settings, write_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = [
    '<img src=x onerror=alert(1)>',
    'a&b',
    '"quoted"',
    '</script><b>bold</b>',
    ' '.join(['翠鳥'] * 12),
]
LIMIT = 200  # ms from an event to what it shows


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a file; in the end nothing has been asked of a network or written to the console."""
    wrong, contexts = [], []

    def opened(path: Path, width: int = 1200, scheme: str = 'light') -> Page:
        viewport = {'width': width, 'height': 800}
        context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on('console', lambda message: wrong.append(f'{message.type}: {message.text}'))
        page.on('pageerror', lambda error: wrong.append(str(error)))
        page.on('requestfailed', lambda request: wrong.append(f'failed: {request.url}'))
        page.on('dialog', lambda dialog: wrong.append(f'dialog: {dialog.message}'))
        page.on('request', lambda request: request.url.startswith(('file:', 'data:'))
                or wrong.append(request.url))  # fmt: skip
        page.goto(path.as_uri())
        page.wait_for_selector('#images .image')
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison with maps and its page."""
    folder = tmp_path_factory.mktemp('page')
    network = save_network(folder / 'network')
    images = draw_images(folder / 'images', 82)
    rows = ('gap', 'warn', 'siou')
    costs = {(network, row): {'macs': 4e8 + 1e7 * i} for i, row in enumerate(rows)}
    made = make_comparison(folder / 'out', NAMES, images, rows, backbone=network, costs=costs)
    write_page([made], settings=Settings(maps=30))
    return made


@pytest.fixture(scope='module')
def index(root: Path) -> Path:
    return root / 'report' / 'index.html'


def data_of(root: Path) -> dict[str, Any]:
    return script_content(root / 'report' / 'page' / 'data.js')['comparisons'][0]


def choose_image(page: Page, place: int) -> None:
    """Click the image's thumbnail, on whichever page of the list it is."""
    while page.locator(f'#image-{place}').count() == 0:
        page.click('#page-after')
    page.click(f'#image-{place}')


def count_of(page: Page) -> int:
    return int(page.inner_text('#count').split(' of ')[0])


PIXELS = """c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"""


def test_the_chosen_image_and_method_show_their_map(
    root: Path, index: Path, visit: Callable[..., Page]
) -> None:
    matplotlib = pytest.importorskip('matplotlib')
    viridis = matplotlib.colormaps['viridis']
    page, data = visit(index), data_of(root)
    mapped = [i for i, flag in enumerate(data['maps']) if flag == '1']
    for place in (mapped[2], mapped[-3]):
        choose_image(page, place)
        assert page.inner_text('#file') == data['files'][place]
        source = root / 'report' / 'page' / '0' / 'maps' / f'{place}.js'
        (maps,) = script_content(source)
        for method in ('siou', 'warn'):
            page.select_option('#method', method)
            choose_image(page, place)
            page.wait_for_selector(f'#maps canvas[data-method="{method}"]')
            expected = [('gap', maps['gap']['levels'][0]['heads'][0])]
            expected += [(method, h) for level in maps[method]['levels'] for h in level['heads']]
            expected += [
                (f'{method}, rivals', head)
                for level in maps[method].get('rivals', ())
                for head in level['heads']
            ]
            canvases = page.locator('#maps canvas').all()
            assert len(canvases) == len(expected)
            for canvas, (owner, head) in zip(canvases, expected, strict=True):
                assert canvas.get_attribute('data-method') == owner
                assert canvas.get_attribute('data-title') == head['title']
                shown = np.array(canvas.evaluate(PIXELS)).reshape(-1, 4)
                cells = np.frombuffer(base64.b64decode(head['cells']), np.uint8)
                wanted = viridis(cells, bytes=True).astype(int)
                assert np.abs(shown - wanted).max() <= 3
        image = page.locator('#maps .stack img').first
        assert image.get_attribute('src') == f'page/0/views/0_{place}.webp'
        page.wait_for_function('document.querySelector("#maps .stack img").naturalWidth === 64')
        why = page.inner_text('#maps .note')
        assert why == 'no map: the maps of warn are not those of a single class'


def test_the_strength_of_the_map_is_the_sliders(index: Path, visit: Callable[..., Page]) -> None:
    page = visit(index)
    page.check('#with-maps')
    page.wait_for_selector('#maps canvas')
    page.fill('#strength', '0')
    shown = page.locator('#maps canvas').first.evaluate('c => getComputedStyle(c).opacity')
    assert float(shown) == 0


def test_filters_count_what_the_results_count(
    root: Path, index: Path, visit: Callable[..., Page]
) -> None:
    page = visit(index)
    rows = results_of(root)['backbones'][0]['rows']
    for row in rows[1:]:
        compared = row['comparison']
        page.select_option('#method', row['method'])
        for show, name in (('fixed', 'fixed'), ('broken', 'broken')):
            page.select_option('#show', show)
            page.select_option('#runs', 'every')
            assert count_of(page) == len(compared[f'{name}_always'])
            label = page.inner_text(f'#show option[value="{show}"]')
            assert label.endswith(f'({len(compared[f"{name}_always"])})')
            total = 0
            for seed in compared['seeds']:
                page.select_option('#runs', str(seed))
                total += count_of(page)
            assert total == pytest.approx(compared[name] * len(compared['seeds']))
        page.select_option('#show', 'all')
        assert count_of(page) == compared['images']
    page.select_option('#method', 'gap')
    page.select_option('#show', 'right')
    page.select_option('#runs', '1')
    (run,) = [run for run in rows[0]['runs'] if run['seed'] == 1]
    assert count_of(page) == round(run['test']['top1'] / 100 * 80)


def test_a_confusion_leads_to_its_images(
    root: Path, index: Path, visit: Callable[..., Page]
) -> None:
    page, data = visit(index), data_of(root)
    row = results_of(root)['backbones'][0]['rows'][1]
    pair = row['pairs']['mended'][0]
    page.click('.changes > summary')
    page.locator('[data-go][data-taken]').first.click()
    truth, taken = (data['classes'].index(pair[key]) for key in ('truth', 'taken_for'))
    rows = {row['method']: np.array(row['predicted']) for row in data['backbones'][0]['rows']}
    said = (rows['gap'] == taken).any(0) | (rows[row['method']] == taken).any(0)
    wanted = (said & (np.array(data['labels']) == truth)).sum()
    assert count_of(page) == wanted > 0
    assert page.input_value('#method') == row['method']
    # in one run each, as many as the table says in the mean
    kinds = {show: 0.0 for show in ('gap', row['method'])}
    for method in kinds:
        of_class = rows[method][:, np.array(data['labels']) == truth]
        kinds[method] = (of_class == taken).sum() / len(rows[method])
    assert kinds['gap'] == pytest.approx(pair['control'])
    assert kinds[row['method']] == pytest.approx(pair['method'])


def test_names_are_text(root: Path, index: Path, visit: Callable[..., Page]) -> None:
    page, data = visit(index), data_of(root)
    options = page.locator('#truth option').all_inner_texts()
    assert options[1:] == NAMES
    for y, name in enumerate(NAMES):
        page.select_option('#truth', str(y))
        assert count_of(page) == data['labels'].count(y)
        text = page.locator('#class-of').text_content()
        assert text == f'class: {name}'
        titles = {one.get_attribute('title') for one in page.locator('#images .image').all()}
        assert titles == {name}
    assert page.locator('main b, img[src="x"]').count() == 0


def test_the_keyboard_reaches_everything(index: Path, visit: Callable[..., Page]) -> None:
    page = visit(index)
    wanted = page.evaluate("""() => [...document.querySelectorAll(
        'a[href], button:not(:disabled), select, input, summary, [tabindex="0"]')]
        .filter(e => e.checkVisibility()).length""")
    seen: dict[int, bool] = {}
    for _ in range(2 * wanted):
        page.keyboard.press('Tab')
        number, outlined = page.evaluate("""() => {
            const e = document.activeElement;
            if (e === document.body) return [-1, true];
            window.met = window.met || [];
            if (!met.includes(e)) met.push(e);
            const s = getComputedStyle(e);
            return [met.indexOf(e), s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 1.5];
        }""")
        if number < 0:
            break
        seen[number] = outlined
    assert len(seen) >= wanted
    assert all(seen.values()), 'the focus is visible'

    page.focus('#images [tabindex="0"]')
    places = [int(one.get_attribute('data-image')) for one in page.locator('#images .image').all()]

    def focused() -> int:
        return int(page.evaluate('document.activeElement.dataset.image'))

    columns = page.evaluate(
        "getComputedStyle(document.getElementById('images')).gridTemplateColumns.split(' ').length"
    )
    assert columns > 1
    for key, wanted_place in (
        ('Home', 0), ('ArrowRight', 1), ('ArrowDown', 1 + columns), ('ArrowLeft', columns),
        ('ArrowUp', 0),
        ('End', 79), ('Home', 0), ('PageDown', 60), ('PageUp', 0), ('ArrowLeft', 0),
    ):  # fmt: skip
        page.keyboard.press(key)
        assert focused() == (places[wanted_place] if wanted_place < 60 else wanted_place)
        assert page.locator('[aria-selected="true"]').get_attribute('id') == f'image-{focused()}'
    page.focus('#strength')
    before = page.inner_text('#file')
    page.keyboard.press('j')
    assert page.inner_text('#file') != before
    page.keyboard.press('k')
    assert page.inner_text('#file') == before


@pytest.mark.parametrize('width', [375, 320])
def test_a_phone_scrolls_down_only(index: Path, visit: Callable[..., Page], width: int) -> None:
    page = visit(index, width)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.check('#with-maps')
    page.wait_for_selector('#maps canvas')
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    page.click('#images .image >> nth=2')
    assert page.locator('#viewer').evaluate('e => Math.abs(e.getBoundingClientRect().top)') < 60


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [375, 1200])
def test_axe_finds_nothing(
    index: Path, visit: Callable[..., Page], scheme: str, width: int
) -> None:
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='of the extra test')
    page = visit(index, width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.check('#with-maps')
    page.wait_for_selector('#maps canvas')
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_the_first_image_has_a_map_where_one_has(
    root: Path, tmp_path: Path, visit: Callable[..., Page]
) -> None:
    write_page([root], tmp_path / 'few', Settings(maps=1, seed=3))
    page = visit(tmp_path / 'few' / 'index.html')
    page.wait_for_selector('#maps canvas')
    assert count_of(page) == 80
    page.check('#with-maps')
    shown = page.locator('[aria-selected="true"]').get_attribute('id')
    assert shown != 'image-0', 'or this shows nothing'
    page.uncheck('#with-maps')
    page.click('#reset')
    assert page.locator('[aria-selected="true"]').get_attribute('id') == shown


def test_the_page_as_one_file(root: Path, tmp_path: Path, visit: Callable[..., Page]) -> None:
    one = write_page([root], tmp_path, Settings(maps=5, single_file=True))
    page = visit(one)
    page.check('#with-maps')
    page.wait_for_selector('#maps canvas')
    page.wait_for_function('document.querySelector("#maps .stack img").naturalWidth === 64')
    assert count_of(page) == 5


def test_two_comparisons_on_one_page(
    root: Path, tmp_path: Path, visit: Callable[..., Page]
) -> None:
    images = draw_images(tmp_path / 'images', 12)
    other = make_comparison(tmp_path / 'out', ['x', 'y'], images, ('gap',))
    write_page([root, other], tmp_path / 'both', Settings(maps=5))
    page = visit(tmp_path / 'both' / 'index.html')
    assert count_of(page) == 80
    page.select_option('#part', '1')
    assert count_of(page) == 10
    assert page.inner_text('#file').endswith('.png')
    assert page.inner_text('#maps .note').startswith('no map: its checkpoint cannot be read:')
    assert page.locator('#truth option').all_inner_texts() == ['any', 'x', 'y']


@pytest.mark.slow
def test_thousands_of_images_stay_responsive(
    tmp_path: Path, visit: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = draw_images(tmp_path / 'one', 1, side=24)
    (tmp_path / 'images').mkdir()
    images = [str(tmp_path / 'images' / f'{i:05}.png') for i in range(5002)]
    for path in images:
        os.link(first, path)
    monkeypatch.setattr(command, 'checked_folder', lambda *_: {'findings': []})
    names = [f'class {i}' for i in range(200)]
    rows = ('gap', 'warn', 'att2', 'clan', 'art')
    root = make_comparison(tmp_path / 'out', names, images, rows, seeds=5)
    write_page([root], settings=Settings(maps=0))
    page = visit(root / 'report' / 'index.html')
    assert count_of(page) == 5000

    def time_of(action: str) -> float:
        """The fastest of three: other processes may hold the machine up."""
        script = f"""() => {{
            const start = performance.now();
            {action};
            document.body.getBoundingClientRect();
            return performance.now() - start;
        }}"""
        return min(page.evaluate(script) for _ in range(3))

    change = "e.dispatchEvent(new Event('change'))"
    slow = {
        action: ms
        for action in (
            f"const e = document.getElementById('show'); e.value = 'fixed'; {change}",
            f"const e = document.getElementById('show'); e.value = 'all'; {change}",
            f"const e = document.getElementById('method'); e.value = 'clan'; {change}",
            f"const e = document.getElementById('truth'); e.value = '7'; {change}",
            "document.getElementById('reset').click()",
            "document.getElementById('page-after').click()",
            "document.getElementById('after').click()",
            "document.querySelector('#images .image:nth-child(5)').click()",
            "document.querySelector('[data-go]').click()",
        )
        if (ms := time_of(action)) > LIMIT
    }
    assert not slow
