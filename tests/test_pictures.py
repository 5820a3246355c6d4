"""Pictures: what is written in them, their colours, and whose weights they show."""

from __future__ import annotations

import copy
import itertools
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

pytest.importorskip('matplotlib')

from fgplugins.data.sampling import spread_over_folders, true_class
from fgplugins.utils import drawing, lettering
from fgplugins.utils.drawing import attention_titles, describe, draw_attention, draw_images
from fgplugins.utils.lettering import shortened

NAMES = ('US$10_$5^^', r'a$b$ \frac{1}{2}', '乌鸦 crow', 'tab\tand\nline', 'x' * 200, 'é\udce9')


def grey(height: int = 30, width: int = 30) -> np.ndarray:
    return np.full((height, width, 1), 128, np.uint8)


def captions_of(figure: object) -> list:
    """The captions under the rows of a page, first to last."""
    return list(figure.texts)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list:
    """Every figure that is saved, with what is written in it."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig

    def kept(figure: Figure, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(Figure, 'savefig', kept)
    return figures


class TestNames:
    @pytest.mark.filterwarnings('error::UserWarning')  # matplotlib's word for a missing letter
    def test_are_written_as_they_are(self, written: list, tmp_path: Path) -> None:
        images, maps = [grey()] * len(NAMES), [[np.eye(4)[None]]] * len(NAMES)
        draw_attention(images, maps, [shortened(n) for n in NAMES], tmp_path / 'a.png')
        labels = captions_of(written[0])
        assert not any(label.get_parse_math() for label in labels)
        texts = [''.join(label.get_text().split()) for label in labels]
        assert texts[:2] == ['US$10_$5^^', r'a$b$\frac{1}{2}']
        assert texts[2] in ('乌鸦crow', '[1]crow')
        assert texts[3:] == ['tabandline', f'{"x" * 30}…{"x" * 29}', r'é\udce9']

    @pytest.mark.parametrize(
        ('heads', 'rows', 'side', 'levels'),
        [
            (12, 3, (30, 30), 1),
            (2, 16, (30, 40), 1),
            (1, 1, (60, 20), 1),
            (1, 2, (20, 60), 1),
            (4, 3, (30, 30), 3),
            (1, 20, (30, 30), 1),
            (0, 2, (30, 30), 1),
        ],
    )
    def test_no_text_is_cut_off_or_touches_another(
        self,
        written: list,
        tmp_path: Path,
        heads: int,
        rows: int,
        side: tuple[int, int],
        levels: int,
    ) -> None:
        captions = [' '.join(NAMES[:4]) * 3, 'short', f'{"x" * 60}\n' * 5, '乌鸦' * 40] * 10
        titles = [[f'{"name " * 9}\nlevel 1, head {k}' for k in range(heads)]] * levels
        pages = draw_attention(
            [grey(*side)] * rows, [[np.random.rand(heads, 4, 4)] * levels] * rows, captions[:rows],
            tmp_path / 'a.png', max_heads=12, titles=titles,
        )  # fmt: skip
        assert len(pages) == len(written) and sum(len(captions_of(f)) for f in written) == rows
        for page, figure in zip(pages, written, strict=True):
            boxes = [axis.get_window_extent() for axis in figure.axes]
            boxes += [axis.title.get_window_extent() for axis in figure.axes if axis.get_title()]
            boxes += [text.get_window_extent() for text in captions_of(figure)]
            assert all(b.x0 >= 0 and b.y0 >= 0 for b in boxes)
            assert all(b.x1 <= figure.bbox.x1 and b.y1 <= figure.bbox.y1 for b in boxes)
            inner = [box.padded(-0.5) for box in boxes]
            assert not any(a.overlaps(b) for a, b in itertools.combinations(inner, 2))
            pixels = np.asarray(Image.open(page).convert('L'))
            edges = pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]
            assert all((edge == 255).all() for edge in edges), 'no letter reaches an edge'

    def test_captions_of_long_names_are_whole(self, written: list, tmp_path: Path) -> None:
        """Of the file, two models and the truth, sixty letters each; one head is narrow."""
        name = ''.join(chr(ord('A') + i % 26) for i in range(60))
        text = describe([('first', name, 0.5), ('second', name, 1.0)], name, name)
        draw_attention([grey()], [[np.eye(4)[None]]], [text], tmp_path / 'a.png')
        shown = ''.join(captions_of(written[0])[0].get_text().split())
        assert shown == ''.join(text.split()) and shown.count(name) == 4

    @pytest.mark.parametrize(
        ('texts', 'shown', 'legend'),
        [
            (['乌 é'], ['[1] é'], '[1] 乌'),
            (['乌鸦.jpg\n乌鸦', 'true: 麻雀'], ['[1].jpg\n[1]', 'true: [2]'], '[1] 乌鸦, [2] 麻雀'),
            (['제비 ^]-\\', '제비'], ['[1] ^]-\\', '[1]'], '[1] 제비'),
            (['乌\udce9'], [r'[1]\udce9'], '[1] 乌'),
        ],
    )
    def test_letters_that_no_font_has_are_numbers(
        self,
        written: list,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        texts: list[str],
        shown: list[str],
        legend: str,
    ) -> None:
        monkeypatch.setattr(lettering, '_letters_of', lambda path: frozenset(map(chr, range(256))))
        lettering._say_once.cache_clear()
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                draw_images([[grey()]] * len(texts), texts, ['image'], tmp_path / 'a.png')
        assert [text.get_text() for text in captions_of(written[0])] == shown
        (line,) = caplog.messages
        assert f'can write {legend}; install' in line and '\n' not in line

    def test_a_font_is_looked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import matplotlib
        from matplotlib import font_manager

        default = str(font_manager.findfont(font_manager.FontProperties()))
        serif = str(font_manager.findfont('DejaVu Serif'))
        has = {default: frozenset('ab'), serif: frozenset('乌')}
        monkeypatch.setattr(lettering, '_letters_of', lambda path: has.get(str(path), frozenset()))
        with lettering.lettering(['a乌b']) as write:
            assert write('a乌b') == 'a乌b'
            assert matplotlib.rcParams['font.family'][1:] == ['DejaVu Serif']

    def test_what_is_too_long_loses_its_middle(self) -> None:
        assert shortened('abcdefghij', 10) == 'abcdefghij'
        assert shortened('abcdefghijk', 10) == 'abcde…hijk'
        assert shortened('a \n b\tc') == 'a b c'

    def test_plots_of_benchmarks(self, written: list, tmp_path: Path) -> None:
        from fgplugins.analysis.benchmark_plot import draw_plot

        side = {'median': 1.0, 'macs': 1e9, 'peak_bytes': None}
        points = [{'size': n, 'first': side, 'second': side} for n in (1, 2)]
        report = {
            'title': 'a$b^$', 'first': '$x_', 'second': 'y', 'swept': 'size', 'points': points,
            'accuracy': [{'name': r'$\z$', 'macs': 1e9, 'accuracy': 50.0}],
        }  # fmt: skip
        draw_plot(report, str(tmp_path / 'a.png'))
        assert written[0].get_suptitle() == 'a$b^$'
        assert not written[0]._suptitle.get_parse_math()


class TestPages:
    def test_many_images_are_pages_of_a_readable_size(self, written: list, tmp_path: Path) -> None:
        captions = [f'image {i}' for i in range(450)]
        images = [[grey(4, 4)]] * 450
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(drawing, '_draw_table', lambda draw, ratios, *_: ratios)
            ratios = draw_images(images, captions, ['image'], tmp_path / 'a.png')
        heights = [drawing.MAX_HEIGHT / drawing.DPI / 15] * len(ratios)
        pages = drawing._split(heights, drawing.MAX_HEIGHT / drawing.DPI * 1.0001)
        assert [len(rows) for rows in pages] == [15] * 30
        assert [row for rows in pages for row in rows] == list(range(450))

    @pytest.mark.parametrize(('count', 'pages'), [(1, 1), (2, 1), (16, 1), (40, 3)])
    def test_files_of_pages(self, written: list, tmp_path: Path, count: int, pages: int) -> None:
        captions = [describe([('', 'wren', 0.5)], 'jay', f'{i}.png') for i in range(count)]
        files = draw_images([[grey()]] * count, captions, ['image'], tmp_path / 'a.b.png')
        names = ['a.b.png', *(f'a.b_{i}.png' for i in range(2, pages + 1))]
        assert [file.name for file in files] == names
        for file in files:
            with Image.open(file) as picture:
                assert picture.height <= drawing.MAX_HEIGHT
        shown = [text.get_text() for figure in written for text in captions_of(figure)]
        assert shown == captions, 'all, once, in their order'
        assert all(figure.axes[0].get_title() == 'image' for figure in written)

    def test_a_row_higher_than_a_page_has_its_own(self) -> None:
        assert drawing._split([1, 9, 1, 1], 2) == [[0], [1], [2, 3]]

    @pytest.mark.parametrize(('levels', 'heads', 'drawn'), [(3, 8, 8), (6, 8, 6), (39, 3, 1)])
    def test_no_page_is_too_wide(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, levels: int, heads: int, drawn: int
    ) -> None:
        maps = [[np.zeros((heads, 2, 2))] * levels]
        (page,) = draw_attention([grey()], maps, ['x'], tmp_path / 'a.png')
        with Image.open(page) as picture:
            assert picture.width == pytest.approx(120 * (1 + levels * drawn), abs=1)
        assert (f'{drawn} heads of each level fit' in caplog.text) == (drawn < heads)


def test_what_stands_under_an_image() -> None:
    assert (
        describe([('', 'wren', 0.876)], 'jay', 'a.png') == 'a.png\npredicted: wren, 88%\ntrue: jay'
    )
    both = [('gap', 'wren', 0.4), ('siou', 'jay', 1.0)]
    assert describe(both) == 'gap predicted: wren, 40%\nsiou predicted: jay, 100%'
    assert describe([], 'jay') == 'true: jay' and describe([]) == ''


def test_heads_have_the_names_of_what_they_show() -> None:
    import fgplugins

    for method, taps, given, known in (
        ('clan', 2, {}, [['spatial attention', 'class activation']] * 2),
        ('clan', 3, {}, [['spatial attention', 'class activation']] * 2
         + [['spatial attention of level 1', 'spatial attention of level 2', 'class activation']]),
        ('siou', 2, {}, [['predicted', 'rival']] * 2),
        ('warn', 2, {}, [['head 1', 'head 2', 'head 3', 'head 4']] * 2),
        ('gap', 1, {}, [['head 1']]),
    ):  # fmt: skip
        built = fgplugins.get_method(method)([6] * taps, 3, **given).eval()
        maps = [torch.randn(1, 6, 4, 4, requires_grad=True) for _ in range(taps)]
        if method == 'siou':  # it differentiates by the maps
            maps[1] = maps[0] * 2
        masks = [level[0].detach().numpy() for level in built.attention(maps)]
        assert attention_titles(masks, names=built.name_heads()) == [
            [f'level {level + 1}, {name}' for name in names] for level, names in enumerate(known)
        ], method


# ------------------------------------------------------------------------- of MMPretrain's networks


PIPELINES = {
    'bgr': [dict(type='LoadImage')],
    'opencv': [dict(type='LoadImageFromFile', imdecode_backend='cv2')],
    'pillow': [dict(type='LoadImageFromFile', imdecode_backend='pillow')],
    'pil': [
        dict(type='LoadImage'),
        dict(type='NumpyToPIL', to_rgb=True),
        dict(type='PILToNumpy', to_bgr=False),
    ],
    'pil and back': [
        dict(type='LoadImage'),
        dict(type='NumpyToPIL', to_rgb=True),
        dict(type='PILToNumpy', to_bgr=True),
    ],
}


def run_after_training(work: Path, hooks: tuple = (), **given: object) -> list[str]:
    """What `AttentionMapHook` logs behind a training of no steps."""
    from mmengine.config import Config

    from fgplugins.zoo_mmpretrain.pictures import AttentionMapHook

    log: list[str] = []
    logger = SimpleNamespace(info=log.append)
    given |= {'hooks': hooks, 'work_dir': str(work), 'logger': logger, 'cfg': Config({})}
    runner = SimpleNamespace(val_loop=True, **given)
    AttentionMapHook(num_images=2).after_train(runner)
    return log


def small_model(zoo: object, **changes: object) -> nn.Module:
    cfg = dict(
        type='FineGrainedClassifier',
        backbone=dict(type='ResNet', depth=18, out_indices=(2, 3), frozen_stages=1, norm_eval=True),
        head=dict(type='GAPHead', num_classes=3),
        data_preprocessor=dict(type='ClsDataPreprocessor', mean=[0] * 3, std=[255] * 3),
    )
    return zoo.MODELS.build({**cfg, **changes})


def dataset_of(zoo: object, folder: Path, pipeline: list[dict], colour: str = 'red') -> object:
    for y in 'abc':
        (folder / y).mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (64, 64), colour).save(folder / y / 'x.png')
    steps = [*pipeline, dict(type='PackInputs')]
    return zoo.DATASETS.build(dict(type='CustomDataset', data_root=str(folder), pipeline=steps))


class TestColours:
    @pytest.mark.parametrize('to_rgb', [True, False])
    @pytest.mark.parametrize('name', list(PIPELINES))
    def test_a_red_picture_is_red(
        self, zoo: object, name: str, to_rgb: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from fgplugins.zoo_mmpretrain import pictures

        drawn: list[np.ndarray] = []
        monkeypatch.setattr(
            pictures, 'draw_attention', lambda images, *_, **__: drawn.extend(images)
        )
        dataset = dataset_of(zoo, tmp_path / 'data', PIPELINES[name])
        model = small_model(zoo)
        model.data_preprocessor.to_rgb = to_rgb  # whatever the settings suggest
        wrapped = SimpleNamespace(datasets=[SimpleNamespace(dataset=dataset)])
        blue_first = name in ('bgr', 'opencv', 'pillow', 'pil and back')
        assert pictures.dataset_gives_bgr(wrapped, to_rgb) == blue_first
        loader = SimpleNamespace(dataset=dataset)
        run_after_training(tmp_path, model=model, val_dataloader=loader)
        assert [tuple(image[5, 5]) for image in drawn] == [(255, 0, 0)] * 2

    @pytest.mark.usefixtures('room')
    def test_arrays_are_taken_as_the_settings_say(self) -> None:
        from fgplugins.zoo_mmpretrain.colours import dataset_gives_bgr

        data = SimpleNamespace(pipeline=None, get_data_info=lambda i: {'img': np.zeros((4, 4, 3))})
        assert [dataset_gives_bgr(data, otherwise) for otherwise in (True, False)] == [True, False]

    @pytest.mark.usefixtures('room')
    def test_pipelines_that_do_not_answer(self) -> None:
        from fgplugins.zoo_mmpretrain.colours import gives_bgr

        one_channel = {'inputs': torch.zeros(1, 4, 4)}
        for pipeline in (lambda results: one_channel, lambda results: results['missing']):
            assert [gives_bgr(pipeline, otherwise) for otherwise in (True, False)] == [True, False]

    @pytest.mark.usefixtures('room')
    def test_floats_are_stretched(self) -> None:
        from fgplugins.zoo_mmpretrain.colours import as_rgb

        image = as_rgb(torch.tensor([[[-1.0]], [[0.0]], [[1.0]]]), bgr=True)
        assert image.dtype == np.uint8 and image.tolist() == [[[255, 127, 0]]]

    @pytest.mark.parametrize('name', list(PIPELINES))
    def test_of_show_attention(self, zoo: object, name: str, tmp_path: Path) -> None:
        from mmengine.config import Config

        from fgplugins.analysis.loading import load_model
        from fgplugins.zoo_mmpretrain.running.configs import find_config

        cfg = Config.fromfile(find_config('gap_mobilenetv2_cub'))
        cfg.test_dataloader.dataset.pipeline = [*PIPELINES[name], dict(type='PackInputs')]
        cfg.dump(tmp_path / 'c.py')
        Image.new('RGB', (64, 64), 'red').save(tmp_path / 'x.png')
        image, _ = load_model(str(tmp_path / 'c.py')).read_image(str(tmp_path / 'x.png'))
        assert tuple(image[5, 5]) == (255, 0, 0)


class TestAfterTraining:
    def given(self, zoo: object, folder: Path, model: nn.Module) -> dict[str, object]:
        loader = SimpleNamespace(dataset=dataset_of(zoo, folder / 'data', PIPELINES['bgr']))
        return {'model': model, 'val_dataloader': loader}

    def test_modes_stay(self, zoo: object, tmp_path: Path) -> None:
        model = small_model(zoo).train()
        modes = [m.training for m in model.modules()]
        assert True in modes and False in modes
        log = run_after_training(tmp_path, **self.given(zoo, tmp_path, model))
        assert [m.training for m in model.modules()] == modes
        assert (tmp_path / 'attention_maps.png').is_file() and '2 validation images' in log[0]

    @pytest.mark.parametrize(
        'changes',
        [
            dict(
                neck=dict(type='CLANNeck', in_channels=(256, 512)),
                head=dict(type='MultiBranchHead', num_classes=3, in_channels=(256, 512, 512)),
            ),
            dict(
                type='ImageClassifier',
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=512),
            ),
        ],
        ids=['branches', 'zoo'],
    )
    def test_heads_without_a_method_are_left_out(
        self, zoo: object, changes: dict, tmp_path: Path
    ) -> None:
        model = small_model(zoo, **changes)
        log = run_after_training(tmp_path, **self.given(zoo, tmp_path, model))
        assert log == [
            f'{changes["head"]["type"]} has no attention, so no attention maps are drawn'
        ]
        assert not (tmp_path / 'attention_maps.png').exists()

    def test_a_method_in_a_classifier_of_the_zoo(self, zoo: object, tmp_path: Path) -> None:
        head = dict(type='GAPHead', num_classes=3, in_channels=[512])
        model = small_model(zoo, type='ImageClassifier', head=head)
        run_after_training(tmp_path, **self.given(zoo, tmp_path, model))
        assert (tmp_path / 'attention_maps.png').is_file()

    def test_what_is_drawn_is_what_was_tested(
        self, zoo: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With an EMAHook the averaged weights; the model keeps its own."""
        from mmengine.hooks import EMAHook

        from fgplugins.zoo_mmpretrain import pictures

        given = self.given(zoo, tmp_path, small_model(zoo))
        model, drawn = given['model'], []
        monkeypatch.setattr(
            pictures, 'draw_attention', lambda images, maps, *_, **__: drawn.append(maps)
        )
        averages = EMAHook()
        averages.before_run(SimpleNamespace(model=model))
        run_after_training(tmp_path, **given)
        with torch.no_grad():
            model.head.method.classifier.weight.normal_()  # the averages are those of before
        state = copy.deepcopy(model.state_dict())
        run_after_training(tmp_path, hooks=(averages,), **given)
        run_after_training(tmp_path, **given)
        before, averaged, raw = (np.stack([m[0] for m in maps]) for maps in drawn)
        assert np.array_equal(before, averaged) and not np.allclose(before, raw)
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


