"""The papers' plain networks with heads of their own: att2's VGG, and WARN's for digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgplugins
from fgplugins.zoo_timm.task import LossStep

IMAGES = {'cifar_vgg16': (3, 32, 32), 'clutter_cnn_2fc': (1, 40, 40)}
SMALL = {'clutter_cnn_2fc': {'widths': (2, 3, 4, 5, 6), 'hidden': 7}}


def leaves(module: nn.Module) -> list[str]:
    """Kinds and settings of all layers, in order."""
    found = []
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            found.append(f'drop {layer.p}')
        elif isinstance(layer, nn.Conv2d):
            found.append(f'conv {layer.in_channels} {layer.out_channels}')
        elif isinstance(layer, nn.Linear):
            found.append(f'linear {layer.in_features} {layer.out_features}')
        elif isinstance(layer, nn.MaxPool2d):
            found.append(f'pool {layer.kernel_size}')
        elif not list(layer.children()):
            found.append(type(layer).__name__)
    return found


def official_vgg(classes: int, cub: bool) -> list[str]:
    """The layers of the official vgg_bn_drop.lua, for CIFAR and for CUB."""
    found, inside = [], 3
    for width, rates in (
        (64, (0.3, 0)), (128, (0.4, 0)), (256, (0.4, 0.4, 0)), (512, (0.4, 0.4, 0)),
        (512, (0.4, 0.4, 0)),
    ):  # fmt: skip
        for rate in rates:
            found += [f'conv {inside} {width}', 'BatchNorm2d', 'ReLU']
            found += [f'drop {rate}'] if rate else []
            inside = width
        found.append('pool 2')
    found[-1] = 'AdaptiveMaxPool2d'  # 2 x 2 of 2 x 2 positions, for CUB 3 x 3 of 3 x 3
    if cub:
        found.insert(-4, 'pool 2')
    return [
        *found, 'Flatten', 'drop 0.5', 'linear 512 512', 'BatchNorm', 'ReLU', 'drop 0.5',
        f'linear 512 {classes}',
    ]  # fmt: skip


@pytest.mark.parametrize('cub', [False, True])
def test_the_layers_of_att2s_vgg(cub: bool) -> None:
    with torch.device('meta'):
        model = timm.create_model('cifar_vgg16', num_classes=7, pool_before_last=cub)
    assert leaves(model) == official_vgg(7, cub)
    assert {m.eps for m in model.stages.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert model.head.hidden[4].eps == 1e-5
    assert [info['reduction'] for info in model.feature_info] == [1, 2, 4, 8, 32 if cub else 16]


@torch.no_grad()
def test_atts2_vgg_by_hand() -> None:
    """In testing: each block's end, and the scores."""
    model = timm.create_model('cifar_vgg16', num_classes=3).double().eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    final, maps = model.forward_intermediates(x)
    scores, layers = model(x), [m for m in model.stages.modules() if not list(m.children())]
    convolutions = iter([m for m in layers if isinstance(m, nn.Conv2d)])
    norms = iter([m for m in layers if isinstance(m, nn.BatchNorm2d)])
    for depth, expected in zip((2, 2, 3, 3, 3), maps, strict=True):
        for _ in range(depth):
            conv, norm = next(convolutions), next(norms)
            y = F.conv2d(x, conv.weight, conv.bias, padding=1)
            scale = norm.weight / (norm.running_var + 1e-3).sqrt()
            shift = norm.bias - norm.running_mean * scale
            x = (y * scale[:, None, None] + shift[:, None, None]).clamp(min=0)
        torch.testing.assert_close(expected, x, atol=1e-10, rtol=0)
        before, (N, C, H, W) = x, x.shape
        x = x.view(N, C, H // 2, 2, W // 2, 2).amax(dim=(3, 5))
    assert final is maps[-1] and torch.equal(final, maps[-1]) and before.shape[2:] == (2, 2)
    linear, norm = model.head.hidden[3], model.head.hidden[4]
    z = x.flatten(1) @ linear.weight.T + linear.bias
    z = (z - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
    expected = z.clamp(min=0) @ model.head.fc.weight.T + model.head.fc.bias
    torch.testing.assert_close(scores, expected, atol=1e-10, rtol=0)


def test_dropout_can_be_chosen() -> None:
    rates = {'block_drop_rate': 0.0, 'hidden_drop_rate': 0.2, 'drop_rate': 0.1}
    with torch.device('meta'):
        model = timm.create_model('cifar_vgg16', **rates)
    assert [kind for kind in leaves(model) if kind.startswith('drop')] == ['drop 0.2', 'drop 0.1']
    with pytest.raises(ValueError, match=r'CifarVGG: block_drop_rate=2: give one rate'):
        timm.create_model('cifar_vgg16', block_drop_rate=2)


@torch.no_grad()
def test_the_fully_connected_layers_for_digits() -> None:
    """Of all positions of the last map: a sum over channels and positions for each unit."""
    model = timm.create_model('clutter_cnn_2fc', **SMALL['clutter_cnn_2fc']).double().eval()
    final = torch.rand(1, 6, 5, 5, dtype=torch.float64)
    first, second = model.head.hidden[1], model.head.fc
    hidden = []
    for k in range(7):
        total = float(first.bias[k])
        for c in range(6):
            for i in range(5):
                for j in range(5):
                    weight = first.weight[k, c * 25 + i * 5 + j]
                    total += float(weight) * float(final[0, c, i, j])
        hidden.append(max(total, 0.0))
    scores = [
        sum(float(w) * h for w, h in zip(second.weight[y], hidden, strict=True))
        + float(second.bias[y])
        for y in range(10)
    ]
    ours = model.forward_head(final)
    torch.testing.assert_close(
        ours, torch.tensor([scores], dtype=torch.float64), atol=1e-10, rtol=0
    )


@torch.no_grad()
def test_the_digit_networks_have_the_same_maps() -> None:
    one, other = (
        timm.create_model('clutter_cnn').eval(),
        timm.create_model('clutter_cnn_2fc').eval(),
    )
    names = [n for n in one.state_dict() if n.startswith('stages.')]
    other.load_state_dict({n: one.state_dict()[n] for n in names}, strict=False)
    assert one.feature_info == other.feature_info
    x = torch.randn(2, 1, 40, 40)
    maps = [m.forward_intermediates(x, intermediates_only=True) for m in (one, other)]
    assert len(maps[0]) == 4 and all(torch.equal(a, b) for a, b in zip(*maps, strict=True))
    assert sum(p.numel() for p in other.head.parameters()) == (3200 + 1) * 256 + (256 + 1) * 10


def test_images_of_another_size() -> None:
    model = timm.create_model('clutter_cnn_2fc', img_size=(48, 64)).eval()
    assert model(torch.randn(2, 1, 48, 64)).shape == (2, 10)
    with pytest.raises(AssertionError, match=r'last map is 5 x 5.* for 6 x 8: set img_size'):
        model(torch.randn(2, 1, 40, 40))


@pytest.mark.parametrize('name', list(IMAGES))
@torch.no_grad()
def test_gap_is_the_plain_network(name: str, tmp_path: Path) -> None:
    """Its scores, its dropout and its classifier, from a file of its weights."""
    kwargs, size = SMALL.get(name, {}), IMAGES[name]
    plain = timm.create_model(name, num_classes=3, **kwargs).eval()
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    model = timm.create_model(
        'gap', backbone=name, num_classes=3, in_chans=size[0], head='network',
        backbone_checkpoint=tmp_path / 'plain.pth', **kwargs,
    ).eval()  # fmt: skip
    x = torch.randn(2, *size)
    assert torch.equal(model(x), plain(x)) and model.has_own_head
    assert model.method.head_drop.p == plain.head.drop.p and model.backbone.head.drop.p == 0
    ours = sum(p.numel() for p in model.parameters())
    assert ours == sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize('method', fgplugins.list_methods())
def test_methods_read_the_hidden_layer(method: str) -> None:
    kwargs = SMALL['clutter_cnn_2fc']
    model = timm.create_model(
        method, backbone='clutter_cnn_2fc', num_classes=3, in_chans=1, **kwargs
    )
    reads = model.method_class.reads_embedding
    assert model.head == 'network' and model.fixed_size == (40, 40)
    assert model.embedding_channels == (7 if reads else None)
    step = LossStep(model).train()
    sum(step(torch.randn(2, 1, 40, 40), torch.tensor([0, 2])).values()).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize('name', list(IMAGES))
@torch.no_grad()
def test_timms_interface(name: str) -> None:
    kwargs, x = SMALL.get(name, {}), torch.randn(2, *IMAGES[name])
    model = timm.create_model(name, num_classes=3, **kwargs).eval()
    final, maps = model.forward_intermediates(x)
    z = model.forward_head(final, pre_logits=True)
    assert z.shape == (2, model.head_hidden_size) and model.num_features == final.shape[1]
    assert torch.equal(model.get_classifier()(z), model(x))
    model.reset_classifier(5)
    assert model(x).shape == (2, 5)
    model.reset_classifier(0)
    assert torch.equal(model(x), z)
    for changes in ({'num_classes': 0}, {'num_classes': 0, 'global_pool': ''}):
        other = timm.create_model(name, **changes, **kwargs)
        expected = final.shape if 'global_pool' in changes else z.shape
        assert other(x).shape == expected
    with pytest.raises(ValueError, match=r"global_pool='avg', num_classes=3: .* leave global_pool"):
        timm.create_model(name, num_classes=3, global_pool='avg', **kwargs)
    with pytest.raises(ValueError, match="global_pool='', num_classes=3: "):
        timm.create_model(name, num_classes=3, global_pool='', **kwargs)

    getter = timm.create_model(name, features_only=True, out_indices=(1, 3), **kwargs).eval()
    getter.model.load_state_dict(model.state_dict(), strict=False)
    for ours, theirs in zip(getter(x), (maps[1], maps[3]), strict=True):
        assert torch.equal(ours, theirs)
    assert model.prune_intermediate_layers([0, 1]) == [0, 1] and len(model.stages) == 2
    assert torch.equal(model(x), maps[1]) and model.head_hidden_size == maps[1].shape[1]
    whole = timm.create_model(name, **kwargs)
    whole.prune_intermediate_layers([len(maps) - 1])
    assert whole(x).shape == final.shape and whole.head_hidden_size == whole.num_features


@pytest.mark.parametrize('name', list(IMAGES))
def test_scripted_traced_and_exported(name: str) -> None:
    from timm.models import get_notrace_modules
    from torchvision.models.feature_extraction import NodePathTracer

    kwargs, x = SMALL.get(name, {}), torch.randn(2, *IMAGES[name])
    model = timm.create_model(name, num_classes=3, **kwargs).eval()
    tracer = NodePathTracer(leaf_modules=list(get_notrace_modules()))
    with torch.no_grad():
        graph = torch.fx.GraphModule(model, tracer.trace(model))
        exported = torch.export.export(model, (x,)).module()
        for form in (graph, exported):
            torch.testing.assert_close(form(x), model(x))


def test_one_image_can_be_trained_on() -> None:
    """The normalisation of vectors has no variance to go by then."""
    model = timm.create_model('cifar_vgg16', num_classes=3).train()
    scores: Tensor = model(torch.randn(1, 3, 64, 64))
    assert scores.shape == (1, 3) and scores.isfinite().all()
