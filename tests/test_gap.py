"""The control against its equation as loops in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers import loop_softmax
from torch import Tensor, nn

from fgplugins.methods.gap import GAP

C, CLASSES = 4, 3


def small(**switches: object) -> tuple[GAP, list[Tensor]]:
    """With a lower map beside the one that is read."""
    method = GAP([2, C], CLASSES, **switches).double()
    for p in method.parameters():
        nn.init.normal_(p)
    sizes = ((2, 5, 4), (C, 3, 2))
    return method, [torch.randn(3, *size, dtype=torch.float64) for size in sizes]


def loop_scores(method: GAP, F: Tensor) -> list[float]:
    _, H, W = F.shape
    means = [sum(float(v) for v in F[c].flatten()) / (H * W) for c in range(C)]
    weight, bias = method.classifier.weight.tolist(), method.classifier.bias.tolist()
    return [sum(weight[y][c] * means[c] for c in range(C)) + bias[y] for y in range(CLASSES)]


def loop_map(method: GAP, F: Tensor, y: int) -> Tensor:
    """Eq. 2 of the class activation maps, where it is positive."""
    M = torch.zeros(F.shape[1:], dtype=F.dtype)
    for i, j in itertools.product(*map(range, M.shape)):
        M[i, j] = max(sum(float(method.classifier.weight[y, c] * F[c, i, j]) for c in range(C)), 0)
    return M


def test_equations() -> None:
    method, features = small()
    scores, (masks,) = method(features), method.attention(features)
    signs = set()
    for n, F in enumerate(features[-1]):
        expected = loop_scores(method, F)
        assert scores[n].tolist() == pytest.approx(expected, abs=1e-10)
        predicted = max(range(CLASSES), key=expected.__getitem__)
        M = loop_map(method, F, predicted)
        torch.testing.assert_close(masks[n], M[None], atol=1e-10, rtol=0)
        signs |= set((M > 0).flatten().tolist())
    assert signs == {True, False}  # some of it is cut off
    torch.testing.assert_close(method.forward_paper(features), scores, atol=1e-10, rtol=0)


def test_loss_is_the_mean_cross_entropy() -> None:
    method, features = small()
    target = [2, 0, 0]
    terms = method.loss(features, torch.tensor(target))
    p = [loop_softmax(loop_scores(method, F))[y] for F, y in zip(features[-1], target, strict=True)]
    assert set(terms) == {'ce'}
    assert float(terms['ce']) == pytest.approx(-sum(map(math.log, p)) / 3, abs=1e-10)


def test_several_labels_are_trained_by_the_soft_margin() -> None:
    """Of every class on its own: -(t log sigmoid(s) + (1 - t) log(1 - sigmoid(s))), the mean."""
    method, features = small(multi_label=True)
    assert method.multi_label and not GAP.multi_label
    target = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    total = 0.0
    for F, labels in zip(features[-1], target, strict=True):
        for s, t in zip(loop_scores(method, F), labels, strict=True):
            p = 1 / (1 + math.exp(-s))
            total -= math.log(p if t else 1 - p)
    terms = method.loss(features, torch.tensor(target))
    assert set(terms) == {'soft_margin'}
    assert float(terms['soft_margin']) == pytest.approx(total / 9, abs=1e-10)


def test_several_labels_with_an_embedding() -> None:
    method = GAP([2, C], CLASSES, 7, multi_label=True).double()
    features, z = small()[1], torch.randn(3, 7, dtype=torch.float64)
    target = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    s = method.classifier(z)
    loss = nn.functional.binary_cross_entropy_with_logits(s, target.double())
    torch.testing.assert_close(method.loss(features, target, embedding=z)['soft_margin'], loss)


def test_a_class_of_several_labels_is_trained_as_such() -> None:
    class Labels(GAP):
        multi_label = True

    assert set(Labels([C], CLASSES).loss([torch.randn(2, C, 3, 2)], torch.eye(3)[:2])) == {
        'soft_margin'
    }


def test_size_and_order_of_positions_do_not_matter() -> None:
    method, features = small()
    tiled = [f.repeat(1, 1, 2, 3).flip(2, 3) for f in features]
    torch.testing.assert_close(method(tiled), method(features), atol=1e-12, rtol=0)


def test_it_reads_one_map_by_default_and_refuses_others() -> None:
    assert GAP.default_taps == 1
    method, features = small()
    for wrong in (features[-1:], [*features, features[-1]], features[::-1]):
        with pytest.raises(ValueError, match='the backbone gives'):
            method(wrong)
