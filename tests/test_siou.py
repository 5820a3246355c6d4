"""ICASC against its equations as loops in float64, and where its gradients go."""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.methods import siou
from fgplugins.methods.fast import second_order
from fgplugins.methods.fast.second_order import second_order_convolutions
from fgplugins.methods.siou import SIoU

C_IN, C_LAST, CLASSES = 4, 5, 4


class Net(nn.Module):
    """Two smooth stages, the second one continuing from the inner map."""

    def __init__(self, detach: bool = False) -> None:
        super().__init__()
        self.lower = nn.Conv2d(2, C_IN, 3, padding=1)
        self.upper = nn.Conv2d(C_IN, C_LAST, 3, stride=2, padding=1)
        self.detach = detach

    def forward(self, x: Tensor) -> list[Tensor]:
        inner = F.softplus(self.lower(x))
        return [inner.clone() if self.detach else inner, F.softplus(self.upper(inner.tanh()))]


def small(seed: int = 0, N: int = 3, **switches: object) -> tuple[Net, SIoU, Tensor, Tensor]:
    torch.manual_seed(seed)
    net, method = Net().double(), SIoU([C_IN, C_LAST], CLASSES, **switches).double()
    for p in [*net.parameters(), *method.parameters()]:
        nn.init.normal_(p, std=0.5)
    images = torch.randn(N, 2, 6, 4, dtype=torch.float64)
    return net, method, images, torch.arange(N) % CLASSES


def score_gradient(score: Tensor, feature: Tensor, n: int) -> list:
    """dY/dF of one image by autograd, as nested lists."""
    return torch.autograd.grad(score, feature, retain_graph=True)[0][n].tolist()


def loop_attention(feature: Tensor, gradient: list, kind: str) -> list[list[float]]:
    """Eqs. 1 to 5 for one image."""
    K, H, W = feature.shape
    Z = H * W
    A = [[0.0] * W for _ in range(H)]
    for i, j in itertools.product(range(H), range(W)):
        total = 0.0
        for k in range(K):
            cells = [gradient[k][a][b] for a in range(H) for b in range(W)]
            if kind == 'gradcam':
                total += sum(cells) / Z * float(feature[k, i, j])  # Eqs. 1, 2
            elif kind == 'channel':
                total += sum(max(g, 0) for g in cells) / Z * float(feature[k, i, j])  # Eqs. 3, 4
            else:
                total += gradient[k][i][j] * float(feature[k, i, j]) / K  # Eq. 5
        A[i][j] = max(total, 0.0)
    return A


def divided(A: list[list[float]]) -> list[list[float]]:
    top = max(map(max, A))
    return [[a / top if top else 0.0 for a in row] for row in A]


def loop_mask(A: list[list[float]]) -> list[list[float]]:
    sigma = 0.55 * max(map(max, A))
    return [[1 / (1 + math.exp(-100 * (a - sigma))) for a in row] for row in A]  # Eq. 7


def loop_siou(A_T: list, A_C: list, mask: list) -> float:
    cells = list(itertools.product(range(len(A_T)), range(len(A_T[0]))))
    over = sum(min(A_T[i][j], A_C[i][j]) * mask[i][j] for i, j in cells)
    under = sum(A_T[i][j] + A_C[i][j] for i, j in cells)
    return 2 * over / under if under else 0.0  # Eq. 6


def loop_terms(
    method: SIoU, features: list[Tensor], target: Tensor, kind: str
) -> dict[str, list[float]]:
    """Eqs. 6 to 8 image by image; the gradients by autograd through the whole network."""
    inner, last = features
    scores = method(features)
    rows: dict[str, list[float]] = {'siou_inner': [], 'siou_last': [], 'consistency': []}
    for n, t in enumerate(target.tolist()):
        wrong = max((c for c in range(CLASSES) if c != t), key=lambda c: float(scores[n, c]))
        A = {
            (level, c): divided(
                loop_attention(feature[n], score_gradient(scores[n, c], feature, n), kind)
            )
            for level, feature in (('in', inner), ('last', last))
            for c in (t, wrong)
        }
        mask = loop_mask(A['last', t])
        rows['siou_last'].append(loop_siou(A['last', t], A['last', wrong], mask))
        grown = F.interpolate(
            torch.tensor(mask, dtype=torch.float64)[None, None], inner.shape[2:], mode='bilinear'
        )[0, 0].tolist()
        rows['siou_inner'].append(loop_siou(A['in', t], A['in', wrong], grown))
        cells = list(itertools.product(range(inner.shape[2]), range(inner.shape[3])))
        total = sum(A['in', t][i][j] for i, j in cells)
        inside = sum(A['in', t][i][j] * grown[i][j] for i, j in cells)
        rows['consistency'].append(1 - inside / total if total else 0.0)  # Eq. 8, alpha = 1
    return rows


