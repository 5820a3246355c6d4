"""WARN against its equations, written from the paper as loops over single numbers in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers import loop_softmax
from torch import Tensor
from torch.nn import functional as F

from fgplugins.methods.fast.warn import convolve_to_few, masked_patches
from fgplugins.methods.warn import WARN, Convolution, mask_diversity


def loop_convolution(weight: Tensor, Z: Tensor, x: int, y: int) -> float:
    """(W * Z)(x, y) for one output channel: weight (d d, C), Z (C, H, W), zero outside."""
    C, H, W = Z.shape
    side = math.isqrt(len(weight))
    total = 0.0
    for c, i, j in itertools.product(range(C), range(side), range(side)):
        row, column = x - (i - side // 2), y - (j - side // 2)
        if 0 <= row < H and 0 <= column < W:
            total += float(weight[i * side + j, c]) * float(Z[c, row, column])
    return total


def loop_gates(model: WARN, z: Tensor) -> list[float]:
    """Eqs. 6 and 7 of one image, or what stands in their place."""
    if model.gating == 'mean':
        return [1 / (model.taps + 1)] * (model.taps + 1)  # below Eq. 8
    c = [sum(float(a) * float(b) for a, b in zip(w, z, strict=True)) for w in model.W_G.weight]
    if model.gating == 'linear':
        return c
    c = [math.tanh(value) for value in c]  # Eq. 6
    if model.gating == 'softmax':
        return loop_softmax(c)  # Eq. 7
    g = [1 / (1 + math.exp(-value)) for value in c]
    return [value / sum(g) for value in g]


def loop_warn(
    model: WARN, features: list[Tensor], embedding: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Eqs. 1 to 8, one image, one position, one class at a time."""
    Y, S = model.num_classes, len(features)
    all_scores, all_masks = [], [torch.zeros(len(f), 0) for f in features]
    masks = [[] for _ in features]
    for n in range(len(features[0])):
        outputs = []
        for level, module in enumerate(model.attention_modules):
            Z = features[level][n]
            _, H, W = Z.shape
            K, positions = module.heads, list(itertools.product(range(H), range(W)))
            head_masks, o, confidence = [], [], []
            for k in range(K):
                raw = [loop_convolution(module.W_H.weight[k], Z, *x) for x in positions]
                if module.mask == 'softmax':
                    mask = loop_softmax(raw)  # Eq. 1
                    weight = mask
                else:
                    mask = [1 / (1 + math.exp(-r)) for r in raw]
                    weight = [m / len(positions) for m in mask]
                head_masks.append(torch.tensor(mask, dtype=torch.float64).view(H, W))
                o_k = []
                for label in range(Y):
                    O_k = [
                        loop_convolution(module.W_O.weight[label * K + k], Z, *x) for x in positions
                    ]  # Eq. 2
                    o_k.append(sum(h * s for h, s in zip(weight, O_k, strict=True)))  # Eq. 3
                o.append(o_k)
                if module.W_g is not None:
                    g = [loop_convolution(module.W_g.weight[k], Z, *x) for x in positions]
                    confidence.append(math.tanh(sum(h * s for h, s in zip(weight, g, strict=True))))
            gH = loop_softmax(confidence) if confidence else [1 / K] * K  # Eq. 5
            outputs.append([sum(gH[k] * o[k][y] for k in range(K)) for y in range(Y)])  # Eq. 4
            masks[level].append(torch.stack(head_masks))
        z = features[-1][n].flatten(1).mean(dim=1) if embedding is None else embedding[n]
        outputs.append((model.classifier.weight @ z + model.classifier.bias).tolist())
        g = loop_gates(model, z)
        p = [loop_softmax(output) for output in outputs]
        if model.gating == 'linear':  # of the outputs themselves
            mixed = [sum(g[i] * outputs[i][y] for i in range(S + 1)) for y in range(Y)]
            scores = [math.log(share) for share in loop_softmax(mixed)]
        elif model.mix == 'log_prob':  # Eq. 8
            scores = [sum(g[i] * math.log(p[i][y]) for i in range(S + 1)) for y in range(Y)]
        else:
            scores = [math.log(sum(g[i] * p[i][y] for i in range(S + 1))) for y in range(Y)]
        all_scores.append(scores)
    all_masks = [torch.stack(level) for level in masks]
    return torch.tensor(all_scores, dtype=torch.float64), all_masks


