"""A sixth method in a package of its own, with no edit here; and methods that break the rules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import fgplugins
from fgplugins.methods import (
    METHODS,
    Method,
    Regularizer,
    get_method,
    list_methods,
    register_method,
)
from fgplugins.methods.checking import BrokenContract, check_returns
from fgplugins.methods.gap import GAP

HERE = Path(__file__).parent

# what a user of the package does: both zoos, both tools, with nothing imported but what he needs
USE = """
import runpy, sys
import numpy, timm, torch
from PIL import Image

import fgplugins

tools, config = sys.argv[1:]
fgplugins.check_method(fgplugins.get_method('gem'))

model = timm.create_model('gem', backbone='resnet10t', num_classes=4, p=2.0)
print('timm', timm.list_models('gem'), tuple(model(torch.randn(1, 3, 64, 64)).shape))

from mmengine.config import Config
from mmengine.registry import init_default_scope

init_default_scope('mmpretrain')
from mmpretrain.registry import MODELS

cfg = Config.fromfile(config)
classifier = MODELS.build(cfg.model)
print('MMPretrain', type(classifier.head).__name__, classifier.head.method.p.item())


def tool(name, *arguments):
    sys.argv = [name, *arguments]
    runpy.run_path(f'{tools}/{name}.py', run_name='__main__')


