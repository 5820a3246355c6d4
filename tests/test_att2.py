"""att2 against its equations as loops in float64, and what it proves about g."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers import loop_softmax
from torch import Tensor, nn

from fgplugins.methods.att2 import Att2

CHANNELS = (3, 4)


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
        ({'dropout': 1.0}, r'Att2: dropout=1\.0'),
        ({'branch_dropout': -0.1}, r'branch_dropout=-0\.1: must be at least 0'),
    ],
)
def test_wrong_values_are_named(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Att2(CHANNELS, 3, **wrong)


def test_defaults() -> None:
    """Two levels, 'pc' and 'concat' under a softmax, and the official code's norm and dropout."""
    assert Att2.default_taps == 2
    model = Att2(CHANNELS, 3)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    expected = {'u.0.weight': (1, 3), 'u.1.weight': (1, 4), 'classifier.weight': (3, 7)}
    expected |= {
        f'norms.{s}.0.{k}': (C,) for s, C in enumerate(CHANNELS) for k in ('weight', 'bias')
    }
    assert shapes == {**expected, 'classifier.bias': (3,)}
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    torch.testing.assert_close(
        model.attention([torch.randn(1, C, 4, 4) for C in CHANNELS])[0].sum(), torch.tensor(1.0)
    )


def naive_global_feature(model: Att2, x: Tensor, pool_first: bool) -> Tensor:
    """Section 4, in testing: two convolutions with norm and ReLU, max-pooling, a linear layer."""
    convolutions = [m for m in model.global_branch if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.global_branch if isinstance(m, nn.BatchNorm2d)]
    (linear,) = [m for m in model.global_branch if isinstance(m, nn.Linear)]
    for convolution, norm in zip(convolutions, norms, strict=True):
        if pool_first:
            rows = [x[:, :, i : i + 2].amax(dim=2) for i in range(0, x.shape[2], 2)]
            x = torch.stack(rows, dim=2)
            columns = [x[..., i : i + 2].amax(dim=3) for i in range(0, x.shape[3], 2)]
            x = torch.stack(columns, dim=3)
        x = nn.functional.conv2d(x, convolution.weight, convolution.bias, padding=1)
        shape = (-1, 1, 1)
        x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
        x = (x * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)
    return x.amax(dim=(2, 3)) @ linear.weight.T + linear.bias


@torch.no_grad()
@pytest.mark.parametrize('size', [(8, 8), (7, 5), (1, 3)])
@pytest.mark.parametrize('pool_first', [False, True])
def test_the_global_feature(pool_first: bool, size: tuple[int, int]) -> None:
    model, _ = small(compat='dp', pool_first=pool_first)
    for norm in (m for m in model.global_branch if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    last = torch.randn(2, 4, *size, dtype=torch.float64)
    expected = naive_global_feature(model, last, pool_first)
    torch.testing.assert_close(model.global_feature([last, last]), expected, atol=1e-12, rtol=0)
    assert Att2(CHANNELS, 3, compat='dp').global_branch[0].kernel_size == (3, 3)  # not pooling


def test_the_global_branch_starts_as_kaiming_has_it() -> None:
    """By the number of outputs, and zero biases (official code)."""
    for layer in (m for m in Att2([64], 2, compat='dp').global_branch if isinstance(m, nn.Conv2d)):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
        assert not layer.bias.any()


def test_what_lies_before_the_classifier() -> None:
    """BatchNorm, ReLU, dropout: by hand in testing; in training as many zeros as the rate says."""
    model, _ = small(dropout=0.75)
    for whole, C in zip(model.norms, CHANNELS, strict=True):
        norm = whole[0]
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        v = torch.randn(5, C, dtype=torch.float64)
        scaled = (v - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        by_hand = (scaled * norm.weight + norm.bias).clamp(min=0)
        torch.testing.assert_close(whole(v), by_hand, atol=1e-12, rtol=0)
        nn.init.constant_(norm.bias, 9.0)  # nothing is cut off by the ReLU
        nn.init.constant_(norm.weight, 0.1)
        dropped = whole.train()(torch.randn(4000, C, dtype=torch.float64)) == 0
        assert dropped.double().mean().item() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize('pool_first', [False, True])
def test_dropout_and_eps_of_the_global_branch(pool_first: bool) -> None:
    """The official code's: 0.4 behind each convolution's ReLU, eps 1e-3."""
    switches = {'compat': 'dp', 'dropout': 0.75, 'pool_first': pool_first}
    for given, rate in (
        ({}, 0.4),
        ({'branch_dropout': 0.25}, 0.25),
        ({'branch_dropout': 0.0}, 0.0),
    ):
        branch = Att2([64], 3, **switches, **given).global_branch
        assert [m.p for m in branch.modules() if isinstance(m, nn.Dropout)] == [rate, rate, 0.75]
        kinds = [type(m).__name__ for m in branch.modules() if not list(m.children())]
        pool = ['MaxPool2d'] if pool_first else []
        block = [*pool, 'Conv2d', 'BatchNorm2d', 'ReLU', 'Dropout']
        assert kinds == [*block, *block, 'AdaptiveMaxPool2d', 'Flatten', 'Dropout', 'Linear']
    assert {m.eps for m in branch.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize(
    ('pool_first', 'places'), [(False, (0, 1, 3, 4, 9)), (True, (1, 2, 5, 6, 11))]
)
def test_names_of_the_global_branch_stay(pool_first: bool, places: tuple[int, ...]) -> None:
    """Checkpoints from before it had dropout have these."""
    branch = Att2([4], 3, compat='dp', pool_first=pool_first).global_branch
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    expected = {f'{i}.{k}' for i in places for k in ('weight', 'bias')}
    expected |= {f'{i}.{k}' for i in (places[1], places[3]) for k in statistics}
    assert set(branch.state_dict()) == expected


def test_loss_is_the_mean_cross_entropy() -> None:
    for classify in ('concat', 'indep'):
        model, features = small(classify=classify)
        terms = model.loss(features, torch.tensor([2, 0]))
        p = [loop_softmax(row)[y] for row, y in zip(model(features).tolist(), (2, 0), strict=True)]
        assert set(terms) == {'ce'}
        assert terms['ce'].item() == pytest.approx(-sum(map(math.log, p)) / 2, abs=1e-10)


def test_attention_of_wrong_maps_is_refused() -> None:
    model, features = small()
    with pytest.raises(ValueError, match='the backbone gives'):
        model.attention(features[:1])
