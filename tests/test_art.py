"""CRA-CNN against its equations as loops in float64, and where its gradients go."""

from __future__ import annotations

import inspect
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.methods import art
from fgplugins.methods.art import ART

C, CLASSES = 5, 3


def coordinate(i: int, size: int) -> float:
    """Pixel i of a grid over [-1, 1] whose outermost pixels lie on the border."""
    return -1 + 2 * i / (size - 1)


def loop_sample(image: list, x: float, y: float, height: int, width: int) -> float:
    """Bilinear sampling of one channel at (x, y) in [-1, 1]; zero outside."""
    column, row = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
    left, top = math.floor(column), math.floor(row)
    value = 0.0
    for i, j in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= i < height and 0 <= j < width:
            value += image[i][j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return value


def loop_views(image: Tensor, gamma: list[float], h: int, w: int) -> tuple[Tensor, Tensor]:
    """Eqs. 4 and 5 for one image (channels, H, W)."""
    channels, H, W = image.shape
    g1, g2, g3, g4 = gamma
    attention, redundancy = (torch.zeros(channels, h, w, dtype=image.dtype) for _ in range(2))
    for k, i, j in itertools.product(range(channels), range(h), range(w)):
        plane = image[k].tolist()
        x, y = coordinate(j, w), coordinate(i, h)
        x_a = g3 * math.cos(g4) * x - g3 * math.sin(g4) * y + g1
        y_a = g3 * math.sin(g4) * x + g3 * math.cos(g4) * y + g2  # Eq. 4
        attention[k, i, j] = loop_sample(plane, x_a, y_a, H, W)
        # G - (G and G^a): a point of G is reached if its preimage lies in the square
        dx, dy = x - g1, y - g2
        u = (math.cos(g4) * dx + math.sin(g4) * dy) / g3
        v = (-math.sin(g4) * dx + math.cos(g4) * dy) / g3
        if not (abs(u) <= 1 and abs(v) <= 1):
            redundancy[k, i, j] = loop_sample(plane, x, y, H, W)  # Eq. 5
    return attention, redundancy


def loop_restriction(gamma_res: list[float], E: tuple, T: tuple, eps: float) -> float:
    total = 0.0
    for value, e, t in zip(gamma_res, E, T, strict=True):
        over = abs(value - e) - t
        total += max(0.0, over) / (over + eps) * (value - e) ** 2
    return math.sqrt(total)  # Eq. 7


def loop_contrast(a: Tensor, r: Tensor, m: int, n: int, margin: float, normalize: bool) -> float:
    def d(f: list[float], g: list[float]) -> float:
        if normalize:
            f, g = ([v / math.hypot(*x) for v in x] for x in (f, g))
        return math.sqrt(sum((p - q) ** 2 for p, q in zip(f, g, strict=True)))

    a, r = a.tolist(), r.tolist()
    return max(d(r[m], r[n]) - d(r[m], a[m]) + margin, 0) + max(
        d(r[n], r[m]) - d(r[n], a[n]) + margin, 0
    )  # Eq. 8


def small(seed: int = 0, **switches: object) -> tuple[ART, art.AttentionRegularization]:
    torch.manual_seed(seed)
    method = ART([C], CLASSES, **switches).double()
    regularizer = method.regularizer().double()
    nn.init.normal_(regularizer.proposal.weight, std=0.3)
    return method, regularizer


class Second(nn.Module):
    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, C, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x).tanh()]


@pytest.mark.parametrize('size', [(8, 6), (7, 9)])
@pytest.mark.parametrize('seed', range(4))
def test_views(seed: int, size: tuple[int, int]) -> None:
    _, regularizer = small(seed)
    images = torch.randn(3, 2, *size, dtype=torch.float64)
    matrix, gamma_res = regularizer.propose([2 * torch.randn(3, C, 2, 2, dtype=torch.float64)])
    attention, redundancy = regularizer.views(images, matrix)
    h, w = (size[0] + 1) // 2, (size[1] + 1) // 2
    for n in range(3):
        a, r = loop_views(images[n], gamma_res[n].tolist(), h, w)
        torch.testing.assert_close(attention[n], a, atol=1e-10, rtol=0)
        torch.testing.assert_close(redundancy[n], r, atol=1e-10, rtol=0)


