"""CLAN against its equations as loops in float64, and the algebra that makes it cheap."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers import loop_softmax
from torch import Tensor
from torch.nn import functional as F

from fgplugins.methods.clan import CLAN, ContextAttention, CrossLayerRefinement
from fgplugins.methods.fast import clan as fast
from fgplugins.methods.fast.clan import Gram

CHANNELS = (4, 6, 5)
SIZES = ((4, 6), (4, 3), (2, 3))


def linear(layer: torch.nn.Conv2d, x: list[float]) -> list[float]:
    """A 1x1 convolution at one position."""
    weight, bias = layer.weight.flatten(1).tolist(), layer.bias.tolist()
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b
            for row, b in zip(weight, bias, strict=True)]  # fmt: skip


def loop_resize(x: Tensor, H: int, W: int) -> Tensor:
    """Bilinear resampling of (C, h, w) with pixel centres at half, one output at a time."""
    C, h, w = x.shape
    out = torch.zeros(C, H, W, dtype=x.dtype)
    for c, i, j in itertools.product(range(C), range(H), range(W)):
        y = max((i + 0.5) * h / H - 0.5, 0)
        z = max((j + 0.5) * w / W - 0.5, 0)
        y0, z0 = int(y), int(z)
        y1, z1 = min(y0 + 1, h - 1), min(z0 + 1, w - 1)
        a, b = y - y0, z - z0
        out[c, i, j] = (
            (1 - a) * (1 - b) * x[c, y0, z0] + (1 - a) * b * x[c, y0, z1]
            + a * (1 - b) * x[c, y1, z0] + a * b * x[c, y1, z1]
        )  # fmt: skip
    return out


def loop_clca(module: ContextAttention, L: Tensor, top: Tensor) -> Tensor:
    """Eqs. 1 to 3 and 5 to 7 for one image."""
    _, H, W = L.shape
    up = loop_resize(top, H, W)
    positions = list(itertools.product(range(H), range(W)))
    local = [L[:, x, y].tolist() for x, y in positions]
    if module.W_l is None:
        fused = local
    else:
        fused = [
            [a + b for a, b in zip(linear(module.W_l, local[i]),
                                   linear(module.W_g, up[:, x, y].tolist()), strict=True)]
            for i, (x, y) in enumerate(positions)
        ]  # Eq. 1  # fmt: skip
    k = [linear(module.W_k, v) for v in local]
    result = torch.zeros_like(L)
    for i, (x, y) in enumerate(positions):
        f = []
        for j in range(len(positions)):
            if module.relation == 'gaussian':
                f.append(math.exp(sum(a * b for a, b in zip(fused[i], fused[j], strict=True))))
            else:
                dot = sum(
                    a * b
                    for a, b in zip(
                        linear(module.theta, fused[i]), linear(module.phi, fused[j]), strict=True
                    )
                )
                f.append(dot if module.relation == 'dot' else math.exp(dot))  # Eqs. 5 to 7
        total = len(positions) if module.relation == 'dot' else sum(f)
        weighted = [
            sum(f[j] * k[j][c] for j in range(len(positions))) / total for c in range(len(k[0]))
        ]  # Eq. 2
        result[:, x, y] = (
            torch.tensor(linear(module.W_y, weighted), dtype=L.dtype) + L[:, x, y]
        )  # Eq. 3
    return result


def loop_map(module: torch.nn.Module, L: Tensor) -> Tensor:
    """Eq. 8 for one image: (1, H, W)."""
    C, H, W = L.shape
    planes = []
    if module.pooling != 'max':
        planes.append(sum(L[c] for c in range(C)) / C)
    if module.pooling != 'avg':
        planes.append(
            torch.stack([L[:, x, y].max() for x in range(H) for y in range(W)]).view(H, W)
        )
    M = torch.full((1, H, W), float(module.K.bias), dtype=L.dtype)
    for p, x, y, i, j in itertools.product(
        range(len(planes)), range(H), range(W), range(3), range(3)
    ):
        row, column = x + i - 1, y + j - 1
        if 0 <= row < H and 0 <= column < W:
            M[0, x, y] += module.K.weight[0, p, i, j] * planes[p][row, column]
    return M.sigmoid() if module.mask == 'sigmoid' else M


@torch.no_grad()
def loop_clan(
    model: CLAN, features: list[Tensor], spatial: bool = True, embedding: Tensor | None = None
) -> list[dict[str, Tensor]]:
    """Every branch's scores, image by image."""
    results = []
    for n in range(len(features[0])):
        *mid, top = [f[n] for f in features]
        refined = []
        for module, L in zip(model.refinement.context, mid, strict=True):
            gap = isinstance(module, torch.nn.Identity)
            refined.append(L if gap else loop_clca(module, L, top))
        maps, names = [*refined, top], [f'mid{s + 1}' for s in range(len(mid))] + ['top']
        if spatial:
            clsa = [
                loop_resize(loop_map(m, L), *top.shape[1:]) * top
                for m, L in zip(model.refinement.spatial, refined, strict=True)
            ]  # Eq. 9
            maps, names = [*maps, torch.cat(clsa)], [*names, 'clsa']  # Eq. 11
        pooled = [m.flatten(1).mean(dim=1) for m in maps]
        if embedding is not None:
            pooled[len(mid)] = embedding[n]
        results.append({k: model.classifier.fc[k](v) for k, v in zip(names, pooled, strict=True)})
    return results