tool('get_flops', 'gem', '--model-kwargs', 'backbone=resnet10t', '--shape', '64')
torch.save({'state_dict': classifier.state_dict()}, 'gem.pth')
Image.fromarray(numpy.random.randint(0, 256, (40, 40), 'uint8')).save('digit.png')
tool('show_attention', config, 'gem.pth', 'digit.png', '--out', 'maps.png')
"""


@pytest.fixture(scope='module')
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package as pip installs it, in a folder of its own."""
    folder = tmp_path_factory.mktemp('example')
    shutil.copytree(HERE / 'example_plugin', folder / 'source')
    command = [
        sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation',
        '--no-index', '--target', str(folder / 'site'), str(folder / 'source'),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.usefixtures('room')
def test_the_example_is_known_everywhere(installed: Path) -> None:
    paths = [str(installed / 'site'), str(HERE.parent), os.environ.get('PYTHONPATH', '')]
    done = subprocess.run(
        [
            sys.executable, '-c', USE, str(HERE.parent / 'tools'),
            str(installed / 'source' / 'gem_cnn_digits.py'),
        ],
        capture_output=True,
        text=True,
        cwd=installed,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "timm ['gem'] (1, 4)" in done.stdout and 'OneDL' not in done.stdout
    assert 'MMPretrain GeMHead 3.0' in done.stdout
    assert 'method.classifier' in done.stdout  # a row of the report
    assert (installed / 'maps.png').stat().st_size > 1000


@pytest.mark.usefixtures('room')
def test_a_sixth_method_in_the_tree_is_one_file_and_one_config(tmp_path: Path) -> None:
    """In a copy of the repository; the contract's and the configs' tests take it up themselves."""
    for folder in ('fgplugins', 'configs', 'tests', 'tools'):
        shutil.copytree(HERE.parent / folder, tmp_path / folder)
    for file in ('setup.py', 'README.md', 'pyproject.toml'):
        shutil.copy(HERE.parent / file, tmp_path)
    example = HERE / 'example_plugin'
    source = (example / 'fgplugins_gem.py').read_text(encoding='utf-8')
    source = source.replace('import fgplugins\n', 'from fgplugins.methods import base, registry\n')
    source = source.replace('fgplugins.register_method', 'registry.register_method')
    source = source.replace('fgplugins.Method', 'base.Method')
    (tmp_path / 'fgplugins' / 'methods' / 'gem.py').write_text(source, encoding='utf-8')
    shutil.copy(example / 'gem_cnn_digits.py', tmp_path / 'configs')
    done = subprocess.run(
        [
            sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-k', 'gem', '-rA',
            'tests/test_contract.py', 'tests/test_configs.py',
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    passed = [line for line in done.stdout.splitlines() if line.startswith('PASSED')]
    for test in ('test_check_method', 'test_large_maps', 'gem_cnn_digits'):
        assert any(test in line for line in passed), done.stdout[-3000:]


class Sound(GAP):
    """Keeps the contract."""


class ScoresAsMap(GAP):
    def forward(self, features: list[Tensor]) -> Tensor:
        return features[-1]


class OneMask(GAP):
    def attention(self, features: list[Tensor]) -> list[Tensor]:
        return super().attention(features)[0]


class SignedMasks(GAP):
    def attention(self, features: list[Tensor]) -> list[Tensor]:
        return [f.mean(dim=1, keepdim=True) for f in features]


class InfiniteMasks(GAP):
    def attention(self, features: list[Tensor]) -> list[Tensor]:
        return [m / 0 for m in super().attention(features)]


class LossNotNamed(GAP):
    def loss(self, features: list[Tensor], target: Tensor) -> dict[str, Tensor]:
        return super().loss(features, target)['ce']


class LossOfEachImage(GAP):
    def loss(self, features: list[Tensor], target: Tensor) -> dict[str, Tensor]:
        return {'ce': nn.functional.cross_entropy(self(features), target, reduction='none')}


class NeedsMore(GAP):
    def __init__(self, in_channels: list[int], num_classes: int, width: int) -> None:
        super().__init__(in_channels, num_classes)


class Unused(GAP):
    def __init__(self, in_channels: list[int], num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.spare = nn.Linear(3, 3)


class Random(GAP):
    def forward(self, features: list[Tensor]) -> Tensor:
        scores = super().forward(features)
        return scores + torch.randn_like(scores)


class Remembers(GAP):
    def loss(self, features: list[Tensor], target: Tensor) -> dict[str, Tensor]:
        self.scores = self(features)
        return super().loss(features, target)


class Squeezes(GAP):
    def forward(self, features: list[Tensor]) -> Tensor:
        return super().forward(features).squeeze()


class MixesImages(GAP):
    def forward(self, features: list[Tensor]) -> Tensor:
        scores = super().forward(features)
        return scores - scores.mean(dim=0)


class TakesAnything(GAP):
    def check_features(self, features: list[Tensor]) -> None:
        pass


class TakesVectors(GAP):
    def forward(self, features: list[Tensor]) -> Tensor:
        if features[-1].shape[1] != self.in_channels[-1]:
            raise ValueError('channels')
        return self.classifier(features[-1].flatten(2).mean(dim=2))


class OtherPaper(GAP):
    def forward_paper(self, features: list[Tensor]) -> Tensor:
        return self(features) + 1e-6


class OneTypeOnly(GAP):
    def forward(self, features: list[Tensor]) -> Tensor:
        return self.classifier(features[-1].float().mean(dim=(2, 3)))


class BatchOfOneInTraining(GAP):
    def __init__(self, in_channels: list[int], num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.norm = nn.BatchNorm1d(num_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.norm(super().forward(features))


class OwnForTraining(Regularizer):
    """A training-only part that is sound; what is wrong with others stands in them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 2)

    def forward(
        self, images: Tensor, features: list[Tensor], target: Tensor, second: Callable
    ) -> dict[str, Tensor]:
        seen = second(images)[-1] - features[-1].mean(dim=(2, 3), keepdim=True)
        return {'own': self.linear(seen.mean(dim=(2, 3))).square().mean()}


class SpareInTraining(OwnForTraining):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.spare = nn.Linear(3, 3)


class SameTerm(OwnForTraining):
    def forward(self, *arguments: object) -> dict[str, Tensor]:
        return {'ce': super().forward(*arguments)['own']}


class SpreadOfTheBatch(OwnForTraining):
    def forward(
        self, images: Tensor, features: list[Tensor], target: Tensor, second: Callable
    ) -> dict[str, Tensor]:
        terms = super().forward(images, features, target, second)
        f = self.linear(features[-1].mean(dim=(2, 3)))
        variance = (f - f.mean(dim=0)).square().sum() / (len(f) - 1)
        return {'own': terms['own'] / variance}


class ShowsMasks(OwnForTraining):
    def show(self, images: Tensor, features: list[Tensor]) -> dict[str, Tensor]:
        return {'view': features[-1].mean(dim=1)}


def with_part(part: Callable) -> type[Method]:
    """A sound method that has this part in training."""

    class WithPart(GAP):
        def regularizer(self, view_size: tuple[int, int] | None = None) -> object:
            return part(self.in_channels[-1])

    return WithPart


class ForgetsWeights(GAP):
    def __init__(self, in_channels: list[int], num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.register_buffer('mixing', torch.randn(num_classes), persistent=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        return super().forward(features) + self.mixing


class HardTargetsOnly(GAP):
    def loss(self, features: list[Tensor], target: Tensor) -> dict[str, Tensor]:
        return {'ce': nn.functional.nll_loss(self(features).log_softmax(dim=1), target)}


WRONG_RETURNS = [
    (ScoresAsMap, r'forward gives a tensor of shape \(2, 64, .* must give scores of shape'),
    (OneMask, r'attention gives a tensor .* must give a list of one stack of masks'),
    (SignedMasks, r'attention gives masks that are negative or not finite'),
    (InfiniteMasks, r'attention gives masks that are negative or not finite'),
    (LossNotNamed, r'loss gives a tensor of shape \(\), it must give a dict of named scalar'),
    (LossOfEachImage, r"loss gives a dict {'ce': a tensor of shape \(2,\)}"),
    (NeedsMore, r'cannot be built from .* everything else by default: TypeError: .*width'),
]
BROKEN_INSIDE = [
    (Unused, r'no gradient for spare\.weight, spare\.bias'),
    (Random, r'forward gives other scores the second time'),
    (Remembers, r'scores is remembered between calls'),
    (Squeezes, r'batch of 1: forward gives a tensor of shape \(5,\)'),
    (MixesImages, r"scores depend on the others in its batch"),
    (TakesAnything, r'wrong number of channels ends in a RuntimeError'),
    (TakesVectors, r'not a map \(N, C, H, W\) is taken'),
    (OtherPaper, r'forward_paper gives other scores'),
    (OneTypeOnly, r'in bfloat16: forward fails: RuntimeError'),
    (BatchOfOneInTraining, r'in training, with a batch of 1: forward fails'),
    (ForgetsWeights, r'others after load_state_dict'),
    (HardTargetsOnly, r'loss with targets \(N, Y\) fails'),
]  # fmt: skip


@pytest.mark.parametrize(('cls', 'message'), WRONG_RETURNS)
def test_wrong_returns_are_reported_when_registering(cls: type[Method], message: str) -> None:
    with pytest.raises(
        TypeError, match=rf"method 'wrong' of {__name__}\.{cls.__name__}: {message}"
    ):
        register_method('wrong')(cls)
    assert 'wrong' not in list_methods()
    with pytest.raises(BrokenContract, match=message):
        fgplugins.check_method(cls)


@pytest.mark.parametrize(('cls', 'message'), BROKEN_INSIDE)
def test_broken_methods_are_found(cls: type[Method], message: str) -> None:
    with pytest.raises(BrokenContract, match=rf'{__name__}\.{cls.__name__}: .*{message}'):
        fgplugins.check_method(cls)


@pytest.mark.parametrize(
    ('part', 'message'),
    [
        (SpareInTraining, r'batch of 1: the regularizer has no gradient for spare\.weight'),
        (SameTerm, r"the regularizer and loss both have a term 'ce'"),
        (SpreadOfTheBatch, r"in training, with a batch of 1: the regularizer: the term 'own' is"),
        (ShowsMasks, r"show gives a dict {'view': a tensor of shape \(1, 3, 2\)}"),
        (nn.LazyLinear, r'must give an fgplugins\.methods\.Regularizer'),
    ],
)
def test_broken_parts_of_training_are_found(part: Callable, message: str) -> None:
    fgplugins.check_method(with_part(OwnForTraining))
    with pytest.raises(BrokenContract, match=message):
        fgplugins.check_method(with_part(part))


def test_hyperparameters_are_checked_too() -> None:
    with pytest.raises(BrokenContract, match=r"compat='x' and everything else by default: .*'pc'"):
        fgplugins.check_method(get_method('att2'), compat='x')


def test_checking_draws_no_random_numbers() -> None:
    state = torch.get_rng_state()
    fgplugins.check_method(Sound)
    assert torch.equal(torch.get_rng_state(), state)


def test_methods_of_many_maps_and_of_several_labels() -> None:
    class Many(GAP):
        default_taps = 9

        def attention(self, features: list[Tensor]) -> list[Tensor]:
            return [f.square().mean(dim=1, keepdim=True) for f in features]

    class Labels(GAP):
        multi_label = True

        def loss(self, features: list[Tensor], target: Tensor) -> dict[str, Tensor]:
            return {'bce': nn.functional.multilabel_soft_margin_loss(self(features), target)}

    fgplugins.check_method(Many)
    fgplugins.check_method(Labels)


def test_checking_is_cheap() -> None:
    import time

    seconds = []
    for _ in range(5):  # whatever else runs here
        start = time.perf_counter()
        check_returns(Sound)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


@pytest.fixture
def registered() -> Iterator[list[str]]:
    """Names to forget afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        METHODS._obj_map.pop(name, None)


def test_a_name_that_timm_has_is_reported_with_its_owner() -> None:
    with pytest.raises(
        ValueError, match=rf"method 'resnet50' of {__name__}: .* from timm\.models\.resnet"
    ):
        register_method('resnet50')(Sound)
    assert 'resnet50' not in list_methods()


def test_a_class_name_that_another_method_has_is_reported() -> None:
    """Both would be the same head in MMPretrain."""
    namesake = type('WARN', (Sound,), {'__module__': 'birds.attention'})
    message = 'birds.attention.WARN would be the MMPretrain head WARNHead, as fgplugins.methods'
    with pytest.raises(ValueError, match=message):
        register_method('namesake')(namesake)
    assert 'namesake' not in list_methods()


@pytest.mark.usefixtures('room')
def test_a_head_name_that_the_zoo_has_costs_that_head_alone(registered: list[str]) -> None:
    registered.append('namesake')
    namesake = type('Cls', (Sound,), {'__module__': 'birds.attention'})
    with pytest.warns(UserWarning, match="'namesake' of birds.attention has no MMPretrain head"):
        register_method('namesake')(namesake)
    assert timm.is_model('namesake')


def test_a_sound_method_is_taken(registered: list[str]) -> None:
    registered.append('sound')
    assert register_method('sound')(Sound) is Sound
    assert 'sound' in list_methods()
