"""The VGGs of att2's paper: places of dropout, old checkpoints, and PAN's gate by loops."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import Tensor, nn

import fgplugins  # noqa: F401
from fgplugins.networks.att_vgg import Gated, ProgressiveGate

BLOCKS = (2, 2, 3, 3, 3)


def rates_by_layer(network: nn.Module) -> list[float]:
    """The rate of dropout behind each convolution, 0 where there is none."""
    rates: list[float] = []
    for module in network.stages.modules():
        if isinstance(module, nn.Conv2d):
            rates.append(0.0)
        elif isinstance(module, nn.Dropout):
            rates[-1] = module.p
    return rates


@pytest.mark.parametrize(
    ('given', 'first', 'later'),
    [({}, 0.3, 0.4), ({'block_drop_rate': 0.2}, 0.2, 0.2), ({'block_drop_rate': 0}, 0, 0),
     ({'block_drop_rate': (0.1, 0.0)}, 0.1, 0.0)],
)  # fmt: skip
@pytest.mark.parametrize('name', ['att_vgg', 'att2_vgg'])
def test_dropout_by_layer(name: str, given: dict, first: float, later: float) -> None:
    """Behind all but the last convolution of each of VGG-16's blocks (official code)."""
    with torch.device('meta'):
        model = timm.create_model(name, **given)
    network = getattr(model, 'backbone', model)
    expected = [r for n in BLOCKS for r in [later] * (n - 1) + [0.0]]
    expected[0] = first
    assert rates_by_layer(network) == expected
    norms = [m for m in network.stages.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.eps for m in norms] == [1e-3] * 13


def test_dropout_is_of_single_values_and_of_training() -> None:
    model = timm.create_model('att_vgg', block_drop_rate=(0.75, 0.0)).train()
    x = torch.ones(2, 64, 32, 32)
    kept = (model.stages[0][2](x) != 0).float().mean(dim=(2, 3))
    assert kept.min() > 0.15 and kept.max() < 0.35  # of every channel, and of none the whole
    assert torch.equal(model.stages[0][5](x), x)
    assert torch.equal(model.eval().stages[0][2](x), x)


@pytest.mark.parametrize(
    'given', [{'block_drop_rate': 1.0}, {'block_drop_rate': (0.1, 0.2, 0.3)}, {'first_pool': 0}]
)
def test_wrong_values_are_named(given: dict) -> None:
    ((name, value),) = given.items()
    with pytest.raises(ValueError) as caught:
        timm.create_model('att_vgg', **given)
    assert str(caught.value).startswith(f'AttentionVGG: {name}={value}: ')


def old_names() -> list[str]:
    """Of the convolutions and norms in checkpoints from before the network had dropout."""
    places = [(0, 3 * i) for i in range(7)] + [(s, 1 + 3 * i) for s in (1, 2) for i in range(3)]
    names = []
    for s, i in places:
        names += [f'stages.{s}.{i}.weight', f'stages.{s}.{i}.bias']
        for key in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'):
            names.append(f'stages.{s}.{i + 1}.{key}')
    return [*names, 'head.fc.weight', 'head.fc.bias']


@pytest.mark.parametrize('rate', [(0.3, 0.4), 0.0])
def test_old_checkpoints_load(rate: float | tuple) -> None:
    torch.manual_seed(0)
    model = timm.create_model('att_vgg', block_drop_rate=rate)
    assert list(model.state_dict()) == old_names()
    old = {k: torch.rand_like(v.float()).to(v.dtype) for k, v in model.state_dict().items()}
    model.load_state_dict({name: old[name] for name in old_names()}, strict=True)
    assert torch.equal(model.stages[2][7].weight, old['stages.2.7.weight'])


@pytest.mark.parametrize(('side', 'first_pool'), [(32, 2), (80, 5)])
@torch.no_grad()
def test_maps(side: int, first_pool: int) -> None:
    """Layer 10 at 16 x 16 for CIFAR's images and for CUB's."""
    model = timm.create_model('att_vgg', first_pool=first_pool).eval()
    maps = model.forward_intermediates(torch.randn(1, 3, side, side), intermediates_only=True)
    shapes = [tuple(m.shape[1:]) for m in maps]
    assert shapes == [(256, side, side), (512, 16, 16), (512, 8, 8)]
    assert [info['reduction'] for info in model.feature_info] == [1, first_pool, 2 * first_pool]