def last_attention(method: SIoU, features: list[Tensor], direction: Tensor) -> Tensor:
    z = features[-1].mean(dim=(2, 3))
    return method.class_attentions(features, [(direction, ['last'])], z, True)[0]['last']


def inner_attention(method: SIoU, features: list[Tensor], direction: Tensor) -> Tensor:
    z = features[-1].mean(dim=(2, 3))
    return method.class_attentions(features, [(direction, ['inner'])], z)[0]['inner']


@pytest.mark.parametrize('seed', [0, 1])
@pytest.mark.parametrize('kind', siou.KINDS)
def test_equations(kind: str, seed: int) -> None:
    net, method, images, target = small(seed, kind=kind)
    features = net(images)
    ours = method.loss(features, target)
    for name, rows in loop_terms(method, features, target, kind).items():
        assert float(ours[name]) == pytest.approx(sum(rows) / len(rows), abs=1e-10), name
    assert float(ours['siou_inner']) > 0.01 and float(ours['consistency']) > 0.01
    total = sum(ours.values()) - ours['ce']
    weighted = SIoU([C_IN, C_LAST], CLASSES, kind, inner_weight=2, last_weight=2,
                    consistency_weight=2).double()  # fmt: skip
    weighted.load_state_dict(method.state_dict())
    double = weighted.loss(net(images), target)
    torch.testing.assert_close(sum(double.values()) - double['ce'], 2 * total)


