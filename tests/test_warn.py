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


def loop_warn(model: WARN, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
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
        z = features[-1][n].flatten(1).mean(dim=1)
        outputs.append((model.classifier.weight @ z + model.classifier.bias).tolist())
        if model.W_G is not None:
            c = [math.tanh(float(w @ z)) for w in model.W_G.weight]  # Eq. 6
            g = loop_softmax(c)  # Eq. 7
        else:
            g = [1 / (S + 1)] * (S + 1)
        p = [loop_softmax(output) for output in outputs]
        if model.mix == 'log_prob':  # Eq. 8
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


SWITCHES = [
    dict(zip(('kernel_size', 'mask', 'gates', 'mix'), values, strict=True))
    for values in itertools.product(
        (3, 1), ('softmax', 'sigmoid'), (True, False), ('log_prob', 'prob')
    )
]


@pytest.mark.parametrize('switches', SWITCHES, ids=str)
def test_equations(switches: dict) -> None:
    model, features = small(**switches)
    scores, masks = loop_warn(model, features)
    torch.testing.assert_close(model(features), scores, atol=1e-10, rtol=0)
    torch.testing.assert_close(model.forward_paper(features), scores, atol=1e-10, rtol=0)
    for ours, theirs in zip(model.attention(features), masks, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize('kernel_size', [1, 3, 5])
@pytest.mark.parametrize('gate_norm', [False, True])
@pytest.mark.parametrize('training', [False, True])
def test_fast_form_equals_papers_order(kernel_size: int, gate_norm: bool, training: bool) -> None:
    """To 1e-10 in float64, values and gradients, and to 1e-4 relative in float32."""
    model, features = small(kernel_size=kernel_size, gate_norm=gate_norm, heads=3)
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
        ({'gates': False, 'gate_norm': True}, 'gate_norm=True'),
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
        mix='log_prob', base_grad=1.0, diversity=1e-3,
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


def test_gates_normalised() -> None:
    """Eq. 6 with the official code's BatchNorm, in testing, by hand; its weights are trained."""
    model, features = small(gate_norm=True)
    model.eval()
    norm = model.gate_norm
    torch.nn.init.normal_(norm.running_mean)
    torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    z = features[-1].mean(dim=(2, 3))
    c = (model.W_G(z) - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
    expected = (c * norm.weight + norm.bias).tanh().softmax(dim=1)
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