def test_views_at_known_parameters() -> None:
    """Half scale at the centre is the centre crop; turned by 90 degrees it is the turned crop."""
    _, regularizer = small(view_size=5)
    image = torch.rand(1, 2, 9, 9, dtype=torch.float64)
    for angle, turned in ((0.0, image), (math.pi / 2, image.rot90(-1, (2, 3)).rot90(2, (2, 3)))):
        gamma = torch.tensor([[0.0, 0.0, 0.5, angle]], dtype=torch.float64)
        attention, redundancy = regularizer.views(image, art.attention_matrix(gamma))
        torch.testing.assert_close(attention, turned[:, :, 2:7, 2:7], atol=1e-12, rtol=0)
        assert (redundancy[:, :, 1:4, 1:4] == 0).all()
        border = redundancy.clone()
        border[:, :, 1:4, 1:4] = image[:, :, 2:7:2, 2:7:2]
        torch.testing.assert_close(border, image[:, :, ::2, ::2], atol=1e-12, rtol=0)


def test_a_view_without_extent_covers_nothing() -> None:
    matrix = art.attention_matrix(torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -0.5, 0.0]]))
    inside = art.covered(matrix, 5, 5)
    assert inside[0].sum() == 0 and inside[1].sum() == 9


@pytest.mark.parametrize('seed', range(3))
def test_restriction(seed: int) -> None:
    torch.manual_seed(seed)
    gamma = 2 * torch.randn(6, 4, dtype=torch.float64)
    ours = art.restrict(gamma, 0.9, 0.5)
    for n, g in enumerate(gamma.tolist()):
        theirs = [0.9 * math.tanh(g[0]), 0.9 * math.tanh(g[1]), 0.5 * math.tanh(g[2]), g[3]]
        torch.testing.assert_close(ours[n].tolist(), theirs, atol=1e-12, rtol=0)  # Eq. 6
    E, T = (0.0, 0.1, 0.5, 0.0), (0.4, 0.3, 0.4, 1.0)
    loss = art.attention_restriction(ours, E, T, eps=1e-6)
    expected = [loop_restriction(g, E, T, 1e-6) for g in ours.tolist()]
    torch.testing.assert_close(loss.tolist(), expected, atol=1e-10, rtol=0)
    assert max(expected) > 0.1
    outside = ours.detach()[loss > 0].requires_grad_()
    call = lambda g: art.attention_restriction(g, E, T, eps=1e-13)  # noqa: E731
    assert torch.autograd.gradcheck(call, outside)


def test_restriction_inside_all_thresholds_is_zero_with_a_zero_gradient() -> None:
    gamma = torch.tensor([[0.0, 0.0, 0.5, 0.0], [0.4, -0.4, 0.1, 3.0]], requires_grad=True)
    loss = art.attention_restriction(gamma)
    loss.sum().backward()
    assert loss.tolist() == [0, 0] and gamma.grad.abs().max() == 0