@pytest.mark.parametrize('kind', siou.KINDS)
def test_closed_form_of_the_last_level(kind: str) -> None:
    """W_ck / Z is the gradient behind pooling and a linear layer: values and gradients agree."""
    net, method, images, target = small(kind=kind)
    features = net(images)
    scores = method(features)
    own = F.one_hot(target, CLASSES).double()
    closed = last_attention(method, features, own)
    (gradient,) = torch.autograd.grad((scores * own).sum(), features[-1], create_graph=True)
    slow = siou.class_attention(features[-1], gradient, kind)
    torch.testing.assert_close(closed, slow, atol=1e-12, rtol=0)
    weights = [*net.parameters(), method.classifier.weight]
    for fast, naive in zip(
        torch.autograd.grad(closed.square().sum(), weights, retain_graph=True),
        torch.autograd.grad(slow.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(fast, naive, atol=1e-12, rtol=0)


@pytest.mark.parametrize('kind', siou.KINDS)
@pytest.mark.parametrize('term', ['siou_inner', 'siou_last', 'consistency'])
def test_gradients(kind: str, term: str) -> None:
    """Every term's derivative by the network's weights, the second-order part included."""
    net, method, images, target = small(seed=3, N=2, kind=kind, omega=5.0)

    def value(lower: Tensor, upper: Tensor, classifier: Tensor) -> Tensor:
        net_weights = {'lower.weight': lower, 'upper.weight': upper}
        features = torch.func.functional_call(net, net_weights, images)
        return torch.func.functional_call(_Loss(method), {'method.classifier.weight': classifier},
                                          (features, target))[term]  # fmt: skip

    weights = [net.lower.weight, net.upper.weight, method.classifier.weight]
    weights = [w.detach().clone().requires_grad_() for w in weights]
    assert torch.autograd.gradcheck(value, weights, eps=1e-7, atol=1e-5)


def naive_loss(
    net: Net, method: SIoU, images: Tensor, target: Tensor, detach: bool
) -> tuple[Tensor, Tensor]:
    """Eqs. 3, 4 and 6 to 8 image by image, by plain autograd through the whole network."""
    features = net(images)
    scores = method.classifier(features[1].mean(dim=(2, 3)))
    separation, consistency = [], []
    for n, t in enumerate(target.tolist()):
        wrong = max((c for c in range(CLASSES) if c != t), key=lambda c: float(scores[n, c]))
        A = {}
        for level, c in itertools.product((0, 1), (t, wrong)):
            F_n, (dF,) = features[level][n], torch.autograd.grad(
                scores[n, c], features[level], create_graph=True
            )  # fmt: skip
            alpha = dF[n].clamp_min(0).sum(dim=(1, 2)) / F_n[0].numel()  # Eq. 3
            a = (alpha[:, None, None] * F_n).sum(dim=0).clamp_min(0)  # Eq. 4
            A[level, c] = a / a.max()
        last = A[1, t]
        mask = 1 / (1 + torch.exp(-method.omega * (last - method.sigma * last.max())))  # Eq. 7
        mask = mask.detach() if detach else mask
        size = features[0].shape[2:]
        grown = F.interpolate(mask[None, None], size, mode='bilinear')[0, 0]
        for level, inside in ((0, grown), (1, mask)):
            T, C = A[level, t], A[level, wrong]
            separation.append(2 * (torch.minimum(T, C) * inside).sum() / (T + C).sum())  # Eq. 6
        consistency.append(1 - (A[0, t] * grown).sum() / A[0, t].sum())  # Eq. 8
    return sum(separation) / len(target), sum(consistency) / len(target)


@pytest.mark.parametrize('detach', [False, True])
def test_gradients_through_the_mask(detach: bool) -> None:
    """Left in or cut, to the naive form's digits; the values are the same either way."""
    net, method, images, target = small(seed=1, omega=5.0, detach_mask=detach)
    terms = method.loss(net(images), target)
    weights = [net.lower.weight, net.upper.weight, method.classifier.weight]
    ours = {
        'separation': terms['siou_inner'] + terms['siou_last'],
        'consistency': terms['consistency'],
    }
    for name, naive, other in zip(
        ours,
        naive_loss(net, method, images, target, detach),
        naive_loss(net, method, images, target, not detach),
        strict=True,
    ):
        torch.testing.assert_close(ours[name], naive, atol=1e-10, rtol=0)
        torch.testing.assert_close(ours[name], other, atol=1e-10, rtol=0)
        found, expected, others = (
            torch.autograd.grad(value, weights, retain_graph=True)
            for value in (ours[name], naive, other)
        )
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)
        assert any((a - b).abs().max() > 1e-4 for a, b in zip(found, others, strict=True))


class _Loss(nn.Module):
    def __init__(self, method: SIoU) -> None:
        super().__init__()
        self.method = method

    def forward(self, features: list[Tensor], target: Tensor) -> dict[str, Tensor]:
        return self.method.loss(features, target)


@pytest.mark.parametrize('kind', siou.KINDS)
def test_attention_of_smooth_gradients_passes_gradgradcheck(kind: str) -> None:
    torch.manual_seed(0)
    feature = torch.rand(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    gradient = torch.rand(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    call = lambda f, g: siou.class_attention(f, g, kind)  # noqa: E731
    assert torch.autograd.gradcheck(call, (feature, gradient))
    assert torch.autograd.gradgradcheck(call, (feature, gradient))


def test_second_order_terms_reach_the_backbone() -> None:
    """The loss with the gradients taken as constants has another derivative than ours."""
    net, method, images, target = small(
        kind='pixel', last_weight=0, consistency_weight=0, omega=0.0
    )
    terms = method.loss(net(images), target)
    ours = torch.autograd.grad(terms['siou_inner'], net.upper.weight)[0]
    assert ours.abs().max() > 1e-4
    # the mask is constant, so the upper stage meets the inner term only through dY/dF
    original = torch.autograd.grad

    def first_order(*args: object, **kwargs: object) -> tuple:
        return tuple(g.detach() for g in original(*args, **{**kwargs, 'create_graph': False}))

    features = net(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, 'grad', first_order)
        cut = method.loss(features, target)['siou_inner']
    assert original(cut, net.upper.weight, retain_graph=True)[0].abs().max() == 0
    assert not torch.allclose(
        original(cut, net.lower.weight)[0],
        original(method.loss(net(images), target)['siou_inner'], net.lower.weight)[0],
    )


def test_a_copy_of_the_inner_map_is_refused() -> None:
    net, method, images, target = small()
    net.detach = True
    with pytest.raises(ValueError, match='no gradient there'):
        method.loss(net(images), target)
    net.detach = False
    with torch.no_grad(), pytest.raises(ValueError, match='with gradients on'):
        method.attention(net(images))


def test_properties_of_the_overlap() -> None:
    A, B = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    A[:, :2], B[:, 2:] = 1, 1
    whole = torch.ones(1, 4, 4)
    assert siou.soft_iou(A, B, whole).item() == 0  # apart
    assert siou.soft_iou(A, A, whole).item() == 1  # one and the same
    assert siou.soft_iou(A, A, 0 * whole).item() == 0  # outside the object
    assert siou.attention_consistency(A, A).item() == 0  # inside the mask
    assert siou.attention_consistency(A, B).item() == 1  # outside
    region = siou.target_region(torch.tensor([[[0.0, 0.5, 0.6, 1.0]]]))
    torch.testing.assert_close(region, torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), atol=0.01, rtol=0)


def test_the_scale_of_the_features_does_not_matter() -> None:
    net, method, images, target = small()
    features = net(images)
    d = F.one_hot(target, CLASSES).double()
    A = siou.normalized(last_attention(method, features, d))
    B = siou.normalized(last_attention(method, [features[0], 1e-3 * features[1]], d))
    torch.testing.assert_close(A, B, atol=1e-9, rtol=0)


@pytest.mark.parametrize('kind', siou.KINDS)
@pytest.mark.parametrize('N', [1, 2, 5])
@pytest.mark.parametrize('case', ['empty', 'constant', 'equal scores', 'zero weights'])
def test_degenerate_maps_stay_finite(kind: str, N: int, case: str) -> None:
    torch.manual_seed(0)
    base = torch.zeros(N, C_IN, 6, 4, requires_grad=True)
    weight = torch.randn(C_LAST, C_IN, 3, 3, requires_grad=True)
    method = SIoU([C_IN, C_LAST], CLASSES, kind)
    if case == 'zero weights':
        nn.init.zeros_(method.classifier.weight)
    if case == 'equal scores':
        with torch.no_grad():
            method.classifier.weight.copy_(method.classifier.weight[:1].repeat(CLASSES, 1))
            method.classifier.bias.zero_()
    inner = (base + (0.0 if case == 'empty' else 1.0)).relu()
    last = F.conv2d(inner, weight, stride=2, padding=1).relu()
    terms = method.loss([inner, last], torch.zeros(N, dtype=torch.long))
    sum(terms.values()).backward()
    assert all(v.isfinite() for v in terms.values())
    assert all(p.grad.isfinite().all() for p in (base, weight, *method.parameters()))
    if case == 'empty':
        assert terms['siou_inner'] == terms['siou_last'] == terms['consistency'] == 0


def test_directions() -> None:
    method = SIoU([C_IN, C_LAST], 3)
    scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    own, other = method.directions(scores, torch.tensor([0, 2]))
    assert own.tolist() == [[1, 0, 0], [0, 0, 1]] and other.tolist() == [[0, 1, 0], [1, 0, 0]]
    smooth = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.6, 0.35]])
    own, other = method.directions(scores, smooth)
    assert (own > 0).tolist() == [[True, False, False], [False, True, True]]
    assert other.tolist() == [[0, 1, 0], [1, 0, 0]]
    several = SIoU([C_IN, C_LAST], 3, multi_label=True)
    own, other = several.directions(scores, torch.tensor([[1, 1, 0], [1, 1, 1]]))
    assert own.tolist() == [[1, 1, 0], [1, 1, 1]] and other.tolist() == [[0, 0, 1], [0, 0, 0]]