# ----------------------------------------------------------------------------------- show_attention


def test_a_file_on_its_own_is_read_whole(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The pipeline crops to boxes, which the images of a data set have."""
    pytest.importorskip('mmpretrain')
    from fgplugins.analysis.loading import load_model

    Image.new('RGB', (30, 50), (200, 30, 90)).save(tmp_path / 'x.png')
    image, inputs = load_model('att2_vgg_dp_cub').read_image(str(tmp_path / 'x.png'))
    assert image.shape == (80, 80, 3) and tuple(image[79, 79]) == (200, 30, 90)
    assert inputs.amax() <= 1, 'values between 0 and 1, by no mean and deviation'
    assert 'a file on its own has no box' in capsys.readouterr().out


KWARGS = {'backbone': 'clutter_cnn', 'in_chans': 1, 'num_classes': 3}


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A checkpoint of att2 and an image, for show_attention."""
    import timm

    torch.save(timm.create_model('att2', **KWARGS).state_dict(), tmp_path / 'a.pth')
    Image.new('L', (40, 40), 90).save(tmp_path / 'x.png')
    pairs = [f'{k}={v}' for k, v in KWARGS.items()]
    return ['show_attention', 'att2', 'a.pth', 'x.png', '--model-kwargs', *pairs]


class TestShowAttention:
    def test_what_cannot_be_is_one_line(
        self, run_tool: object, arguments: list[str], tmp_path: Path
    ) -> None:
        (tmp_path / 'empty').mkdir()
        (tmp_path / 'broken.png').write_bytes(b'\x89PNG nothing more')
        for changed, message in (
            (['--query', 'x.png'], "compat='dp' or mask='sigmoid'"),
            (['--max-images', '0'], '--max-images 0: must be at least 1'),
            (['--max-images', '-3'], '--max-images -3: must be at least 1'),
            (['--max-heads', '0'], '--max-heads 0: must be at least 1'),
            (['--out', 'no/folder.png'], '--out no/folder.png: there is no folder no'),
            (['--views'], '--views: Att2 trains on no views'),
        ):
            done = run_tool(*arguments, *changed)
            assert done.returncode == 2 and message in done.stderr, (changed, done.stderr)
            assert len(done.stderr.strip().splitlines()) == 1
        for image, message in (
            ('empty', 'no images in empty'),
            ('broken.png', 'image broken.png cannot be read'),
            ('none.png', "image 'none.png' is not there"),
        ):
            done = run_tool(*arguments[:3], image, *arguments[4:])
            assert done.returncode == 2 and message in done.stderr, (image, done.stderr)
            assert len(done.stderr.strip().splitlines()) == 1

    def test_views_of_other_peoples_regularizers(self, tmp_path: Path, run_tool: object) -> None:
        """One that shows nothing is refused, one that shows three views has three columns."""
        import timm

        import fgplugins
        from fgplugins.methods import Regularizer
        from fgplugins.methods.registry import unregister
        from fgplugins.zoo_timm.task import MethodTask

        class Silent(Regularizer):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.ones(()))

            def forward(self, images, features, target, second):  # noqa: ANN001, ANN202
                return {'mine': self.scale * second(images)[-1].mean()}

        class Showing(Silent):
            def show(self, images, features):  # noqa: ANN001, ANN202
                return {name: images[..., ::2, ::2] for name in ('one', '$2', 'three')}

        part = Silent

        @fgplugins.register_method('shower')
        class Shower(fgplugins.get_method('gap')):
            def regularizer(self, view_size=None):  # noqa: ANN001, ANN202
                return part()

        try:
            Image.new('L', (40, 40), 90).save(tmp_path / 'x.png')
            pairs = [f'{k}={v}' for k, v in KWARGS.items()]
            for part in (Silent, Showing):
                fgplugins.check_method(Shower)
                task = MethodTask(timm.create_model('shower', **KWARGS), verbose=False)
                torch.save(task.get_checkpoint_state(), tmp_path / 'a.pth')
                done = run_tool(
                    'show_attention', 'shower', 'a.pth', 'x.png', '--views', '--model-kwargs',
                    *pairs, '--out', 'v.png',
                )  # fmt: skip
                if part is Silent:
                    assert done.returncode == 2
                    assert '--views: Shower trains on no views of the image' in done.stderr
            assert done.returncode == 0, done.stderr
            with Image.open(tmp_path / 'v.png') as picture:
                assert picture.width == 4 * 180
            Showing.show = lambda self, images, features: [images]
            with pytest.raises(TypeError, match='show gives a list'):
                fgplugins.check_method(Shower)
            part = nn.Identity
            with pytest.raises(TypeError, match='regularizer gives Identity, it must give'):
                fgplugins.check_method(Shower)
        finally:
            unregister('shower')

    def test_looking_leaves_the_model_as_it_was(self, arguments: list[str], tmp_path: Path) -> None:
        from fgplugins.analysis.loading import load_model

        pairs = [f'{k}={v}' for k, v in KWARGS.items()]
        loaded = load_model('att2', str(tmp_path / 'a.pth'), pairs)
        loaded.model.train()
        frozen = next(m for m in loaded.model.modules() if isinstance(m, nn.BatchNorm2d))
        frozen.eval()
        modes = [m.training for m in loaded.model.modules()]
        state = copy.deepcopy(loaded.model.state_dict())
        loaded.look(torch.randn(1, 1, 40, 40))
        assert [m.training for m in loaded.model.modules()] == modes and not frozen.training
        assert all(torch.equal(v, state[k]) for k, v in loaded.model.state_dict().items())