@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('N', [1, 2, 4, 5])
def test_contrastive_term(N: int, normalize: bool) -> None:
    torch.manual_seed(N)
    a, r = (torch.randn(N, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    pairs = {1: [], 2: [(0, 1)], 4: [(0, 1), (2, 3)], 5: [(0, 1), (2, 3), (4, 0)]}[N]
    expected = [loop_contrast(a, r, m, n, 0.7, normalize) for m, n in pairs]
    loss = art.contrastive_reinforcement(a, r, 0.7, normalize)
    assert loss.item() == pytest.approx(sum(expected) / max(len(expected), 1), abs=1e-10)
    loss.backward()
    assert a.grad.isfinite().all() and (N == 1 or a.grad.abs().max() > 0)
    if N > 1:
        call = lambda a, r: art.contrastive_reinforcement(a, r, 0.7, normalize)  # noqa: E731
        assert torch.autograd.gradcheck(call, (a, r))


def test_equal_views_stay_finite() -> None:
    a = torch.zeros(3, 4, requires_grad=True)
    art.contrastive_reinforcement(a, a.clone()).backward()
    assert a.grad.isfinite().all()


@pytest.mark.parametrize('transform', ['attention', 'stn'])
@pytest.mark.parametrize('N', [1, 2, 3])
def test_total_and_its_gradients(N: int, transform: str) -> None:
    """Eq. 9 put together by hand; it reaches the first stream through the view's position."""
    method, regularizer = small(transform=transform)
    torch.manual_seed(N)
    second = Second().double()
    first = nn.Conv2d(2, C, 3, padding=1).double()
    images = torch.randn(N, 2, 8, 8, dtype=torch.float64)
    target = torch.arange(N) % CLASSES
    features = [first(images).tanh()]
    terms = regularizer(images, features, target, second)

    matrix, gamma_res = regularizer.propose(features)
    attention, redundancy = regularizer.views(images, matrix)
    logits = [
        regularizer.classifier(second(v)[-1].mean(dim=(2, 3))) for v in (attention, redundancy)
    ]
    expected = {
        'ce_attention': F.cross_entropy(logits[0], target),
        'contrastive': art.contrastive_reinforcement(*logits),
    }
    if transform == 'attention':
        expected['restriction'] = art.attention_restriction(gamma_res).mean()
    assert set(terms) == set(expected)
    for name in expected:
        torch.testing.assert_close(terms[name], expected[name], atol=1e-10, rtol=0)
    reach = torch.autograd.grad(terms['ce_attention'], first.weight, retain_graph=True)[0]
    assert reach.abs().max() > 1e-8
    (sum(terms.values()) + sum(method.loss(features, target).values())).backward()
    modules = (method, regularizer, second, first)
    assert all(p.grad.isfinite().all() for m in modules for p in m.parameters())


def test_no_gradient_reaches_gamma_through_the_redundancy() -> None:
    _, regularizer = small()
    images = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    matrix, _ = regularizer.propose([torch.randn(2, C, 2, 2, dtype=torch.float64)])
    attention, redundancy = regularizer.views(images, matrix)
    assert attention.requires_grad and not redundancy.requires_grad


def test_views_pass_gradcheck() -> None:
    _, regularizer = small()
    images = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    gamma = torch.tensor([[0.11, -0.07, 0.43, 0.3]], dtype=torch.float64, requires_grad=True)
    call = lambda g: regularizer.views(images, art.attention_matrix(g))[0]  # noqa: E731
    assert torch.autograd.gradcheck(call, gamma)


def test_the_first_proposal_is_nearly_the_expectation_for_every_image() -> None:
    regularizer = ART([C], CLASSES).regularizer()
    _, gamma_res = regularizer.propose([torch.randn(4, C, 3, 3)])
    expected = torch.tensor([0.0, 0.0, 0.45, 0.0]).expand(4, 4)
    torch.testing.assert_close(gamma_res, expected, atol=1e-6, rtol=0)
    assert art.attention_restriction(gamma_res).sum() == 0
    matrix, none = (
        ART([C], CLASSES, transform='stn').regularizer().propose([torch.randn(1, C, 2, 2)])
    )
    assert none is None and matrix.tolist() == [[[1, 0, 0], [0, 1, 0]]]


def test_restriction_can_be_switched_off() -> None:
    _, regularizer = small()
    regularizer.leave_out('restriction')
    images = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    features = [torch.randn(2, C, 2, 2, dtype=torch.float64)]
    terms = regularizer(images, features, torch.tensor([0, 1]), Second().double())
    assert set(terms) == {'ce_attention', 'contrastive'}
    regularizer.leave_out()
    assert 'restriction' in regularizer(images, features, torch.tensor([0, 1]), Second().double())
    with pytest.raises(ValueError, match='cannot leave out contrastive, only: restriction'):
        regularizer.leave_out('contrastive')


def test_views_have_the_size_that_is_asked_for() -> None:
    images = torch.randn(1, 3, 11, 8)
    for switches, adapter, size in (
        ({}, None, (6, 4)),
        ({}, (5, 7), (5, 7)),
        ({'view_size': 9}, (5, 7), (9, 9)),
        ({'view_size': (3, 4)}, None, (3, 4)),
    ):
        regularizer = ART([C], CLASSES, **switches).regularizer(adapter)
        matrix, _ = regularizer.propose([torch.randn(1, C, 2, 2)])
        for view in regularizer.views(images, matrix):
            assert view.shape == (1, 3, *size)


def test_constant_images_and_bfloat16_stay_finite() -> None:
    regularizer = ART([C], CLASSES).regularizer()
    second, first = Second(3), nn.Conv2d(3, C, 3)
    for N in (1, 2, 3):
        images = torch.zeros(N, 3, 12, 10)
        with torch.autocast('cpu', torch.bfloat16):
            terms = regularizer(images, [first(images)], torch.zeros(N, dtype=torch.long), second)
        sum(terms.values()).backward()
        assert all(v.isfinite() for v in terms.values())
        for module in (regularizer, second, first):
            assert all(p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize(
    ('switches', 'message'),
    [
        ({'transform': 'affine'}, "transform='affine'"),
        ({'alpha_s': 2}, 'alpha_s=2'),
        ({'alpha_p': 1.1}, r'alpha_p=1\.1'),
        ({'thresholds': (1, 1, 1)}, 'thresholds='),
        ({'expectation': (0, 0)}, 'expectation='),
        ({'view_size': 0}, 'view_size='),
    ],
)
def test_wrong_values(switches: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ART([3], 2, **switches)


def test_defaults() -> None:
    """Those of section 4.1: alpha, E and T of Eqs. 6 and 7, the margin of Eq. 8."""
    assert ART.default_taps == 1
    torch.manual_seed(0)
    features = [3 * torch.randn(8, C, 2, 2)]
    images, target, second = torch.randn(8, 2, 9, 7), torch.arange(8) % CLASSES, Second()
    spelt = dict(
        alpha_p=1.0, alpha_s=0.5, expectation=(0.0, 0.0, 0.5, 0.0),
        thresholds=(0.4, 0.4, 0.4, math.pi), margin=0.7, normalize=True, view_size=None,
        transform='attention',
    )  # fmt: skip
    given, told = (ART([C], CLASSES, **s).regularizer() for s in ({}, spelt))
    nn.init.normal_(given.proposal.weight)
    told.load_state_dict(given.state_dict())
    _, gamma_res = given.propose(features)
    for terms in (r(images, features, target, second) for r in (given, told)):
        assert terms['restriction'].item() == pytest.approx(
            sum(loop_restriction(g, spelt['expectation'], spelt['thresholds'], 1e-6)
                for g in gamma_res.tolist()) / 8, rel=1e-5,
        )  # fmt: skip
        f = given.classifier(second(torch.cat(given.views(images, given.propose(features)[0])))[0]
                             .mean(dim=(2, 3)))  # fmt: skip
        contrast = [loop_contrast(*f.chunk(2), m, m + 1, 0.7, True) for m in (0, 2, 4, 6)]
        assert terms['contrastive'].item() == pytest.approx(sum(contrast) / 4, rel=1e-4)
    assert method_defaults(ART) == spelt


def method_defaults(function: object) -> dict[str, object]:
    return {
        name: p.default
        for name, p in inspect.signature(function).parameters.items()
        if p.default is not inspect.Parameter.empty and name != 'embedding_channels'
    }


def test_defaults_of_the_equations() -> None:
    """Each entry of T is a limit: nothing just below it, something just above."""
    assert method_defaults(art.restrict) == {'alpha_p': 1.0, 'alpha_s': 0.5}
    E, T = (0.0, 0.0, 0.5, 0.0), (0.4, 0.4, 0.4, math.pi)
    for i, sign in itertools.product(range(4), (-1, 1)):
        for share, is_over in ((0.999, False), (1.001, True)):
            gamma = torch.tensor([E], dtype=torch.float64)
            gamma[0, i] += sign * share * T[i]
            loss = art.attention_restriction(gamma).item()
            expected = loop_restriction(gamma[0].tolist(), E, T, 1e-6) if is_over else 0
            assert loss == pytest.approx(expected, abs=1e-12) and (loss > 0) == is_over
    assert method_defaults(art.contrastive_reinforcement) == {'margin': 0.7, 'normalize': True}


def test_settings_reach_the_terms() -> None:
    method, regularizer = small(
        alpha_p=0.8, alpha_s=0.4, expectation=(0.1, 0.0, 0.3, 0.2), thresholds=(0.2, 0.1, 0.1, 0.3),
        margin=0.2, normalize=False,
    )  # fmt: skip
    second = Second().double()
    images = torch.randn(4, 2, 8, 8, dtype=torch.float64)
    features = [2 * torch.randn(4, C, 2, 2, dtype=torch.float64)]
    terms = regularizer(images, features, torch.arange(4) % CLASSES, second)
    gamma = regularizer.proposal(features[0].mean(dim=(2, 3))).tolist()
    rows = [[0.8 * math.tanh(x), 0.8 * math.tanh(y), 0.4 * math.tanh(s), a] for x, y, s, a in gamma]
    E, T = method.expectation, method.thresholds
    expected = sum(loop_restriction(row, E, T, 1e-6) for row in rows) / 4
    assert terms['restriction'].item() == pytest.approx(expected, abs=1e-8) and expected > 0.1
    both = torch.cat(regularizer.views(images, regularizer.propose(features)[0]))
    f = regularizer.classifier(second(both)[0].mean(dim=(2, 3)))
    contrast = [loop_contrast(*f.chunk(2), m, m + 1, 0.2, False) for m in (0, 2)]
    assert terms['contrastive'].item() == pytest.approx(sum(contrast) / 2, abs=1e-8)


@pytest.mark.parametrize('share', [-1.0, -0.95, -0.5, 0.0, 0.5, 0.95, 1.0])
def test_the_starting_bias(share: float) -> None:
    """E where tanh has a gradient: at most 0.9 of the range, on either side; the angle is free."""
    settings = dict(
        alpha_p=0.8, alpha_s=0.4, expectation=(0.8 * share, 0.8 * share, 0.4 * share, 2)
    )
    regularizer = ART([C], CLASSES, **settings).regularizer()
    assert not regularizer.proposal.weight.any()
    _, gamma_res = regularizer.propose([torch.randn(2, C, 3, 3)])
    start = max(-0.9, min(0.9, share))
    expected = torch.tensor([0.8 * start, 0.8 * start, 0.4 * start, 2.0]).expand(2, 4)
    torch.testing.assert_close(gamma_res, expected, atol=1e-6, rtol=0)
    gamma_res[:, 0].sum().backward()
    assert regularizer.proposal.bias.grad[0] > 0.1


def test_a_range_of_nothing_starts_at_nothing() -> None:
    regularizer = ART([C], CLASSES, alpha_p=0.0).regularizer()
    _, gamma_res = regularizer.propose([torch.randn(1, C, 2, 2)])
    assert gamma_res[0, :2].tolist() == [0, 0]


def test_the_step_of_the_restriction_is_a_constant_in_its_gradient() -> None:
    """Eq. 7's fraction, wide enough to see: the gradient is that of the weighted norm alone."""
    gamma = torch.tensor([[0.9, -0.7, 0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    art.attention_restriction(gamma, eps=0.5).backward()
    E, T = (0.0, 0.0, 0.5, 0.0), (0.4, 0.4, 0.4, math.pi)
    d = [g - e for g, e in zip(gamma[0].tolist(), E, strict=True)]
    step = [max(0, abs(v) - t) / (abs(v) - t + 0.5) for v, t in zip(d, T, strict=True)]
    norm = math.sqrt(sum(s * v * v for s, v in zip(step, d, strict=True)))
    assert gamma.grad[0].tolist() == pytest.approx(
        [s * v / norm for s, v in zip(step, d, strict=True)], abs=1e-12
    )