def test_several_labels() -> None:
    """Section 4.3: the derivative of the sum of the labels' scores; the multi-label soft margin."""
    net, method, images, _ = small(multi_label=True)
    target = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)
    features = net(images)
    terms = method.loss(features, target)
    s = method(features)
    margin = -(target * F.logsigmoid(s) + (1 - target) * F.logsigmoid(-s)).mean(dim=1).mean()
    torch.testing.assert_close(terms['soft_margin'], margin, atol=1e-12, rtol=0)
    d, _ = method.directions(s.detach(), target)
    (gradient,) = torch.autograd.grad((s * target).sum(), features[0], retain_graph=True)
    torch.testing.assert_close(
        inner_attention(method, features, d),
        siou.class_attention(features[0], gradient, 'channel'), atol=1e-12, rtol=0,
    )  # fmt: skip
    assert all(v.isfinite() for v in terms.values())
    sum(terms.values()).backward()


def test_attention_shows_the_prediction_and_its_rival_or_what_is_asked() -> None:
    net, method, images, _ = small()
    features = net(images)
    order = method(features).argsort(dim=1, descending=True)
    inner, last = method.attention(features)
    assert inner.shape == (3, 2, 6, 4) and last.shape == (3, 2, 3, 2)
    for k in range(2):
        d = F.one_hot(order[:, k], CLASSES).double()
        torch.testing.assert_close(last[:, k], last_attention(method, features, d))
    asked = method.attention(features, classes=[2, 0, 1])
    assert asked[0].shape == (3, 3, 6, 4) and not asked[0].requires_grad