def small(**switches: object) -> tuple[WARN, list[Tensor]]:
    switches.setdefault('heads', 2)
    model = WARN([3, 4], num_classes=3, **switches).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.7)
    features = [
        torch.randn(2, 3, 5, 4, dtype=torch.float64),
        torch.randn(2, 4, 3, 2, dtype=torch.float64),
    ]
    return model, features


GATES = [(h, g) for h in (True, False) for g in ('softmax', 'sigmoid', 'linear', 'mean')]
SWITCHES = [
    dict(zip(('kernel_size', 'mask', 'gates', 'mix'), values, strict=True))
    for values in itertools.product(
        (3, 1), ('softmax', 'sigmoid'), (True, False), ('log_prob', 'prob')
    )
] + [
    {'head_gates': h, 'global_gates': g, 'mix': mix}
    for h, g in GATES
    for mix in ('log_prob', 'prob')
    if (g, mix) != ('linear', 'prob')
]


@pytest.mark.parametrize('switches', SWITCHES, ids=str)
def test_equations(switches: dict) -> None:
    model, features = small(**switches)
    scores, masks = loop_warn(model, features)
    torch.testing.assert_close(model(features), scores, atol=1e-10, rtol=0)
    torch.testing.assert_close(model.forward_paper(features), scores, atol=1e-10, rtol=0)
    for ours, theirs in zip(model.attention(features), masks, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize(('head_gates', 'global_gates'), GATES)
def test_equations_with_an_embedding(head_gates: bool, global_gates: str) -> None:
    """Of another width than the last map; gates and the network's prediction come from it."""
    model, features = small(head_gates=head_gates, global_gates=global_gates, embedding_channels=7)
    z = torch.randn(2, 7, dtype=torch.float64)
    scores, _ = loop_warn(model, features, z)
    for form in (model.forward, model.forward_paper):
        torch.testing.assert_close(form(features, embedding=z), scores, atol=1e-10, rtol=0)


@pytest.mark.parametrize(('head_gates', 'global_gates'), GATES)
def test_gates_and_their_parameters(head_gates: bool, global_gates: str) -> None:
    """What is not used has no weights; all gates but linear ones are shares of one."""
    model, features = small(head_gates=head_gates, global_gates=global_gates)
    names = {name.rpartition('.')[0].rpartition('.')[2] for name, _ in model.named_parameters()}
    assert ('W_g' in names) == head_gates and ('W_G' in names) == (global_gates != 'mean')
    gO = model.global_gates(features[-1].mean(dim=(2, 3)))
    if global_gates == 'linear':
        expected = features[-1].mean(dim=(2, 3)) @ model.W_G.weight.T
        torch.testing.assert_close(gO, expected)
        assert gO.min() < 0
    else:
        torch.testing.assert_close(gO.sum(dim=1), torch.ones(2, dtype=torch.float64))


def test_gates_is_the_short_form_of_both() -> None:
    """And one that is given wins; with the defaults the same weights are drawn."""
    target = torch.tensor([1, 2])
    for short, long in (
        ({}, {'head_gates': True, 'global_gates': 'softmax'}),
        ({'gates': False}, {'head_gates': False, 'global_gates': 'mean'}),
        ({'gates': False, 'head_gates': True}, {'head_gates': True, 'global_gates': 'mean'}),
        ({'global_gates': 'mean'}, {'gates': False, 'head_gates': True}),
        (
            {'gates': False, 'global_gates': 'linear'},
            {'head_gates': False, 'global_gates': 'linear'},
        ),
    ):
        models = []
        for switches in (short, long):
            torch.manual_seed(0)
            models.append(WARN([3, 4], 3, **switches))
        states = [m.state_dict() for m in models]
        assert list(states[0]) == list(states[1])
        assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
        features = [torch.randn(2, 3, 5, 4), torch.randn(2, 4, 3, 2)]
        terms = [sum(m.loss(features, target).values()) for m in models]
        assert torch.equal(*terms)


def test_linear_gates_mix_outputs_and_log_probabilities_alike() -> None:
    """log p^l and o^l differ by a constant of each output, which log-softmax takes away again."""
    model, features = small(global_gates='linear', diversity=0)
    z = features[-1].mean(dim=(2, 3))
    o = [m(Z)[0] for m, Z in zip(model.attention_modules, features, strict=True)]
    o = torch.stack([*o, model.classifier(z)], dim=1)
    gO = z @ model.W_G.weight.T
    expected = torch.einsum('ns,nsy->ny', gO, o).log_softmax(dim=1)
    torch.testing.assert_close(model(features), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(model(features).exp().sum(dim=1), torch.ones(2).double())
    target = torch.tensor([2, 0])
    expected = F.cross_entropy(torch.einsum('ns,nsy->ny', gO, o), target)
    torch.testing.assert_close(model.loss(features, target)['nll'], expected)


def test_sigmoid_gates_by_hand() -> None:
    """tanh leaves four of them between 0.101 and 0.475: none is closed."""
    model = WARN([3, 4, 4], 3, global_gates='sigmoid').double()
    g = model.global_gates(1e6 * torch.randn(200, 4, dtype=torch.float64))
    low, high = (1 / (1 + math.exp(-c)) for c in (-1, 1))
    assert g.min().item() == pytest.approx(low / (low + 3 * high), abs=1e-9)
    assert g.max().item() == pytest.approx(high / (high + 3 * low), abs=1e-9)


@pytest.mark.parametrize(
    'switches',
    [{}, {'mix': 'prob'}, {'gates': False}, {'global_gates': 'sigmoid'}, {'global_gates': 'mean'}],
    ids=str,
)
@pytest.mark.parametrize('mask_init', ['kaiming', 'zero'])
def test_silent_modules_leave_the_networks_prediction(switches: dict, mask_init: str) -> None:
    if switches == {'gates': False} and mask_init == 'zero':
        switches = {**switches, 'heads': 1}
    model = WARN([3, 4], 5, output_init='zero', mask_init=mask_init, **switches)
    features = [torch.randn(64, 3, 5, 4), torch.randn(64, 4, 3, 2)]
    own = model.classifier(features[-1].mean(dim=(2, 3)))
    assert torch.equal(model(features).argmax(dim=1), own.argmax(dim=1))
    assert len(own.argmax(dim=1).unique()) > 1


@pytest.mark.parametrize('mask', ['softmax', 'sigmoid'])
def test_masks_that_start_uniform(mask: str) -> None:
    model = WARN([3, 4], 5, mask=mask, mask_init='zero')
    for H in model.attention([torch.randn(2, 3, 5, 4), torch.randn(2, 4, 3, 2)]):
        uniform = 1 / (H.shape[2] * H.shape[3]) if mask == 'softmax' else 0.5
        torch.testing.assert_close(H, torch.full_like(H, uniform))


def train(model: WARN, steps: int) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Weights at the start, and after each step of SGD."""
    torch.manual_seed(1)
    features = [torch.randn(6, 3, 5, 4).double(), torch.randn(6, 4, 3, 2).double()]
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    states = [{k: v.clone() for k, v in model.state_dict().items()}]
    for _ in range(steps):
        optimizer.zero_grad()
        sum(model.loss(features, torch.arange(6) % 3).values()).backward()
        optimizer.step()
        states.append({k: v.clone() for k, v in model.state_dict().items()})
    return states[0], states[1:]


@pytest.mark.parametrize(
    'inits',
    [{'output_init': 'zero'}, {'mask_init': 'zero'}, {'output_init': 'zero', 'mask_init': 'zero'}],
    ids=str,
)
def test_silent_modules_are_trained(inits: dict) -> None:
    """W_H hears nothing through W_O = 0; after the second step every weight has moved."""
    model = WARN([3, 4], 3, heads=2, diversity=0, **inits).double()
    start, (first, second) = train(model, 2)
    for name in start:
        stays = 'output_init' in inits and name.endswith(('W_H.weight', 'W_g.weight'))
        assert torch.equal(start[name], first[name]) == stays, name
        assert not torch.equal(start[name], second[name]), name
    heads = second['attention_modules.0.W_H.weight']
    assert (heads[0] - heads[1]).abs().max() > 1e-6  # they are told apart


def test_heads_that_start_alike_stay_alike() -> None:
    """Both zero and nothing to tell them apart: refused, and for this reason."""
    inits = {'output_init': 'zero', 'mask_init': 'zero'}
    with pytest.raises(ValueError, match=r'2 heads without head gates.*use head_gates=True'):
        WARN([3, 4], 3, heads=2, head_gates=False, **inits)
    WARN([3, 4], 3, heads=1, head_gates=False, **inits)
    model = WARN([3, 4], 3, heads=2, head_gates=False, diversity=0.5).double()
    for module in model.attention_modules:
        torch.nn.init.zeros_(module.W_O.weight)
        torch.nn.init.zeros_(module.W_H.weight)
    _, states = train(model, 5)
    for level in (0, 1):
        W_H = states[-1][f'attention_modules.{level}.W_H.weight']
        W_O = states[-1][f'attention_modules.{level}.W_O.weight'].unflatten(0, (3, 2))
        assert W_H.abs().max() > 1e-3 and W_O.abs().max() > 1e-3
        torch.testing.assert_close(W_H[0], W_H[1], atol=1e-12, rtol=0)
        torch.testing.assert_close(W_O[:, 0], W_O[:, 1], atol=1e-12, rtol=0)


def test_other_starts_draw_the_same_numbers() -> None:
    """What is not zero starts as it does by default, from the same seed."""
    states = []
    for inits in ({}, {'output_init': 'zero', 'mask_init': 'zero'}):
        torch.manual_seed(0)
        states.append(WARN([3, 4], 3, **inits).state_dict())
    for name, value in states[0].items():
        zero = name.endswith(('W_O.weight', 'W_H.weight'))
        assert torch.equal(states[1][name], torch.zeros_like(value) if zero else value), name


@pytest.mark.parametrize('kernel_size', [1, 3, 5])
@pytest.mark.parametrize('gate_norm', [False, True])
@pytest.mark.parametrize('training', [False, True])
def test_fast_form_equals_papers_order(kernel_size: int, gate_norm: bool, training: bool) -> None:
    """To 1e-10 in float64, values and gradients, and to 1e-4 relative in float32."""
    forms_agree(training, kernel_size=kernel_size, gate_norm=gate_norm, heads=3)


@pytest.mark.parametrize(('head_gates', 'global_gates'), GATES)
def test_fast_form_of_all_gates(head_gates: bool, global_gates: str) -> None:
    forms_agree(True, head_gates=head_gates, global_gates=global_gates, heads=3)


def forms_agree(training: bool, **switches: object) -> None:
    model, features = small(**switches)
    model.train(training)
    # the same running statistics for both forms
    state = {k: v.clone() for k, v in model.state_dict().items()}
    results = []
    for form in (model.forward, model.forward_paper):
        model.load_state_dict(state)
        inputs = [f.clone().requires_grad_() for f in features]
        scores = form(inputs)
        gradients = torch.autograd.grad(
            scores.square().sum(), [*inputs, *model.parameters()], retain_graph=True
        )
        results.append([scores, *gradients])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, atol=1e-10, rtol=1e-10)

    model, features = model.float(), [f.float() for f in features]
    model.eval()
    torch.testing.assert_close(model(features), model.forward_paper(features), atol=0, rtol=1e-4)


def test_softmax_masks_sum_to_one() -> None:
    model, features = small()
    for mask in model.attention(features):
        torch.testing.assert_close(mask.sum(dim=(2, 3)), torch.ones(2, 2, dtype=torch.float64))


@pytest.mark.parametrize('mask', ['softmax', 'sigmoid'])
def test_uniform_mask_is_average_pooling(mask: str) -> None:
    """With W_H = 0 and 1x1 kernels an attention module is average pooling and a linear layer."""
    model, features = small(mask=mask, kernel_size=1, heads=1)
    module, Z = model.attention_modules[0], features[0]
    torch.nn.init.zeros_(module.W_H.weight)
    o, _ = module(Z)
    expected = F.linear(Z.mean(dim=(2, 3)), module.W_O.weight.flatten(1))
    torch.testing.assert_close(o * (2 if mask == 'sigmoid' else 1), expected, atol=1e-12, rtol=0)


def test_gates_on_the_network_give_the_base_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 3.5: g_net = 1 and all others 0 is the original network."""
    model, features = small()
    closed = torch.tensor([[0.0, 0.0, 1.0]] * 2, dtype=torch.float64)
    monkeypatch.setattr(model, 'global_gates', lambda z: closed)
    base = model.classifier(features[-1].mean(dim=(2, 3))).log_softmax(dim=1)
    assert torch.equal(model(features), base)
    model.mix = 'prob'
    torch.testing.assert_close(model(features), base, atol=1e-14, rtol=0)


def test_gates_lie_where_tanh_leaves_them() -> None:
    """tanh bounds four gates to [0.043, 0.711]: no module can be switched off completely."""
    model = WARN([3, 4, 4], 3).double()
    g = model.global_gates(1e6 * torch.randn(50, 4, dtype=torch.float64))
    torch.testing.assert_close(g.sum(dim=1), torch.ones(50, dtype=torch.float64))
    assert g.min() > 0.0431 and g.max() < 0.7113


def test_probability_mixture_is_normalised_and_log_mixture_is_not() -> None:
    model, features = small(mix='prob')
    torch.testing.assert_close(model(features).exp().sum(dim=1), torch.ones(2, dtype=torch.float64))
    model.mix = 'log_prob'
    assert (model(features).exp().sum(dim=1) < 1).all()


@pytest.mark.parametrize('base_grad', [0.0, 0.1, 1.0])
def test_base_grad_scales_what_attention_sends_back(base_grad: float) -> None:
    """Scores do not change; the gradient to a level that only modules read is scaled exactly."""
    model, features = small()
    full, scaled = model, small(base_grad=base_grad)[0]
    scaled.load_state_dict(full.state_dict())
    gradients = []
    for m in (full, scaled):
        inputs = [f.clone().requires_grad_() for f in features]
        scores = m(inputs)
        torch.testing.assert_close(scores, full(features), atol=1e-14, rtol=0)
        gradients.append(torch.autograd.grad(scores[:, 0].sum(), inputs, allow_unused=True))
    lower = gradients[1][0]
    lower = torch.zeros_like(features[0]) if lower is None else lower
    torch.testing.assert_close(lower, base_grad * gradients[0][0], atol=1e-14, rtol=1e-10)
    assert gradients[1][1].abs().sum() > 0  # output_net always trains the network


def test_masked_patches_against_loops() -> None:
    H = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    Z = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    P = masked_patches(H, Z, 3).view(2, 3, 3, 3, 2)
    for n, k, c, i, j in itertools.product(range(2), range(3), range(2), range(3), range(3)):
        total = 0.0
        for x, y in itertools.product(range(4), range(5)):
            row, column = x - (i - 1), y - (j - 1)
            if 0 <= row < 4 and 0 <= column < 5:
                total += float(H[n, k, x, y]) * float(Z[n, c, row, column])
        assert float(P[n, k, i, j, c]) == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize('size', [1, 3, 5])
def test_weights_are_a_convolutions(size: int) -> None:
    """Both ways to compute it, and torch's with the flipped kernels."""
    layer = Convolution(3, 2, size).double()
    Z = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    kernels = layer.weight.unflatten(1, (size, size)).permute(0, 3, 1, 2).flip(2, 3)
    expected = F.conv2d(Z, kernels, padding=size // 2)
    torch.testing.assert_close(layer(Z), expected, atol=1e-12, rtol=0)
    few = convolve_to_few(Z, layer.weight, size)
    torch.testing.assert_close(few, expected, atol=1e-12, rtol=0)
    # as deep as a convolution's: Kaiming's gain over C d d inputs
    wide = Convolution(64, 512, size).weight
    assert wide.std().item() == pytest.approx(math.sqrt(2 / (64 * size * size)), rel=0.03)
    assert wide.is_contiguous()  # or it could not be saved as safetensors


def test_diversity() -> None:
    """By hand: K masks on one position give (K - 1) / K, disjoint masks 0; by loops otherwise."""
    H = torch.zeros(1, 4, 6, 6, dtype=torch.float64)
    H[:, :, 2, 3] = 1
    assert mask_diversity(H).item() == pytest.approx(0.75)
    disjoint = torch.zeros(1, 4, 6, 6, dtype=torch.float64)
    for k in range(4):
        disjoint[:, k, k, k] = 1
    assert mask_diversity(disjoint).item() == 0

    H = torch.rand(2, 3, 4, 4, dtype=torch.float64).flatten(2).softmax(dim=2).view(2, 3, 4, 4)
    total = 0.0
    for n, k, m in itertools.product(range(2), range(3), range(3)):
        if k != m:
            total += float((H[n, k] * H[n, m]).sum()) ** 2
    assert mask_diversity(H).item() == pytest.approx(total / (2 * 3 * 3), abs=1e-14)


def test_loss_terms() -> None:
    model, features = small(diversity=0.5)
    target = torch.tensor([2, 0])
    terms = model.loss(features, target)
    scores = model(features)
    assert set(terms) == {'nll', 'diversity'}
    assert terms['nll'].item() == pytest.approx(-(scores[0, 2] + scores[1, 0]).item() / 2)
    overlap = sum(mask_diversity(H) for H in model.attention(features)) / 2
    assert terms['diversity'].item() == pytest.approx(0.5 * overlap.item())
    soft = torch.eye(3, dtype=torch.float64)[target]
    assert model.loss(features, soft)['nll'].item() == pytest.approx(terms['nll'].item())
    assert set(small(diversity=0)[0].loss(features, target)) == {'nll'}


def test_log_mixture_is_the_gated_sum_of_cross_entropies() -> None:
    model, features = small(diversity=0)
    target = torch.tensor([1, 2])
    z = features[-1].mean(dim=(2, 3))
    g = model.global_gates(z)
    outputs = [m(Z)[0] for m, Z in zip(model.attention_modules, features, strict=True)]
    outputs.append(model.classifier(z))
    expected = sum(
        (g[:, i] * F.cross_entropy(o, target, reduction='none')).mean()
        for i, o in enumerate(outputs)
    )
    assert model.loss(features, target)['nll'].item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'heads': 0}, 'heads=0'),
        ({'kernel_size': 2}, 'kernel_size=2'),
        ({'mask': 'relu'}, "mask='relu'"),
        ({'mix': 'sum'}, "mix='sum'"),
        ({'gates': False, 'gate_norm': True}, "gate_norm=True.*'mean' has not"),
        ({'global_gates': 'linear', 'gate_norm': True}, "gate_norm=True.*'linear' has not"),
        ({'global_gates': 'linear', 'mix': 'prob'}, "mix='prob'.*use mix='log_prob'"),
        ({'global_gates': 'max'}, "global_gates='max': must be one of softmax, sigmoid, linear"),
        ({'output_init': 'normal'}, "output_init='normal'"),
        ({'mask_init': 0}, 'mask_init=0'),
        ({'base_grad': -1}, 'base_grad=-1'),
        ({'diversity': -1}, 'diversity=-1'),
        ({'kernel_size': -1}, 'kernel_size=-1'),
    ],
)
def test_wrong_values_are_named(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WARN([3, 4], 3, **wrong)


def test_defaults() -> None:
    """AW = 4 heads of softmax masks, the official 3x3 kernels, all gates; the sizes say so."""
    assert WARN.default_taps == 3
    model = WARN([3, 4, 5], num_classes=7)
    features = [torch.randn(2, C, 6, 5) for C in (3, 4, 5)]
    assert [H.shape[1] for H in model.attention(features)] == [4, 4, 4]
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    expected = {'classifier.weight': (7, 5), 'classifier.bias': (7,), 'W_G.weight': (4, 5)}
    for level, C in enumerate((3, 4, 5)):
        for name, channels in (('W_H', 4), ('W_O', 28), ('W_g', 4)):
            expected[f'attention_modules.{level}.{name}.weight'] = (channels, 9, C)
    assert shapes == expected
    spelt = WARN(
        [3, 4, 5], 7, heads=4, kernel_size=3, mask='softmax', gates=True, gate_norm=False,
        mix='log_prob', base_grad=1.0, diversity=1e-3, head_gates=True, global_gates='softmax',
        output_init='kaiming', mask_init='kaiming',
    )  # fmt: skip
    spelt.load_state_dict(model.state_dict())
    target = torch.tensor([6, 0])
    results = []
    for m in (model, spelt):
        inputs = [f.clone().requires_grad_() for f in features]
        terms = m.loss(inputs, target)
        results.append([*terms.values(), *torch.autograd.grad(sum(terms.values()), inputs)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_base_grad_scales_what_the_gates_send_back() -> None:
    """Where modules see nothing, the last map hears of them through the gates of Eq. 6 alone."""
    gradients = []
    for base_grad in (1.0, 0.25, 0.0):
        torch.manual_seed(0)
        model, features = small(base_grad=base_grad)
        with torch.no_grad():
            for module in model.attention_modules:
                module.W_O.weight.zero_()
        z = features[-1].mean(dim=(2, 3)).requires_grad_()
        gates = model.global_gates(z)
        alone = torch.autograd.grad(gates[:, 0].sum(), z, allow_unused=True)[0]
        gradients.append(torch.zeros_like(z) if alone is None else alone)
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[1], gradients[0] / 4, atol=1e-14, rtol=1e-10)
    assert (gradients[2] == 0).all()


def test_global_gates_start_as_kaiming_has_it() -> None:
    """Normal, with the variance of 2 over the channels (official code)."""
    W_G = torch.stack([WARN([512], 2).W_G.weight.detach() for _ in range(8)])
    assert W_G.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.05)
    assert W_G.abs().max() > 3 / 512**0.5  # a uniform start would end below


@pytest.mark.parametrize('gates', ['softmax', 'sigmoid'])
def test_gates_normalised(gates: str) -> None:
    """Eq. 6 with the official code's BatchNorm, in testing, by hand; its weights are trained."""
    model, features = small(gate_norm=True, global_gates=gates)
    model.eval()
    norm = model.gate_norm
    torch.nn.init.normal_(norm.running_mean)
    torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    z = features[-1].mean(dim=(2, 3))
    c = (model.W_G(z) - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
    c = (c * norm.weight + norm.bias).tanh()
    expected = c.softmax(dim=1) if gates == 'softmax' else c.sigmoid() / c.sigmoid().sum(1)[:, None]
    torch.testing.assert_close(model.global_gates(z), expected, atol=1e-12, rtol=0)
    assert {'gate_norm.weight', 'gate_norm.bias'} <= dict(model.named_parameters()).keys()


def test_diversity_of_masks_of_any_scale() -> None:
    """A head's mask is compared by its shape, as sigmoid masks ask; an empty one overlaps none."""
    H = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    scale = torch.tensor([1.0, 7.0, 0.2], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(mask_diversity(scale * H), mask_diversity(H), atol=1e-12, rtol=0)
    H[:, 1] = 0
    overlap = mask_diversity(H.requires_grad_())
    overlap.backward()
    assert 0 < overlap < 1 and H.grad.isfinite().all()


def test_masks_of_wrong_maps_are_refused() -> None:
    model, features = small()
    with pytest.raises(ValueError, match='the backbone gives'):
        model.attention(features[:1])