def gate_by_loops(gate: ProgressiveGate, L: Tensor) -> tuple[Tensor, Tensor]:
    """The gate and the gated map of A.2 and the official code, one position at a time."""
    convolutions = [m for m in gate.global_branch if isinstance(m, nn.Conv2d)]
    norms = [m for m in gate.global_branch if isinstance(m, nn.BatchNorm2d)]
    (linear,) = [m for m in gate.global_branch if isinstance(m, nn.Linear)]
    N, C, H, W = L.shape
    x = L
    for side, convolution, norm in zip((4, 2), convolutions, norms, strict=True):
        rows = [x[:, :, i : i + side].amax(dim=2) for i in range(0, x.shape[2], side)]
        x = torch.stack(rows, dim=2)
        columns = [x[..., j : j + side].amax(dim=3) for j in range(0, x.shape[3], side)]
        x = torch.stack(columns, dim=3)
        padded = nn.functional.pad(x, (1, 1, 1, 1))
        y = torch.zeros_like(x)
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                patch = padded[:, :, i : i + 3, j : j + 3]
                for c in range(C):
                    v = (patch * convolution.weight[c]).sum((1, 2, 3)) + convolution.bias[c]
                    v = (v - norm.running_mean[c]) / math.sqrt(float(norm.running_var[c]) + 1e-3)
                    y[:, c, i, j] = (v * norm.weight[c] + norm.bias[c]).clamp(min=0)
        x = y
    g = x.amax(dim=(2, 3)) @ linear.weight.T + linear.bias
    a, gated = torch.zeros(N, 1, H, W, dtype=L.dtype), torch.zeros_like(L)
    u, b = gate.u.weight[0, :, 0, 0], float(gate.u.bias)
    for n in range(N):
        for i in range(H):
            for j in range(W):
                c = sum(float(u[k]) * (float(L[n, k, i, j]) + float(g[n, k])) for k in range(C)) + b
                a[n, 0, i, j] = 1 / (1 + math.exp(-c))
                for k in range(C):
                    gated[n, k, i, j] = a[n, 0, i, j] * L[n, k, i, j]
    return a, gated


def small_gate(channels: int = 3) -> Gated:
    module = Gated(ProgressiveGate(channels)).double().eval()
    for p in module.parameters():
        nn.init.normal_(p, std=0.6)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return module


@pytest.mark.parametrize('size', [(16, 16), (9, 6)])
@torch.no_grad()
def test_gate(size: tuple[int, int]) -> None:
    module, L = small_gate(), torch.randn(2, 3, *size, dtype=torch.float64)
    a, gated = gate_by_loops(module.gate, L)
    torch.testing.assert_close(module.gate(L), a, atol=1e-10, rtol=0)
    torch.testing.assert_close(module(L), gated, atol=1e-10, rtol=0)


def test_g_is_alive_under_the_sigmoid() -> None:
    """Unlike that of a softmax: it moves the gate, and is trained."""
    module, L = small_gate(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    before = module.gate(L).detach()
    gradients = torch.autograd.grad(module(L).sum(), list(module.gate.global_branch.parameters()))
    assert all(g.abs().sum() > 0 for g in gradients)
    with torch.no_grad():
        module.gate.global_branch[-1].bias.add_(1.0)
    assert (module.gate(L) - before).abs().max() > 1e-2


@torch.no_grad()
def test_the_next_layer_reads_the_gated_map() -> None:
    """g is made of the map before the gate, by poolings of 4, 2 and what is left."""
    torch.manual_seed(0)
    model = timm.create_model('att_vgg', progressive=True).eval()
    (name,) = model.attention_gates
    gate = model.get_submodule(name)
    assert [m.kernel_size for m in gate.modules() if isinstance(m, nn.MaxPool2d)] == [4, 2]
    assert [m.p for m in gate.modules() if isinstance(m, nn.Dropout)] == [0.4, 0.4, 0.5]
    seen: dict[str, Tensor] = {}
    gate.register_forward_hook(lambda m, given, out: seen.update(L=given[0], a=out))
    model.stages[2].register_forward_pre_hook(lambda m, given: seen.update(read=given[0]))
    maps = model.forward_intermediates(torch.randn(1, 3, 32, 32), intermediates_only=True)
    assert torch.equal(seen['read'], seen['a'] * seen['L']) and maps[1] is seen['read']
    assert torch.equal(seen['L'], model.stages[1][:-1](maps[0]))
    assert seen['a'].shape == (1, 1, 16, 16)


def test_gates_by_name() -> None:
    with torch.device('meta'):
        assert timm.create_model('att_vgg').attention_gates == ()
        model = timm.create_model('att_vgg', progressive=True)
        without = timm.create_model('att_vgg', progressive=True, block_drop_rate=0)
    assert not [m for m in without.modules() if isinstance(m, nn.Dropout) and m.p]
    model.prune_intermediate_layers([0])
    assert model.attention_gates == ()
