"""What holds for every method, known here or registered by anybody."""

from __future__ import annotations

import ast
import copy
import re
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

import fgplugins
from fgplugins.analysis.complexity import set_paper_order
from fgplugins.methods import METHODS, Method, get_method, list_methods, register_method
from fgplugins.methods.layers import without_float16

CHANNELS = (8, 12, 16)
SIZES = ((12, 10), (6, 5), (3, 2))  # H != W
CLASSES = 5


# of our methods, which also hold on maps as large as a trained network's
OPTIONS: dict[str, list[dict[str, object]]] = {
    'gap': [{}, {'multi_label': True}],
    'art': [{}, {'transform': 'stn'}, {'normalize': False}],
    'att2': [
        {'compat': c, 'mask': m, **more}
        for c in ('pc', 'dp')
        for m in ('softmax', 'sigmoid')
        for more in ({}, {'classify': 'indep', 'norm': False})
    ],
    'clan': [
        *({'relation': r} for r in ('dot', 'embedded_gaussian', 'gaussian')),
        {'context': 'non_local'},
        {'context': 'non_local', 'relation': 'embedded_gaussian'},
        {'context': 'gap'},
        {'mask': 'sigmoid', 'pooling': 'max'},
        {'pooling': 'avg', 'inner_channels': 8},
        {'spatial': False},
        {'average': 'probabilities'},
    ],
    'siou': [{'kind': k} for k in ('channel', 'pixel', 'gradcam')]
    + [{'multi_label': True}, {'detach_mask': True}],
    'warn': [
        {},
        {'mask': 'sigmoid', 'diversity': 1.0},
        {'gates': False},
        {'gate_norm': True, 'mix': 'prob'},
        {'heads': 8, 'kernel_size': 1, 'base_grad': 0.1},
        {'global_gates': 'linear', 'head_gates': False},
        {'global_gates': 'sigmoid', 'gate_norm': True},
        {'global_gates': 'mean', 'output_init': 'zero', 'mask_init': 'zero'},
    ],
}
VARIANTS = [(name, options) for name in list_methods() for options in OPTIONS.get(name, [{}])]


@pytest.mark.parametrize(('name', 'options'), VARIANTS, ids=str)
def test_check_method(name: str, options: dict) -> None:
    """What every method of anybody keeps."""
    fgplugins.check_method(get_method(name), **options)


def build(name: str) -> tuple[Method, int]:
    cls = get_method(name)
    return cls(CHANNELS[-cls.default_taps :], CLASSES), cls.default_taps