@pytest.mark.parametrize(
    ('switches', 'message'),
    [({'kind': 'cam'}, "kind='cam'.*channel, pixel, gradcam"), ({'in_channels': [3]}, 'reads 2')],
)
def test_wrong_values(switches: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SIoU(**{'in_channels': [3, 4], 'num_classes': 2, **switches})


@pytest.mark.parametrize(
    'options',
    [{}, {'stride': 2, 'padding': 1}, {'groups': 2}, {'dilation': 2, 'bias': False}],
    ids=str,
)
def test_second_order_convolutions_are_torchs_own(options: dict) -> None:
    """Values, gradients and gradients of gradients; gradgradcheck in float64."""
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, **options).double()
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64, requires_grad=True)
    results = []
    for mode in (second_order_convolutions(), nullcontext()):
        with mode:
            y = layer(x).tanh()
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        second = torch.autograd.grad(g.pow(3).sum(), [x, *layer.parameters()], allow_unused=True)
        results.append([y, g, *second])
    for ours, theirs in zip(*results, strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)

    def call(x: Tensor, *weights: Tensor) -> Tensor:
        names = [name for name, _ in layer.named_parameters()]
        with second_order_convolutions():
            return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), x)

    weights = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(call, (x, *weights))
    assert torch.autograd.gradgradcheck(call, (x, *weights))