class TestSampleOfAFolder:
    @pytest.mark.parametrize(
        ('limit', 'counts'), [(1, [0, 0, 1]), (3, [1, 1, 1]), (7, [1, 2, 4]), (99, [1, 2, 20])]
    )
    def test_every_folder_has_its_share(self, limit: int, counts: list[int]) -> None:
        files = [f'{y}/{i}.png' for y, n in (('a', 1), ('b', 2), ('c', 20)) for i in range(n)]
        chosen = spread_over_folders(files, limit)
        taken = [sum(file.startswith(y) for file in chosen) for y in 'abc']
        assert sorted(taken) == counts and chosen == [f for f in files if f in chosen]
        assert set(spread_over_folders(files[::-1], limit)) == set(chosen)

    def test_the_seed_decides(self) -> None:
        files = [f'{y}/{i}.png' for y in 'abcdefgh' for i in range(9)]
        chosen = [spread_over_folders(files, 4, seed) for seed in (0, 0, 1, 2)]
        assert chosen[0] == chosen[1] and len({tuple(c) for c in chosen}) == 3
        assert all(len({Path(file).parent for file in c}) == 4 for c in chosen)
        # the same on every machine
        assert spread_over_folders(['a/0', 'a/1', 'b/0', 'b/1'], 2) == ['a/0', 'b/0']

    def test_folders_name_classes(self) -> None:
        classes = ['wren', 'ducks/mallard', 'mallard']
        for file, name in (
            ('test/wren/a.png', 'wren'),
            ('/birds/test/ducks/mallard/a.png', 'ducks/mallard'),
            ('geese/mallard/a.png', 'mallard'),
            ('test/a.png', None),
            ('wren/more/a.png', None),
        ):
            assert true_class(file, classes) == name, file
        assert true_class('wren/a.png', ()) is None

    def test_in_the_picture(
        self,
        written: list,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture,
    ) -> None:
        """Classes asked for by number stand there by name; each image has its truth and score."""
        import runpy
        import sys

        import timm

        monkeypatch.chdir(tmp_path)
        classes, kwargs = ['crow', 'jay', 'wren'], {'backbone': 'test_resnet', 'num_classes': 3}
        for method in ('siou', 'gap'):
            model = timm.create_model(method, **kwargs)
            content = {'state_dict': model.state_dict(), 'class_names': classes}
            torch.save(content, f'{method}.pth')
        for i, name in enumerate(classes):
            Path('test', name).mkdir(parents=True)
            for k in range(4):
                Image.new('RGB', (40, 40), (60 * i, 50 * k, 9)).save(Path('test', name, f'{k}.png'))
        pairs = [f'{k}={v}' for k, v in kwargs.items()]
        tool = Path(__file__).parent.parent / 'tools' / 'show_attention.py'
        monkeypatch.setattr(
            sys, 'argv',
            ['show_attention', 'siou', 'siou.pth', 'test', '--max-images', '3', '--classes', '2',
             'jay', '--versus', 'gap.pth', '--model-kwargs', *pairs],
        )  # fmt: skip
        runpy.run_path(str(tool))['main']()
        said = capsys.readouterr().out
        assert 'note: 3 of 12 images, spread over their folders' in said
        assert '3 images: attention_maps.png' in said
        captions = [text.get_text().split('\n') for text in captions_of(written[0])]
        assert [lines[-1] for lines in captions] == [f'true: {name}' for name in classes]
        for file, gap, siou, _ in captions:
            assert file.endswith('.png')
            assert gap.startswith('gap predicted: ') and siou.startswith('siou predicted: ')
            assert gap.endswith('%') and siou.endswith('%')
        titles = [axis.get_title() for axis in written[0].axes if axis.get_title()]
        levels = [f'level {level}, {name}' for level in (1, 2) for name in ('wren', 'jay')]
        assert titles == ['image', *(f'{who}\n{t}' for who in ('gap', 'siou') for t in levels)]


def test_rows_are_as_high_as_their_images() -> None:
    assert drawing._ratio([grey(20, 40), grey(10, 40)]) == 0.5
    assert drawing._ratio([grey(80, 40)]) == 1


def test_a_network_whose_scores_rest_on_no_map(run_tool: object, tmp_path: Path) -> None:
    """A class token's network: its own map is refused, the maps of a method on it are shown."""
    import timm

    settings = ['--model-kwargs', 'backbone=test_vit', 'num_classes=3']
    Image.fromarray(np.zeros((160, 160, 3), np.uint8)).save(tmp_path / 'x.png')
    for method in ('gap', 'clan'):
        model = timm.create_model(method, backbone='test_vit', num_classes=3)
        torch.save(model.state_dict(), tmp_path / f'{method}.pth')
    done = run_tool('show_attention', 'gap', 'gap.pth', 'x.png', *settings)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert 'gap: no map: the embedding of this network' in done.stderr
    done = run_tool('show_attention', 'clan', 'clan.pth', 'x.png', '--out', 'a.png', *settings)
    assert done.returncode == 0 and (tmp_path / 'a.png').is_file()
