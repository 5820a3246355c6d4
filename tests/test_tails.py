"""What stands between the last map and the classifier: maps of classes are derivatives through it.

Against plain autograd of the score, in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.methods import NoClassMap, siou
from fgplugins.methods.gap import GAP
from fgplugins.methods.siou import SIoU

C_IN, C_LAST, D, CLASSES = 4, 5, 7, 4
TARGET = torch.tensor([2, 0, 3])


class Passed(torch.autograd.Function):
    """The identity, which counts how often a gradient comes by."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, seen: list) -> Tensor:
        ctx.seen = seen
        return x.view_as(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple:
        ctx.seen.append(1)
        return gradient.view_as(gradient), None


class Net(nn.Module):
    """An inner map, a last map, and a tail as ConvNeXt's (a normalisation) or VGG's (an MLP)."""

    def __init__(self, tail: str) -> None:
        super().__init__()
        self.lower = nn.Conv2d(2, C_IN, 3, padding=1)
        self.upper = nn.Conv2d(C_IN, C_LAST, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(C_LAST)
        self.first, self.second = nn.Linear(C_LAST * 6 if tail == 'vgg' else C_LAST, 9), None
        self.second = nn.Linear(9, D)
        self.tail = tail
        self.above: list[int] = []
        self.below: list[int] = []

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        inner = F.softplus(Passed.apply(self.lower(x), self.below))
        last = F.softplus(self.upper(Passed.apply(inner, self.above).tanh()))
        z = last.flatten(1) if self.tail == 'vgg' else self.norm(last.mean(dim=(2, 3)))
        return [inner, last], self.second(self.first(z).tanh())


def small(tail: str, cls: type[GAP] = SIoU, **switches: object) -> tuple[Net, GAP, Tensor]:
    torch.manual_seed(3)
    channels = [C_IN, C_LAST][-cls.default_taps :]
    net, method = Net(tail), cls(channels, CLASSES, embedding_channels=D, **switches)
    for p in [*net.parameters(), *method.parameters()]:
        nn.init.normal_(p, std=0.6)
    if tail == 'vgg':
        del net.norm
    return net.double(), method.double(), torch.randn(3, 2, 6, 4, dtype=torch.float64)


def plain_attention(feature: Tensor, gradient: Tensor, kind: str) -> Tensor:
    """Eqs. 1 to 5, of one image after the other."""
    maps = []
    for f, g in zip(feature, gradient, strict=True):
        K, Z = f.shape[0], f.shape[1] * f.shape[2]
        if kind == 'pixel':
            A = sum(g[k] * f[k] for k in range(K)) / K  # Eq. 5
        else:
            g = g.relu() if kind == 'channel' else g
            A = sum(g[k].sum() / Z * f[k] for k in range(K))  # Eqs. 1 to 4
        maps.append(A.relu())
    return torch.stack(maps)


def plain_maps(
    features: list[Tensor], scores: Tensor, classes: Tensor, kind: str
) -> tuple[Tensor, Tensor]:
    """A at both levels, by autograd of each image's score of a class."""
    total = scores.gather(1, classes[:, None]).sum()
    gradients = torch.autograd.grad(total, features, create_graph=True)
    A_in, A_last = (plain_attention(*both, kind) for both in zip(features, gradients, strict=True))
    return A_in, A_last


def plain_terms(
    method: SIoU, features: list[Tensor], scores: Tensor, target: Tensor
) -> dict[str, Tensor]:
    """Eqs. 6 to 9."""
    rival = scores.detach().scatter(1, target[:, None], float('-inf')).argmax(dim=1)
    kind = method.kind
    T_in, T_last = map(siou.normalized, plain_maps(features, scores, target, kind))
    C_in, C_last = map(siou.normalized, plain_maps(features, scores, rival, kind))
    mask = siou.target_region(T_last, method.omega)
    grown = siou.resize_mask(mask, T_in)
    return {
        'ce': F.cross_entropy(scores, target),
        'siou_inner': siou.soft_iou(T_in, C_in, grown).mean(),
        'siou_last': siou.soft_iou(T_last, C_last, mask).mean(),
        'consistency': siou.attention_consistency(T_in, grown).mean(),
    }


def gradients_of(terms: dict[str, Tensor], weights: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(sum(terms.values()), weights)
    assert all(g.abs().max() > 1e-8 for g in found)
    return list(found)


def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize('kind', siou.KINDS)
@pytest.mark.parametrize('tail', ['convnext', 'vgg'])
def test_siou_through_a_tail(tail: str, kind: str) -> None:
    net, method, images = small(tail, kind=kind, omega=5.0)
    features, z = net(images)
    scores = method(features, embedding=z)
    for c in range(CLASSES):
        d = F.one_hot(torch.full((3,), c), CLASSES).double()
        (ours,) = method.class_attentions(features, [(d, ('inner', 'last'))], z)
        expected = plain_maps(features, scores, d.argmax(dim=1), kind)
        same(ours['inner'], expected[0])
        same(ours['last'], expected[1])
    ours = method.loss(features, TARGET, embedding=z)
    theirs = plain_terms(method, features, scores, TARGET)
    assert set(ours) == set(theirs)
    for name, term in theirs.items():
        same(ours[name], term)
    assert min(float(term) for term in ours.values()) > 1e-3
    weights = [*net.parameters(), *method.parameters()]
    again, z = net(images)
    theirs = plain_terms(method, again, method(again, embedding=z), TARGET)
    for one, other in zip(gradients_of(ours, weights), gradients_of(theirs, weights), strict=True):
        same(one, other)


@pytest.mark.parametrize('tail', ['convnext', 'vgg'])
def test_one_product_a_class(tail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the tail and the layers above the inner map, and none below."""
    net, method, images = small(tail)
    features, z = net(images)
    calls, original = [], torch.autograd.grad

    def counted(*args: object, **kwargs: object) -> tuple:
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, 'grad', counted)
    method.loss(features, TARGET, embedding=z)
    assert len(calls) == len(net.above) == 2 and not net.below
    method.attention(features, embedding=z, classes=[0, 1, 3])
    assert len(calls) == len(net.above) == 5 and not net.below


def moved(name: str, method: str, **kwargs: object) -> nn.Module:
    """In double, with weights that are not those of a new network."""
    torch.manual_seed(0)
    model = timm.create_model(method, backbone=name, num_classes=CLASSES, **kwargs).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model


NETWORKS = {'test_convnext': {}, 'test_efficientnet': {}, 'vgg11': {'mlp_ratio': 1 / 64}}


@pytest.mark.parametrize('kind', siou.KINDS)
@pytest.mark.parametrize('name', NETWORKS)
def test_siou_on_a_network(name: str, kind: str) -> None:
    model = moved(name, 'siou', kind=kind, **NETWORKS[name])
    x, target = torch.randn(2, 3, 64, 64, dtype=torch.float64), torch.tensor([1, 3])
    features, given = model.method.split(model.read(x))
    scores = model.method(features, **given)
    assert ('embedding' in given) == (name != 'test_efficientnet')  # whose tail is a mean
    ours = model.method.loss(features, target, **given)
    theirs = plain_terms(model.method, features, scores, target)
    for term in theirs:
        same(ours[term], theirs[term])
    weights = list(model.parameters())
    ours = torch.autograd.grad(sum(ours.values()), weights, retain_graph=True)
    theirs = torch.autograd.grad(sum(theirs.values()), weights)
    for one, other in zip(ours, theirs, strict=True):
        same(one, other)


def plain_cam(scores: Tensor, last: Tensor) -> Tensor:
    """HW times the derivative of the highest score, where it raises that."""
    (gradient,) = torch.autograd.grad(scores.amax(dim=1).sum(), last, retain_graph=True)
    HW = last.shape[2] * last.shape[3]
    return (HW * gradient * last).sum(dim=1, keepdim=True).relu()


@pytest.mark.parametrize('tail', ['convnext', 'vgg'])
def test_class_activation_through_a_tail(tail: str) -> None:
    net, method, images = small(tail, GAP)
    features, z = net(images)
    (ours,) = method.attention(features[-1:], embedding=z)
    same(ours, plain_cam(method(features[-1:], embedding=z), features[-1]))
    assert (ours > 0).any() and len(net.above) == 0


@pytest.mark.parametrize('name', NETWORKS)
def test_class_activation_of_a_network(name: str) -> None:
    model = moved(name, 'gap', **NETWORKS[name])
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    (ours,) = model.attention_maps(x)
    features, given = model.method.split(model.read(x))
    same(ours, plain_cam(model.method(features, **given), features[-1]).detach())


def test_the_closed_form_is_the_derivative() -> None:
    """A tail that averages, and nothing else, by both ways."""
    torch.manual_seed(0)
    feature = torch.randn(3, C_LAST, 3, 2, dtype=torch.float64, requires_grad=True)
    z = feature.mean(dim=(2, 3))
    closed = GAP([C_LAST], CLASSES).double()
    given = GAP([C_LAST], CLASSES, embedding_channels=C_LAST).double()
    given.load_state_dict(closed.state_dict())
    same(given.attention([feature], embedding=z)[0], closed.attention([feature])[0])
    same(given([feature], embedding=z), closed([feature]))


@pytest.mark.parametrize('method', ['gap', 'art'])
@pytest.mark.parametrize(
    'build', [lambda m: m.attention_maps, lambda m: lambda x: m.method.show(m.read, x)]
)
def test_a_class_token_has_no_map(method: str, build: Callable) -> None:
    model = timm.create_model(method, backbone='test_vit', num_classes=3).eval()
    with pytest.raises(NoClassMap, match='a class token for example, does not depend on the last'):
        build(model)(torch.randn(1, 3, *model.input_size))