def test_recording_changes_no_gradient() -> None:
    """The whole loss through a strided network, with torch's own convolutions and with ours."""
    net, method, images, target = small(kind='pixel')
    found = []
    for features in (method.features_for_loss(net, images), net(images)):
        loss = sum(method.loss(features, target).values())
        found.append(torch.autograd.grad(loss, [*net.parameters(), *method.parameters()]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_recording_under_autocast() -> None:
    net, method, images, target = small()
    net.float(), method.float()
    with torch.autocast('cpu', torch.bfloat16):
        features = method.features_for_loss(net, images.float())
        terms = method.loss(features, target)
    sum(terms.values()).backward()
    assert features[1].dtype == torch.bfloat16
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_defaults() -> None:
    """Section 4: channel-weighted attention, omega 100, sigma 0.55, every weight 1."""
    assert SIoU.default_taps == 2
    assert SIoU.needs_gradient_path and tuple(SIoU.head_names) == ('predicted', 'rival')
    net, method, images, target = small(seed=5)
    spelt = SIoU(
        [C_IN, C_LAST], CLASSES, kind='channel', omega=100.0, sigma=0.55, alpha=1.0,
        inner_weight=1.0, last_weight=1.0, consistency_weight=1.0, multi_label=False,
        detach_mask=False,
    ).double()  # fmt: skip
    spelt.load_state_dict(method.state_dict())
    ours, theirs = (m.loss(net(images), target) for m in (method, spelt))
    assert set(ours) == set(theirs) == {'ce', 'siou_inner', 'siou_last', 'consistency'}
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-12, rtol=0)
    A = torch.rand(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(siou.target_region(A), siou.target_region(A, 100.0, 0.55))
    torch.testing.assert_close(
        siou.attention_consistency(A, A), siou.attention_consistency(A, A, 1.0)
    )


def test_settings_reach_the_terms() -> None:
    """Eqs. 7 to 9 with other numbers, from the attention that the method itself gives."""
    weights = dict(inner_weight=0.5, last_weight=3.0, consistency_weight=2.0)
    settings = dict(omega=7.0, sigma=0.3, alpha=0.8)
    net, method, images, target = small(seed=2, **settings, **weights)
    features = net(images)
    terms = method.loss(features, target)
    d_T, d_C = method.directions(method(features).detach(), target)
    last, other = (siou.normalized(last_attention(method, features, d)) for d in (d_T, d_C))
    inner, rival = (siou.normalized(inner_attention(method, features, d)) for d in (d_T, d_C))
    mask = 1 / (1 + torch.exp(-7.0 * (last - 0.3 * last.amax(dim=(1, 2), keepdim=True))))
    grown = siou.resize_mask(mask, inner)
    consistency = (inner * (0.8 - grown)).sum(dim=(1, 2)) / inner.sum(dim=(1, 2))
    expected = {
        'siou_inner': 0.5 * siou.soft_iou(inner, rival, grown).mean(),
        'siou_last': 3.0 * siou.soft_iou(last, other, mask).mean(),
        'consistency': 2.0 * consistency.mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, atol=1e-12, rtol=0)
        assert abs(value) > 0.01
    assert float(terms['ce']) == pytest.approx(F.cross_entropy(method(features), target).item())


@pytest.mark.parametrize('weights', list(itertools.product((0.0, 1.0), repeat=3)), ids=str)
def test_a_weight_of_nothing_leaves_its_term_out(weights: tuple[float, ...]) -> None:
    names = ('inner_weight', 'last_weight', 'consistency_weight')
    net, method, images, target = small(**dict(zip(names, weights, strict=True)))
    features = net(images)
    if not (weights[0] or weights[2]):  # and then nothing is asked of the inner map
        features = [features[0].detach(), features[1]]
    terms = method.loss(features, target)
    keys = ('siou_inner', 'siou_last', 'consistency')
    assert set(terms) == {'ce', *(k for k, weight in zip(keys, weights, strict=True) if weight)}


def test_a_map_of_one_position_and_small_attention_are_not_lost() -> None:
    """What keeps a division from 0/0 is far below any attention there is."""
    A = torch.full((2, 3, 3), 1e-8, dtype=torch.float64)
    A[1] = 0
    assert siou.normalized(A).amax(dim=(1, 2)).tolist() == [1, 0]
    whole = torch.ones_like(A)
    assert siou.soft_iou(A, A, whole).tolist() == pytest.approx([1, 0])
    assert siou.attention_consistency(A, 0 * A).tolist() == pytest.approx([1, 0])


def test_one_class_has_no_rival_to_show() -> None:
    net, _, images, _ = small()
    method = SIoU([C_IN, C_LAST], 1).double()
    assert [A.shape[1] for A in method.attention(net(images))] == [1, 1]


def test_soft_labels_weight_their_scores() -> None:
    """Mixup: the derivative of 0.7 of one class's score and 0.3 of another's; a half is a label."""
    method = SIoU([C_IN, C_LAST], 3)
    scores = torch.tensor([[1.0, 3.0, 2.0]])
    own, other = method.directions(scores, torch.tensor([[0.7, 0.3, 0.0]]))
    torch.testing.assert_close(own, torch.tensor([[0.7, 0.3, 0.0]]))
    assert other.tolist() == [[0, 0, 1]]
    several = SIoU([C_IN, C_LAST], 3, multi_label=True)
    own, other = several.directions(scores, torch.tensor([[0.55, 0.45, 0.0]]))
    assert (own > 0).tolist() == [[True, False, False]] and other.tolist() == [[0, 1, 0]]


def test_masks_are_resized_with_pixel_centres_at_half() -> None:
    """1, 0 becomes 1, 3/4, 1/4, 0."""
    grown = siou.resize_mask(torch.tensor([[[1.0, 0.0]]]), torch.zeros(1, 1, 4))
    assert grown.tolist() == [[[1.0, 0.75, 0.25, 0.0]]]


@pytest.mark.parametrize('kind', siou.KINDS)
def test_attention_is_that_of_the_equations(kind: str) -> None:
    """At both levels, undivided: Eqs. 1 to 5 by loops, of the predicted class and of its rival."""
    net, method, images, _ = small(seed=1, kind=kind)
    features = net(images)
    scores = method(features)
    order = scores.argsort(dim=1, descending=True)
    for feature, maps in zip(features, method.attention(features), strict=True):
        for n, k in itertools.product(range(3), range(2)):
            gradient = score_gradient(scores[n, order[n, k]], feature, n)
            expected = torch.tensor(loop_attention(feature[n], gradient, kind), dtype=maps.dtype)
            torch.testing.assert_close(maps[n, k], expected, atol=1e-12, rtol=1e-9)


def test_weights_between_two_levels_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their gradients would be computed for nobody; afterwards they are computed again."""
    net, method, images, target = small()
    masks, backward = [], second_order._backward

    def recorded(g: Tensor, x: Tensor, w: Tensor, settings: tuple, mask: list) -> tuple:
        masks.append(list(mask))
        return backward(g, x, w, settings, mask)

    monkeypatch.setattr(second_order, '_backward', recorded)
    inner, last = method.features_for_loss(net, images)
    direction = F.one_hot(target, CLASSES).double()
    inner_attention(method, [inner, last], direction)
    assert masks and all(mask == [True, False, False] for mask in masks)
    masks.clear()
    torch.autograd.grad(last.sum(), [inner, *net.upper.parameters()])
    assert masks and all(mask[1] for mask in masks)