def loop_average(branches: list[list[float]], average: str) -> list[float]:
    """The prediction for one image, from the scores of each branch that predicts."""
    if average == 'probabilities':
        branches = [loop_softmax(scores) for scores in branches]
    mean = [sum(column) / len(branches) for column in zip(*branches, strict=True)]
    return [math.log(p) for p in mean] if average == 'probabilities' else mean


def small(taps: int = 3, seed: int = 0, **switches: object) -> tuple[CLAN, list[Tensor]]:
    torch.manual_seed(seed)
    model = CLAN(CHANNELS[-taps:], 3, **switches).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4)
    levels = zip(CHANNELS[-taps:], SIZES[-taps:], strict=True)
    return model, [0.7 * torch.randn(2, C, H, W, dtype=torch.float64) for C, (H, W) in levels]


SWITCHES = [
    {},
    {'taps': 2},
    {'relation': 'embedded_gaussian'},
    {'relation': 'gaussian'},
    {'context': 'non_local'},
    {'context': 'non_local', 'relation': 'embedded_gaussian'},
    {'context': 'gap'},
    {'pooling': 'avg'},
    {'pooling': 'max', 'mask': 'sigmoid'},
    {'inner_channels': 30},  # more than the positions: the other order of the product
    {'inner_channels': 1},
    {'spatial': False},
    {'spatial': False, 'context': 'gap', 'taps': 2},
    {'average': 'probabilities'},
]


@pytest.mark.parametrize('switches', SWITCHES, ids=str)
def test_equations(switches: dict) -> None:
    model, features = small(**switches)
    ours = model.branch_scores(features)
    predictions = []
    for n, theirs in enumerate(loop_clan(model, features, switches.get('spatial', True))):
        assert list(ours) == list(theirs)
        for name in ours:
            torch.testing.assert_close(ours[name][n], theirs[name], atol=1e-10, rtol=0)
        scores = [theirs[name].tolist() for name in theirs]
        predictions.append(loop_average(scores, switches.get('average', 'logits')))
    mean = torch.tensor(predictions, dtype=torch.float64)
    torch.testing.assert_close(model(features), mean, atol=1e-10, rtol=0)
    torch.testing.assert_close(model.forward_paper(features), mean, atol=1e-10, rtol=0)