def maps(taps: int, N: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Maps as a backbone gives them: each computed from the one before, with gradients on."""
    features: list[Tensor] = []
    for C, size in zip(CHANNELS[-taps:], SIZES[-taps:], strict=True):
        x = torch.randn(N, C, *size, dtype=dtype, requires_grad=True)
        if features:
            below = F.interpolate(features[-1], size, mode='bilinear').cumsum(dim=1)
            x = x + 0.1 * below[:, torch.arange(C) % below.shape[1]]
        features.append(x.relu())
        features[-1].retain_grad()
    return features


@pytest.mark.parametrize('name', list_methods())
class TestWrongMaps:
    def test_wrong_maps_are_named(self, name: str) -> None:
        method, taps = build(name)
        features = maps(taps, 2)
        features[-1] = features[-1][:, :-1]
        with pytest.raises(ValueError, match=r'in_channels=.*the backbone gives'):
            method(features)
        with pytest.raises(ValueError, match=r'shape \(N, C, H, W\)'):
            method([f.flatten(2) for f in features])

    def test_wrong_sizes_are_named(self, name: str) -> None:
        cls = get_method(name)
        with pytest.raises(ValueError, match='num_classes=0'):
            cls(CHANNELS[-cls.default_taps :], 0)
        with pytest.raises(ValueError, match='in_channels='):
            cls([], 3)


class Float16:
    """What one method makes of large maps, in float32 and in float16."""

    def __init__(self, name: str, options: dict, widths: tuple, side: int) -> None:
        cls = get_method(name)
        taps, self.multi_label = cls.default_taps, options.get('multi_label', False)
        # rounded to float16 once, so that both have the same weights and maps
        self.method = cls(widths[-taps:], CLASSES, **options).half().float().eval()
        for p in self.method.parameters():
            if not p.any():
                torch.nn.init.normal_(p, std=2**-6)
        self.method.half().float()
        largest = 60 if name in OPTIONS else 1
        sides = [side >> s for s in range(len(widths))][-taps:]
        self.maps = [
            (largest * torch.rand(2, C, H, H)).half()
            for C, H in zip(widths[-taps:], sides, strict=True)
        ]
        self.regularizer = self.method.regularizer()
        if self.regularizer is not None:
            self.regularizer.half().float()
        self.images = torch.randn(2, 3, 16, 16).half()
        self.last = largest * torch.linspace(0, 1, widths[-1])[:, None, None]

    def second(self, images: Tensor) -> list[Tensor]:
        return [images.mean(dim=1, keepdim=True).sigmoid() * self.last.to(images.dtype)]

    def results(self, how: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Scores, masks and loss terms; gradients of every parameter and map."""
        dtype = torch.float16 if how == 'half' else torch.float32
        parts = torch.nn.ModuleDict({'method': copy.deepcopy(self.method)})
        if self.regularizer is not None:
            parts['regularizer'] = copy.deepcopy(self.regularizer)
        parts.to(dtype)
        leaves = [f.to(dtype).requires_grad_() for f in self.maps]
        features = leaves
        if self.method.needs_gradient_path:
            below = F.adaptive_avg_pool2d(leaves[0], leaves[1].shape[2:]).mean(1, keepdim=True)
            features = [leaves[0], leaves[1] / 2 + below / 2]
        target = torch.tensor([1, 2])
        if self.multi_label:
            target = torch.eye(CLASSES)[target]
        method = parts['method']
        with torch.autocast('cpu', torch.float16, enabled=how == 'autocast'):
            values = {'scores': method(features), 'paper': method.forward_paper(features)}
            values |= {f'mask{s}': mask for s, mask in enumerate(method.attention(features))}
            terms = method.loss(features, target)
            if self.regularizer is not None:
                images = self.images.to(dtype)
                terms |= parts['regularizer'](images, features, target, self.second)
            with torch.inference_mode():
                values['inference'] = method([f.detach() for f in features])
        torch.stack([term.float() for term in terms.values()]).sum().backward()
        gradients = {name: p.grad for name, p in parts.named_parameters()}
        gradients |= {f'map{s}': f.grad for s, f in enumerate(leaves)}
        return values | terms, gradients


@pytest.mark.parametrize(('name', 'options'), VARIANTS, ids=str)
class TestFloat16:
    """Nothing overflows where features are as large as a trained network's."""

    def compare(self, case: Float16) -> None:
        values, gradients = case.results('float32')
        for how in ('autocast', 'half'):
            found, found_gradients = case.results(how)
            for key, value in values.items():
                assert found[key].isfinite().all(), (how, key)
                error = (found[key].float() - value).norm() / value.norm().clamp_min(1e-3)
                assert error < 0.08, (how, key, float(error))
            for key, gradient in gradients.items():
                # what is too large in itself is what a loss scale is for
                fits = gradient.abs() < 6e4
                assert found_gradients[key][fits].isfinite().all(), (how, key)

    def test_large_maps(self, name: str, options: dict) -> None:
        self.compare(Float16(name, options, (64, 128, 256), 14))

    @pytest.mark.slow
    @pytest.mark.parametrize('side', [14, 28])
    def test_wide_maps(self, name: str, options: dict, side: int) -> None:
        self.compare(Float16(name, options, (256, 512, 1024), side))


def test_float16_weights_stay_and_bfloat16_is_left_alone() -> None:
    """What runs in float32 gives its gradient back in the weights' own type."""
    seen = []

    class Product(torch.nn.Linear):
        @without_float16
        def forward(self, x: Tensor) -> Tensor:
            seen.append((x.dtype, self.weight.dtype))
            return super().forward(x)

    layer = Product(2, 2)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        layer.to(dtype).zero_grad()
        layer(torch.full((1, 2), 300.0, dtype=dtype)).sum().backward()
        assert layer.weight.dtype == layer.weight.grad.dtype == dtype
        assert torch.equal(layer.weight.grad, torch.full_like(layer.weight, 300.0))
    kept = [(dtype, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float64)]
    assert seen == kept
    layer.float()
    with torch.autocast('cpu', torch.float16):
        assert layer(torch.ones(1, 2)).dtype == torch.float32
    with torch.autocast('cpu', torch.bfloat16):
        assert layer(torch.ones(1, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize('name', list_methods())
def test_the_papers_order_can_be_set_twice(name: str) -> None:
    method, taps = build(name)
    method.double().eval()
    features = maps(taps, 2, torch.float64)
    own, paper = method(features), method.forward_paper(features)
    restore = set_paper_order(method)
    again = set_paper_order(method)
    assert torch.equal(method(features), paper)
    again()
    assert torch.equal(method(features), paper)
    restore()
    assert torch.equal(method(features), own)
    assert torch.equal(method.forward_paper(features), paper)


def test_unknown_method_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'wran' is not registered; there are: .*warn"):
        get_method('wran')


class Copy(get_method('gap')):
    """A valid method, for registering."""


def test_a_taken_name_names_both_owners() -> None:
    with pytest.raises(
        ValueError, match=r"'gap' of .*test_contract is .* fgplugins.methods.gap.GAP"
    ):
        register_method('gap')(Copy)


@pytest.mark.parametrize('name', ['Mine', 'my-method', '2fast'])
def test_a_name_must_be_usable_in_timm(name: str) -> None:
    with pytest.raises(ValueError, match='lower-case Python identifier'):
        register_method(name)(Copy)


def test_missing_contract_members_are_reported_when_registering() -> None:
    class Half(Method):
        def forward(self, features: list[Tensor]) -> Tensor:
            return features[0]

    with pytest.raises(TypeError, match=r'Half does not define attention, loss'):
        register_method('half')(Half)
    with pytest.raises(TypeError, match=r'not a subclass of fgplugins\.Method'):
        register_method('half')(torch.nn.Linear)

    class Odd(Copy):
        def __init__(self, num_classes: int, in_channels: list[int]) -> None:
            super().__init__(in_channels, num_classes)

    with pytest.raises(TypeError, match=r'must take \(in_channels, num_classes'):
        register_method('odd')(Odd)

    class Deaf(Copy):
        questions = ('query',)

    with pytest.raises(TypeError, match=r'Deaf.attention does not take query, which its questions'):
        register_method('deaf')(Deaf)
    assert not {'half', 'odd', 'deaf'} & set(list_methods())


@pytest.mark.parametrize('side', ['timm', 'mmpretrain'])
def test_entry_points_are_found_and_a_broken_one_is_named(
    side: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two installed packages: one registers a method, the other fails to import."""
    zoo = request.getfixturevalue('zoo') if side == 'mmpretrain' else None
    from fgplugins.methods.registry import load_entry_points

    sixth = f'sixth_{side}'  # a module is looked for once
    for name, text in {
        f'{sixth}_plugin': (
            'import fgplugins\n'
            f'@fgplugins.register_method({sixth!r})\n'
            f"class Sixth_{side}(fgplugins.get_method('gap')):\n"
            '    pass\n'
        ),
        f'broken_{side}_plugin': 'raise RuntimeError("out of order")\n',
    }.items():
        (tmp_path / f'{name}.py').write_text(text)
        info = tmp_path / f'{name}-1.0.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
        (info / 'entry_points.txt').write_text(f'[fgplugins.methods]\n{name} = {name}\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(UserWarning, match=f'broken_{side}_plugin.*left out: RuntimeError'):
        load_entry_points()
    try:
        assert sixth in list_methods()
        if zoo is not None:
            assert zoo.MODELS.get(f'Sixth_{side}Head').method_class is get_method(sixth)
        model = timm.create_model(sixth, backbone='resnet10t', num_classes=3)
        assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    finally:
        METHODS._obj_map.pop(sixth, None)


def test_no_condition_names_a_backbone() -> None:
    """What a network can do is asked of it, never guessed from its name."""
    families = {'alexnet', 'mobilenet', 'vit', *timm.list_modules()} - {'_hub'}
    tests = []
    for path in Path(fgplugins.__file__).parent.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            tests += [(path, test) for test in conditions(node)]
    assert len(tests) > 100
    for path, test in tests:
        words = [n.value for n in ast.walk(test) if isinstance(n, ast.Constant)]
        for word in (w.lower() for w in words if isinstance(w, str)):
            assert not any(re.match(rf'{name}(\d|_|$)', word) for name in families), (path, word)


def conditions(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, (ast.If, ast.IfExp, ast.While)):
        return [node.test]
    if isinstance(node, ast.match_case):
        return [node.pattern]
    return list(getattr(node, 'ifs', []))


def test_showing_is_by_the_contract_alone() -> None:
    """Maps with gradients where scores are differentiated, whatever is frozen; none elsewhere."""
    for name in list_methods():
        method = get_method(name)([4, 6, 8][-get_method(name).default_taps :], 3).eval()
        layers = torch.nn.ModuleList(
            torch.nn.Conv2d(c, d, 3, 2, 1) for c, d in ((3, 4), (4, 6), (6, 8))
        ).requires_grad_(False)
        graph = []

        def network(x: Tensor, layers: torch.nn.ModuleList = layers, graph: list = graph) -> list:
            maps = []
            for layer in layers:
                maps.append(layer(maps[-1] if maps else x))
            graph.append(maps[-1].requires_grad)
            return maps[-method.taps :]  # noqa: B023

        images = torch.randn(2, 3, 16, 24)
        with torch.inference_mode():
            scores, masks = method.show(network, images)
        assert graph == [method.needs_gradient_path], name
        torch.testing.assert_close(scores, method(network(images)).detach())
        assert len(masks) == method.taps and not any(m.requires_grad for m in masks)
        assert not scores.requires_grad and not images.requires_grad
