"""att2 against its equations as loops in float64, and what it proves about g."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from fgplugins.methods.att2 import Att2

CHANNELS = (3, 4)


def loop_softmax(values: list[float]) -> list[float]:
    exponentials = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def loop_att2(
    model: Att2, features: list[Tensor], g_given: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """Eqs. 1 to 3 and section 3.1, in eval mode, one image and one position at a time.

    ``g_given`` is used even where the model has no global branch: the paper's form.
    """
    all_scores, all_masks = [], [[] for _ in features]
    for n in range(len(features[0])):
        pooled = []
        for s, level in enumerate(features):
            L = level[n]
            C, H, W = L.shape
            positions = list(itertools.product(range(H), range(W)))
            g = None if g_given is None else g_given[n]
            if g is not None and len(g) != C:
                projection = model.projections[str(C)]
                g = projection.weight @ g + projection.bias
            c = []
            for x, y in positions:
                local = [float(v) for v in L[:, x, y]]
                if model.compat == 'dp':
                    c.append(sum(local[i] * float(g[i]) for i in range(C)))  # Eq. 3
                else:
                    u = model.u[s].weight[0]
                    both = [local[i] + (0.0 if g is None else float(g[i])) for i in range(C)]
                    c.append(sum(float(u[i]) * both[i] for i in range(C)))  # Eq. 2
                    if model.u[s].bias is not None:
                        c[-1] += float(model.u[s].bias)
            if model.mask == 'softmax':
                a = loop_softmax(c)  # Eq. 1
                weight = a
            else:
                a = [1 / (1 + math.exp(-v)) for v in c]
                weight = [v / len(a) for v in a]
            all_masks[s].append(torch.tensor(a, dtype=torch.float64).view(H, W))
            g_a = [
                sum(w * float(L[i, x, y]) for w, (x, y) in zip(weight, positions, strict=True))
                for i in range(C)
            ]
            pooled.append(model.norms[s](torch.tensor([g_a], dtype=torch.float64))[0])
        if model.classify == 'concat':
            scores = model.classifier(torch.cat(pooled)).tolist()
        else:
            p = [
                loop_softmax(fc(v).tolist()) for fc, v in zip(model.classifier, pooled, strict=True)
            ]
            scores = [math.log(sum(q[y] for q in p) / len(p)) for y in range(model.num_classes)]
        all_scores.append(scores)
    masks = [torch.stack(level) for level in all_masks]
    return torch.tensor(all_scores, dtype=torch.float64), masks


def small(**switches: object) -> tuple[Att2, list[Tensor]]:
    model = Att2(CHANNELS, num_classes=3, **switches).double().eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.6)
    features = [
        torch.randn(2, 3, 6, 5, dtype=torch.float64),
        torch.randn(2, 4, 4, 3, dtype=torch.float64),
    ]
    return model, features


SWITCHES = [
    dict(zip(('compat', 'classify', 'mask', 'norm'), values, strict=True))
    for values in itertools.product(
        ('pc', 'dp'), ('concat', 'indep'), ('softmax', 'sigmoid'), (True, False)
    )
]


@torch.no_grad()
@pytest.mark.parametrize('switches', SWITCHES, ids=str)
def test_equations(switches: dict) -> None:
    model, features = small(**switches)
    scores, masks = loop_att2(model, features, model.global_feature(features))
    torch.testing.assert_close(model(features), scores, atol=1e-10, rtol=0)
    for ours, theirs in zip(model.attention(features), masks, strict=True):
        torch.testing.assert_close(ours[:, 0], theirs, atol=1e-10, rtol=0)


@torch.no_grad()
def test_pc_under_softmax_cannot_see_g() -> None:
    """The paper's form with any g, to 1e-12; dp, and pc under a sigmoid, do see it."""
    model, features = small()
    assert model.global_branch is None and len(model.projections) == 0
    sighted, _ = small(mask='sigmoid')
    model.projections = sighted.projections
    own = model.attention(features)
    for scale in (0.0, 1.0, 30.0):
        g = scale * torch.randn(2, 4, dtype=torch.float64)
        scores, masks = loop_att2(model, features, g)
        torch.testing.assert_close(scores, model(features), atol=1e-12, rtol=0)
        for a, b in zip(own, masks, strict=True):
            torch.testing.assert_close(a[:, 0], b, atol=1e-12, rtol=0)
    for switches in ({'compat': 'dp'}, {'mask': 'sigmoid'}):
        model, features = small(**switches)
        g = torch.randn(2, 4, dtype=torch.float64)
        one, other = model.attend(features, g), model.attend(features, -g)
        assert all((a - b).abs().max() > 1e-3 for a, b in zip(one, other, strict=True))


@torch.no_grad()
@pytest.mark.parametrize('switches', [{'compat': 'dp'}, {'mask': 'sigmoid'}], ids=str)
def test_a_query_moves_what_sees_g(switches: dict) -> None:
    """Appendix A.5."""
    model, features = small(**switches)
    query = [f.flip(0) for f in features]
    own, asked = model.attention(features), model.attention(features, query)
    assert not any(torch.equal(a, b) for a, b in zip(own, asked, strict=True))
    again = model.attention(features, features)
    assert all(torch.equal(a, b) for a, b in zip(own, again, strict=True))


def test_a_query_that_cannot_move_anything_is_refused() -> None:
    model, features = small(compat='pc')
    message = "query changes nothing with compat='pc' and mask='softmax'.*compat='dp'"
    with pytest.raises(ValueError, match=message):
        model.attention(features, features)


def test_a_uniform_map_is_average_pooling() -> None:
    model, features = small(norm=False)
    for u in model.u:
        torch.nn.init.zeros_(u.weight)
    means = torch.cat([f.mean(dim=(2, 3)) for f in features], dim=1)
    torch.testing.assert_close(model(features), model.classifier(means), atol=1e-12, rtol=0)
    for a in model.attention(features):
        torch.testing.assert_close(a.sum(dim=(1, 2, 3)), torch.ones(2, dtype=torch.float64))


def test_indep_scores_are_log_probabilities() -> None:
    model, features = small(classify='indep')
    total = model(features).exp().sum(dim=1)
    torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize('taps', [1, 2, 3])
def test_att_att2_and_att3(taps: int) -> None:
    model = Att2((3, 4, 5)[-taps:], 3, compat='dp')
    features = [torch.randn(2, C, 6, 6) for C in (3, 4, 5)[-taps:]]
    assert model(features).shape == (2, 3) and len(model.attention(features)) == taps
    assert sorted(model.projections) == [str(C) for C in (3, 4, 5)[-taps:-1]]


def test_pooling_first_ends_in_one_vector_at_any_size() -> None:
    for size in (1, 2, 7, 8, 14):
        model = Att2([4], 3, compat='dp', pool_first=True).eval()
        assert model([torch.randn(2, 4, size, size + 1)]).shape == (2, 3)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'compat': 'mlp'}, "compat='mlp'"),
        ({'classify': 'sum'}, "classify='sum'"),
        ({'mask': 'relu'}, "mask='relu'"),
        ({'dropout': 1.0}, r'dropout=1\.0'),
    ],
)
def test_wrong_values_are_named(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Att2(CHANNELS, 3, **wrong)