@pytest.mark.parametrize('spatial', [True, False])
@pytest.mark.parametrize('average', ['logits', 'probabilities'])
def test_equations_with_an_embedding(spatial: bool, average: str) -> None:
    """Of another width than the top map, which it stands in for in its branch alone."""
    model, features = small(spatial=spatial, average=average, embedding_channels=7)
    z = torch.randn(2, 7, dtype=torch.float64)
    expected = [
        loop_average([s.tolist() for s in scores.values()], average)
        for scores in loop_clan(model, features, spatial, z)
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    for form in (model.forward, model.forward_paper):
        torch.testing.assert_close(form(features, embedding=z), expected, atol=1e-10, rtol=0)


def test_without_clsa_there_is_nothing_of_it() -> None:
    """No parameter, no branch, no term, no map; the rest draws the same weights."""
    states = []
    for spatial in (True, False):
        torch.manual_seed(0)
        states.append(CrossLayerRefinement(CHANNELS, spatial=spatial).state_dict())
    kept = {k: v for k, v in states[0].items() if not k.startswith('spatial')}
    assert list(kept) == list(states[1]) and len(kept) < len(states[0])
    assert all(torch.equal(kept[k], states[1][k]) for k in kept)
    model, features = small(spatial=False)
    assert not [k for k in model.state_dict() if 'spatial' in k or 'clsa' in k]
    assert set(model.loss(features, torch.tensor([0, 2]))) == {'ce_mid1', 'ce_mid2', 'ce_top'}
    assert [m.shape[1] for m in model.refinement(features)] == list(CHANNELS)
    full, _ = small()
    full.load_state_dict({**full.state_dict(), **model.state_dict()})
    ours, theirs = model.branch_scores(features), full.branch_scores(features)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_top_level_without_any_map_is_an_empty_stack() -> None:
    """Without CLSA, of an embedding that does not depend on positions."""
    model, features = small(spatial=False, embedding_channels=7)
    z = torch.randn(2, 7, dtype=torch.float64)
    shapes = [tuple(m.shape) for m in model.attention(features, embedding=z)]
    assert shapes == [(2, 1, 4, 6), (2, 1, 4, 3), (2, 0, 2, 3)]


def test_averaged_probabilities_are_probabilities() -> None:
    """Of any branches; losses are those of each branch, whatever is averaged."""
    model, features = small(average='probabilities', branches=['mid1', 'clsa'])
    p = model(features).exp()
    torch.testing.assert_close(p.sum(dim=1), torch.ones(2, dtype=torch.float64))
    scores = model.branch_scores(features)
    expected = (scores['mid1'].softmax(dim=1) + scores['clsa'].softmax(dim=1)) / 2
    torch.testing.assert_close(p, expected, atol=1e-12, rtol=0)
    other, _ = small(branches=['mid1', 'clsa'])
    target = torch.tensor([0, 2])
    terms = [m.loss(features, target) for m in (model, other)]
    assert list(terms[0]) == list(terms[1])
    assert all(torch.equal(terms[0][k], terms[1][k]) for k in terms[0])


def test_no_probability_is_lost_where_every_branch_is_sure() -> None:
    """Logits of thousands have probabilities that no number holds."""
    model, _ = small(average='probabilities')
    scores = {name: torch.tensor([[4e3, 0.0, -4e3]]) for name in model.classifier.names}
    expected = torch.tensor([[0.0, -4e3, -8e3]])
    torch.testing.assert_close(model.classifier.predict(scores), expected)


def test_both_orders_of_the_relation_product_agree() -> None:
    """theta^T (phi k^T) = (theta^T phi) k, values and gradients, on either side of n = C_int."""
    for inner in (2, 11, 12, 13, 40):
        model, features = small(2, inner_channels=inner)
        module, L, top = model.refinement.context[0], *features
        gradients = []
        for form in (module.forward, module.forward_paper):
            inputs = [L.clone().requires_grad_(), top.clone().requires_grad_()]
            out = form(*inputs)
            gradients.append(
                [out, *torch.autograd.grad(out.square().sum(), [*inputs, *module.parameters()])]
            )
        for cheap, printed in zip(*gradients, strict=True):
            torch.testing.assert_close(cheap, printed, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    ('context', 'relation'),
    [('clca', 'dot'), ('clca', 'embedded_gaussian'), ('clca', 'gaussian'), ('non_local', 'dot'),
     ('non_local', 'embedded_gaussian')],
)  # fmt: skip
@pytest.mark.parametrize('sizes', [((5, 7), (2, 3)), ((6, 6), (6, 6)), ((9, 4), (1, 1))])
@pytest.mark.parametrize('pairs', [0, fast.PAIRS])
def test_many_positions(
    monkeypatch: pytest.MonkeyPatch, pairs: int, sizes: tuple, context: str, relation: str
) -> None:
    """The forms for many positions equal the printed one: values and gradients."""
    monkeypatch.setattr(fast, 'PAIRS', pairs)
    torch.manual_seed(0)
    top_channels = 6 if context == 'clca' else None
    module = ContextAttention(4, top_channels, 3, relation).double()
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.4)
    L, top = torch.randn(2, 4, *sizes[0]).double(), torch.randn(2, 6, *sizes[1]).double()
    assert L[0, 0].numel() > 2 * L.shape[1]
    results = []
    for form in (module.forward, module.forward_paper):
        inputs = [L.clone().requires_grad_(), top.clone().requires_grad_()]
        out = form(*inputs)
        used = inputs if context == 'clca' else inputs[:1]
        results.append(
            [out, *torch.autograd.grad(out.square().sum(), [*used, *module.parameters()])]
        )
    for cheap, printed in zip(*results, strict=True):
        torch.testing.assert_close(cheap, printed, atol=1e-10, rtol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(module(L, top), results[1][0], atol=1e-10, rtol=1e-10)


def test_gram_is_differentiated_by_one_product_and_twice() -> None:
    L = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(Gram.apply(L), L @ L.transpose(1, 2) / 5, atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(Gram.apply, (L,))
    assert torch.autograd.gradgradcheck(Gram.apply, (L,))


def test_many_positions_in_mixed_precision() -> None:
    """The sum over positions stays within what half precision holds."""
    module = ContextAttention(4, 6, 3, 'dot')
    torch.nn.init.normal_(module.W_y.weight)
    L, top = torch.randn(2, 4, 40, 40, requires_grad=True), torch.randn(2, 6, 10, 10)
    expected = module(L, top)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = module(L, top)
    out.float().square().mean().backward()
    assert L.grad.isfinite().all() and L.grad.dtype == torch.float32
    torch.testing.assert_close(out.float(), expected, atol=0.1, rtol=0.05)


@pytest.mark.parametrize('relation', ['dot', 'embedded_gaussian'])
def test_no_map_of_all_pairs_is_made(monkeypatch: pytest.MonkeyPatch, relation: str) -> None:
    """Where there are many positions no tensor is larger than the features."""
    monkeypatch.setattr(fast, 'PAIRS', 0)
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
            out = func(*args, **(kwargs or {}))
            for item in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(item, Tensor):
                    self.size = max(self.size, item.numel())
            return out

    model = CLAN((8, 8), 3, inner_channels=4, relation=relation)
    for side in (16, 32, 64):
        features = [torch.randn(1, 8, side, side), torch.randn(1, 8, side // 2, side // 2)]
        with Largest() as largest:
            sum(model.loss(features, torch.tensor([1])).values()).backward()
        assert largest.size <= 8 * side * side  # n C_s, linear in the number of positions


def test_a_subset_of_branches_is_the_mean_of_those_branches() -> None:
    full, features = small()
    scores = full.branch_scores(features)
    for size in range(1, 5):
        for chosen in itertools.combinations(('mid1', 'mid2', 'top', 'clsa'), size):
            model, _ = small(branches=chosen)
            model.load_state_dict(full.state_dict())
            expected = sum(scores[name] for name in chosen) / size
            torch.testing.assert_close(model(features), expected, atol=1e-12, rtol=0)
            target = torch.tensor([0, 2])
            assert set(model.loss(features, target)) == {f'ce_{name}' for name in scores}


def test_losses_are_the_branches_cross_entropies() -> None:
    model, features = small()
    target = torch.tensor([0, 2])
    terms = model.loss(features, target)
    for name, scores in model.branch_scores(features).items():
        assert terms[f'ce_{name}'].item() == pytest.approx(F.cross_entropy(scores, target).item())


def test_a_fresh_model_leaves_the_maps_as_they_are() -> None:
    model = CLAN(CHANNELS, 3)
    features = [torch.randn(2, C, *size) for C, size in zip(CHANNELS, SIZES, strict=True)]
    refined = model.refinement.refine(features)
    assert all(torch.equal(a, b) for a, b in zip(refined, features[:-1], strict=True))


def test_a_uniform_map_is_average_pooling() -> None:
    """With K = 0 and bias 1 the CLSA branch classifies the pooled top map."""
    model, features = small(2)
    torch.nn.init.zeros_(model.refinement.spatial[0].K.weight)
    torch.nn.init.ones_(model.refinement.spatial[0].K.bias)
    scores = model.branch_scores(features)['clsa']
    expected = model.classifier.fc['clsa'](features[-1].mean(dim=(2, 3)))
    torch.testing.assert_close(scores, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize('spatial', [True, False])
def test_attention_is_clsa_and_grad_cam(spatial: bool) -> None:
    """Grad-CAM of a branch, by autograd: ReLU(sum_c mean_x(d score / d L_c) L_c), times n."""
    model, features = small(spatial=spatial)
    maps = model.attention(features)
    # M and CAM; two R(M) and CAM
    assert [m.shape[1] for m in maps] == ([2, 2, 3] if spatial else [1, 1, 1])
    predicted = model(features).argmax(dim=1)
    refined = [L.detach().requires_grad_() for L in model.refinement.refine(features)]
    levels = [*refined, features[-1].requires_grad_()]
    for s, (name, L) in enumerate(zip(('mid1', 'mid2', 'top'), levels, strict=True)):
        scores = model.classifier.fc[name](L.mean(dim=(2, 3)))
        score = scores.gather(1, predicted[:, None]).sum()
        alpha = torch.autograd.grad(score, L)[0].mean(dim=(2, 3))
        cam = torch.einsum('nc,nchw->nhw', alpha, L).relu() * L.shape[2] * L.shape[3]
        torch.testing.assert_close(maps[s][:, -1], cam, atol=1e-12, rtol=1e-10)
        if spatial and name != 'top':
            M = model.refinement.spatial[s](L)
            expected = (M - M.amin(dim=(2, 3), keepdim=True))[:, 0]
            torch.testing.assert_close(maps[s][:, 0], expected, atol=1e-12, rtol=1e-10)


def test_refinement_as_a_neck_gives_what_the_branches_pool() -> None:
    model, features = small()
    maps = model.refinement(features)
    assert [m.shape[1] for m in maps] == [4, 6, 5, 10]
    scores = model.classifier([m.mean(dim=(2, 3)) for m in maps])
    for name, expected in model.branch_scores(features).items():
        torch.testing.assert_close(scores[name], expected, atol=1e-12, rtol=0)


def test_parameters_of_the_papers_block() -> None:
    """notes: CLCA at 512 channels with C_int = 256 has 1,050,880, CLSA 19."""
    refinement = CrossLayerRefinement((512, 512))
    assert sum(p.numel() for p in refinement.context.parameters()) == 1_050_880
    assert sum(p.numel() for p in refinement.spatial.parameters()) == 19


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'relation': 'cosine'}, "relation='cosine'"),
        ({'context': 'none'}, "context='none'"),
        ({'pooling': 'sum'}, "pooling='sum'"),
        ({'mask': 'relu'}, "mask='relu'"),
        ({'inner_channels': 0}, 'inner_channels=0'),
        ({'branches': ['mid3']}, 'choose from mid1, mid2, top, clsa'),
        ({'branches': []}, 'choose from'),
        ({'context': 'non_local', 'relation': 'gaussian'}, 'not in the paper'),
        ({'spatial': False, 'pooling': 'avg'}, "pooling='avg'.*spatial=False has no map of Eq. 8"),
        ({'spatial': False, 'mask': 'sigmoid'}, "mask='sigmoid': spatial=False has no map"),
        ({'spatial': False, 'branches': ['clsa']}, r'choose from mid1, mid2, top \(spatial=False'),
        ({'average': 'votes'}, "average='votes': must be 'logits' or 'probabilities'"),
    ],
)
def test_wrong_values_are_named(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLAN(CHANNELS, 3, **wrong)
    with pytest.raises(ValueError, match='at least one below'):
        CLAN([4], 3)


def test_defaults() -> None:
    """Two scales, the dot product, CLCA, both poolings and no mask: the main row."""
    assert CLAN.default_taps == 2
    model, features = small()
    spelt = CLAN(
        CHANNELS, 3, inner_channels=None, relation='dot', context='clca', pooling='avg_max',
        mask='none', branches=None, spatial=True, average='logits',
    ).double()  # fmt: skip
    spelt.load_state_dict(model.state_dict())
    assert torch.equal(spelt(features), model(features))
    widths = [m.W_k.out_channels for m in model.refinement.context]
    assert widths == [2, 3]  # half of each level's
    assert CLAN([1, 5], 3).refinement.context[0].W_k.out_channels == 1
    alone = CrossLayerRefinement(CHANNELS).double()  # as a neck
    alone.load_state_dict(model.refinement.state_dict())
    for ours, theirs in zip(alone(features), model.refinement(features), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize('relation', ['dot', 'embedded_gaussian', 'gaussian'])
@pytest.mark.parametrize('N', [1, 2, 40])
def test_batches_of_any_size_take_the_same_values(N: int, relation: str) -> None:
    """Folding depends on the positions of the batch, the scores do not; nor on gradients."""
    model, _ = small(2, relation=relation, inner_channels=6)
    features = [torch.randn(N, C, 2, 2, dtype=torch.float64) for C in CHANNELS[-2:]]
    expected = model.forward_paper(features)
    torch.testing.assert_close(model(features), expected, atol=1e-10, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(model(features), expected, atol=1e-10, rtol=0)


def test_a_fresh_block_adds_nothing_at_all() -> None:
    """W_y starts at zero, weight and bias (section 4.1 of the non-local block's paper)."""
    for module in CLAN(CHANNELS, 3).refinement.context:
        assert not module.W_y.weight.any() and not module.W_y.bias.any()


def test_the_refined_maps_are_those_of_the_equations() -> None:
    """By the loops, at more positions than twice the channels and at fewer."""
    for relation, (H, W) in itertools.product(('dot', 'embedded_gaussian'), ((2, 2), (3, 5))):
        torch.manual_seed(0)
        module = ContextAttention(3, 4, 2, relation).double()
        for p in module.parameters():
            torch.nn.init.normal_(p, std=0.4)
        L, top = torch.randn(2, 3, H, W).double(), torch.randn(2, 4, 2, 1).double()
        for ours in (module(L, top), module.forward_paper(L, top)):
            for n in range(2):
                torch.testing.assert_close(ours[n], loop_clca(module, L[n], top[n]))


def test_attention_is_never_negative_and_reaches_zero() -> None:
    model, features = small()
    for maps in model.attention(features):
        assert (maps >= 0).all()
        assert (maps[:, :-1].amin(dim=(2, 3)) == 0).all()
