"""What timm's users expect of any model: arguments, saving, loading, surgery, compilers."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from timm.models import group_parameters, save_for_hf
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from fgplugins.analysis.forms import split_form
from fgplugins.methods import list_methods
from fgplugins.utils.modes import in_testing
from fgplugins.zoo_timm.deploy import deploy
from fgplugins.zoo_timm.fg_models import method_of
from fgplugins.zoo_timm.grouping import layer_ordinals
from fgplugins.zoo_timm.task import LossStep, MethodTask

PRESETS = timm.list_models(module='fg_models')
# of more than 15 million parameters, and of more than 40; counting them takes longer than a test
LARGER = ['art_resnet101', 'att2_wrn40_10', 'clan_resnet101', 'siou_resnet101', 'siou_vgg19',
          'warn', 'warn_wide_resnet50_2', 'warn_wide_resnet50_4', 'warn_wrn40_10']  # fmt: skip
LARGE = [*LARGER, 'art', 'art_resnet50', 'att2', 'att2_wrn28_10', 'clan', 'clan3_vgg16_bn',
         'clan_resnet50', 'clan_vgg16_bn', 'gap', 'pan_vgg', 'siou', 'siou_resnet50',
         'warn_wrn28_10']  # fmt: skip


def small(method: str, **kwargs: object) -> nn.Module:
    return timm.create_model(method, **{'backbone': 'resnet10t', 'num_classes': 5, **kwargs})


def images(model: nn.Module, N: int = 2) -> Tensor:
    H, W = (min(64, side) for side in model.input_size)
    return torch.randn(N, model.in_chans, H, W)


def round_trip(name: str, folder: Path, **kwargs: object) -> None:
    model = timm.create_model(name, num_classes=7, **kwargs).eval()
    for buffer in model.buffers():  # as after training
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5, 1.5)
    save_for_hf(model, folder, safe_serialization=True)
    again = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    assert type(again) is type(model) and again.num_classes == 7
    state = again.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    x = images(model, 1)
    with torch.no_grad():
        assert torch.equal(model(x), again(x))


def slow_if(large: list[str], names: list[str]) -> list[object]:
    """Presets as parameters of a test, the large ones marked slow."""
    return [pytest.param(n, marks=[pytest.mark.slow] if n in large else []) for n in names]


@pytest.mark.parametrize('name', slow_if(LARGE, PRESETS))
def test_saved_to_a_folder_and_loaded(name: str, tmp_path: Path) -> None:
    round_trip(name, tmp_path)


@pytest.mark.parametrize('method', list_methods())
def test_arguments_are_saved_too(method: str, tmp_path: Path) -> None:
    round_trip(method, tmp_path, backbone='resnet10t', in_chans=1, drop_rate=0.1)


def test_lists_read_well() -> None:
    clans = ['clan_resnet50', 'clan_resnet101', 'clan_vgg16_bn']
    assert timm.list_models('clan_*', module='fg_models') == clans
    vggs = ['att1_vgg', 'att2_vgg', 'att3_vgg', 'pan_vgg']
    assert timm.list_models('*_vgg', module='fg_models') == vggs
    assert {*list_methods(), *LARGE} <= set(PRESETS)


def test_dropout_is_of_the_vector_that_is_classified() -> None:
    x, seen = torch.randn(64, 3, 32, 32), []
    for method in ('gap', 'warn', 'clan', 'siou'):
        model = small(method, drop_rate=0.5).train()
        model.backbone.eval()
        classifier = model.method.get_submodule(model.method.embedding_classifier)
        classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        plain = model.backbone.forward_features(x).mean(dim=(2, 3))
        model(x)
        dropped = seen.pop()
        kept = dropped != 0
        assert 0.4 < kept.float().mean() / (plain != 0).float().mean() < 0.6
        torch.testing.assert_close(dropped, plain * kept * 2)
        model.eval()
        assert torch.equal(model(x), model(x))
    model = small('att2', drop_rate=0.5).train()  # has no classifier of the embedding
    model.backbone.eval()
    alive = model.backbone.forward_features(x).sum(dim=(2, 3)) > 0
    kept = model.read(x)[-1].sum(dim=(2, 3)) > 0
    assert 0.4 < kept.float().mean() / alive.float().mean() < 0.6


def test_the_networks_own_dropout_is_taken_over() -> None:
    """Once: the network has it no more, and a user's own rate takes its place."""
    model = timm.create_model('gap', backbone='ghostnet_050', num_classes=3)
    assert model.method.head_drop.p == model.drop_rate == 0.2 and model.backbone.drop_rate == 0
    other = timm.create_model('gap', backbone='ghostnet_050', num_classes=3, drop_rate=0.5)
    assert other.method.head_drop.p == 0.5 and other.backbone.drop_rate == 0


def test_drop_path_reaches_the_backbone_or_is_refused_by_name() -> None:
    model = small('warn', drop_path_rate=0.3)
    rates = [m.drop_prob for m in model.backbone.modules() if type(m).__name__ == 'DropPath']
    assert max(rates) == pytest.approx(0.3)
    with pytest.raises(TypeError, match='drop_path_rate'):
        small('warn', backbone='vgg11', drop_path_rate=0.3)


@pytest.mark.parametrize('method', list_methods())
def test_without_classes_the_last_map_comes_out(method: str) -> None:
    model = small(method).eval()
    x = torch.randn(2, 3, 64, 96)
    features = model.forward_features(x)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size) == (2, model.num_features)
    model.reset_classifier(0)
    assert torch.equal(model(x), pooled)
    model.reset_classifier(0, '')
    assert torch.equal(model(x), features if model.is_network else features[-1])
    model.reset_classifier(3)
    assert model(x).shape == (2, 3) and not model.method.training
    if method != 'att2':
        model.reset_classifier(3, 'max')  # of the network's own head
        features, given = model.method.split(model.read(x))
        torch.testing.assert_close(model(x), model.method(features, **given))
        assert model(x).shape == (2, 3)
        torch.testing.assert_close(given['embedding'], features[-1].amax(dim=(2, 3)))
        return
    with pytest.raises(ValueError, match="global_pool='max'"):
        model.reset_classifier(3, 'max')


@pytest.mark.parametrize('backbone', ['resnet10t', 'test_efficientnet', 'test_convnext'])
@pytest.mark.parametrize('pool', ['max', 'avgmax', 'catavgmax', 'avg'])
def test_another_pooling_of_the_networks_own_head(pool: str, backbone: str) -> None:
    """As if it had been built with it: read again, and deployed with it."""
    if pool == 'catavgmax' and backbone == 'test_convnext':
        pytest.skip("timm's own refuses it")
    built = small('gap', backbone=backbone, global_pool=pool)
    model = small('gap', backbone=backbone)
    model.reset_classifier(5, pool)
    assert model.reading == built.reading
    assert model.embedding_channels == built.embedding_channels
    assert model.head_hidden_size == built.head_hidden_size
    assert model.loss(images(model), torch.tensor([0, 4]))['ce'].isfinite()
    shipped, name, arguments = deploy(model)
    assert name == backbone and arguments['global_pool'] == pool
    assert torch.equal(shipped(x := images(model)), model.eval()(x))


@pytest.mark.parametrize('method', ['gap', 'siou', 'att2'])
def test_built_where_nothing_is_trained(method: str) -> None:
    with torch.inference_mode():
        model = small(method, backbone='test_efficientnet')
    again = small(method, backbone='test_efficientnet')
    assert [n for n, _ in model.backbone.named_parameters()] == [
        n for n, _ in again.backbone.named_parameters()
    ]


def test_without_classes_there_is_nothing_to_train_or_deploy() -> None:
    model = small('gap', num_classes=0)
    for function in (
        lambda: model.loss(images(model), torch.tensor([0, 0])),
        lambda: LossStep(model),
        lambda: deploy(model),
    ):
        with pytest.raises(ValueError, match='num_classes=0 has no gap'):
            function()
    with pytest.raises(ValueError, match='between 0 and 1'):
        small('gap', drop_rate=2)


def test_device_and_type() -> None:
    model = small('clan', device='meta', dtype=torch.bfloat16)
    tensors = [*model.parameters(), *model.buffers()]
    assert {t.device.type for t in tensors} == {'meta'}
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.bfloat16}
    half = small('clan').bfloat16().eval()
    assert half(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_the_backbones_maps_alone() -> None:
    model = small('warn', features_only=True, out_indices=(1, -1)).eval()
    assert model.feature_info.channels() == [64, 512]
    assert model.feature_info.reduction() == [4, 32]
    maps = model(torch.randn(1, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 16, 16), (512, 2, 2)]
    assert len(small('gap', features_only=True).feature_info) == 5
    with pytest.raises(ValueError, match=r'out_indices=\[9\]: resnet10t has the maps 0 to 4'):
        small('gap', features_only=True, out_indices=(9,))
    with pytest.raises(ValueError, match="feature_cls='hook'"):
        small('gap', features_only=True, feature_cls='hook')
    with pytest.raises(ValueError, match=r'out_indices=\(1,\): only features_only takes'):
        small('gap', out_indices=(1,))


def test_another_size_of_images() -> None:
    model = timm.create_model('gap', backbone='vit_tiny_patch16_224', num_classes=3).eval()
    assert model.fixed_size == (224, 224)
    model.set_input_size((64, 96))
    assert model.fixed_size == model.input_size == model.find_view_size() == (64, 96)
    assert model(torch.randn(1, 3, 64, 96)).shape == (1, 3)
    free = small('gap')
    free.set_input_size(img_size=96)
    assert free.input_size == (96, 96) and free.fixed_size is None
    with pytest.raises(ValueError, match='resnet10t cannot change its window_size'):
        free.set_input_size(window_size=7)


@pytest.mark.parametrize('backbone', ['vit_tiny_patch16_224', 'poolformer_s12', 'resnet10t'])
def test_layer_decay_goes_by_depth(backbone: str) -> None:
    """timm has no groups for metaformers; a vision transformer's first group has several names."""
    with torch.device('meta'):
        model = timm.create_model('warn', backbone=backbone, num_classes=3)
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    names = [name for name, _ in model.named_parameters()]
    last = max(groups.values())
    assert set(groups) == set(names) and last > 3
    assert {groups[n] for n in names if n.startswith('method.')} == {last}
    assert all(groups[n] < last for n in names if n.startswith('backbone.'))
    if 'backbone.pos_embed' in groups:
        assert groups['backbone.pos_embed'] == 0
        assert 'backbone.pos_embed' in model.no_weight_decay()


def test_frozen_stays_frozen() -> None:
    model = timm.create_model('warn', backbone='vit_tiny_patch16_224', num_classes=3)
    model.requires_grad_(False)
    model.set_input_size(img_size=(64, 64))
    model.reset_classifier(0)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize('method', list_methods())
def test_scripted_and_symbolically_traced(method: str) -> None:
    from timm.models import get_notrace_functions, get_notrace_modules
    from torchvision.models.feature_extraction import NodePathTracer

    model = small(method).eval()
    x = torch.randn(3, 3, 96, 64)  # neither the batch nor the size it is traced with
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(torch.jit.script(model)(x), expected, atol=1e-4, rtol=1e-4)
        tracer = NodePathTracer(
            leaf_modules=get_notrace_modules(), autowrap_functions=get_notrace_functions()
        )
        graph = torch.fx.GraphModule(model, tracer.trace(model))
        torch.testing.assert_close(graph(x), expected)


@pytest.mark.parametrize(
    ('backbone', 'left'),
    [
        ('crossvit_tiny_240', 'blocks.2.projs.0.0.weight'),  # a branch that ends beside the maps
        ('hrnet_w18_small', 'stage4.0.fuse_layers.0.1.0.weight'),  # the same, many times
    ],
)
def test_what_no_map_depends_on_is_not_trained(backbone: str, left: str) -> None:
    """It stays in the state dict, where weights that timm publishes have it."""
    model = timm.create_model('gap', backbone=backbone, num_classes=3, head='mean')
    assert left not in dict(model.backbone.named_parameters())
    x, target = torch.randn(2, 3, *model.input_size), torch.tensor([0, 2])
    sum(model.loss(x, target).values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    plain = timm.create_model(backbone, num_classes=0).state_dict()
    kept = [name for name in plain if name in model.backbone.state_dict()]
    assert model.backbone.load_state_dict({k: plain[k] for k in kept}, strict=True)


@pytest.mark.parametrize('name', slow_if(LARGER, [name for name in PRESETS if '_' in name]))
def test_probing_a_preset_would_find_nothing(name: str) -> None:
    with torch.device('meta'):
        plain, probed = timm.create_model(name), timm.create_model(name, probe=True)
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in probed.named_parameters()]
    assert plain.reading == probed.reading and plain.reading.normalized


def test_another_backbone_is_probed() -> None:
    with pytest.raises(ValueError, match='siou on vit_tiny_patch16_224'):
        timm.create_model('siou_resnet50', backbone='vit_tiny_patch16_224')


@pytest.mark.parametrize('backbone', ['davit_tiny', 'deit_tiny_patch16_224'])
def test_attention_can_be_differentiated_twice(backbone: str) -> None:
    """Fused attention cannot; where the maps are on the gradient's path it is not used."""
    build = lambda: timm.create_model('siou', backbone=backbone, num_classes=3)  # noqa: E731
    if backbone.startswith('deit'):
        with pytest.raises(ValueError, match='copy'):
            build()
        return
    sum(LossStep(build())(torch.randn(1, 3, 64, 64), torch.tensor([2])).values()).backward()


@pytest.mark.parametrize(
    ('backbone', 'view'),
    [
        ('resnet10t', None),  # half of any image
        ('vit_tiny_patch16_224', (224, 224)),  # one size only
        ('deepseek_vit_412m', (266, 266)),  # whole patches of 14; half of 546 is not
    ],
)
def test_the_views_of_art_have_a_size_that_the_backbone_takes(
    backbone: str, view: tuple[int, int] | None
) -> None:
    with torch.device('meta'):
        # as few blocks as will do: the size is that of the patches
        shallow = {'depth': 2} if 'vit' in backbone else {}
        model = timm.create_model('art', backbone=backbone, num_classes=3, **shallow)
        step = LossStep(model)
    assert model.find_view_size() == view == step.regularizer.view_size


def test_a_preset_trains_beside_its_second_network() -> None:
    model = timm.create_model('art_resnet50', num_classes=3)
    terms = LossStep(model)(torch.randn(2, 3, 64, 64), torch.tensor([0, 2]))
    assert all(term.isfinite() for term in terms.values())


@pytest.mark.slow
@pytest.mark.parametrize('rules', ['standard and not', 'features', 'pruning', 'compilers'])
def test_timms_own_tests(rules: str, tmp_path: Path) -> None:
    """Unedited, from a source distribution of timm: $FGPLUGINS_TIMM_TESTS names the folder."""
    folder = os.environ.get('FGPLUGINS_TIMM_TESTS')
    if not folder:
        pytest.skip('set FGPLUGINS_TIMM_TESTS to the tests folder of timm to run this test')
    (tmp_path / 'test_models.py').write_text((Path(folder) / 'test_models.py').read_text())
    conftest = Path(__file__).parent / 'timm_tests' / 'conftest.py'
    (tmp_path / 'conftest.py').write_text(conftest.read_text())
    chosen = {
        'standard and not': 'test_model_default_cfgs or test_model_backward',
        'features': 'test_model_forward and not fx and not torchscript',
        'pruning': 'test_prune_intermediate_layers_contract',
        'compilers': '(fx or test_model_forward_torchscript) and not features_fx',
    }[rules]
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-k', chosen],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]


# ---------------------------------------------------------------------------------------- looking


def modes(model: nn.Module) -> dict[str, tuple]:
    parts = model.named_modules()
    return {name: (m.training, getattr(m, 'fused_attn', None)) for name, m in parts}


def test_looking_leaves_every_part_in_its_mode() -> None:
    model = timm.create_model('siou', backbone='davit_tiny', num_classes=3)
    for part in (model.backbone.stages[0], model.method):
        part.eval()
    model.backbone.stages[1].requires_grad_(False)
    before = modes(model)
    with in_testing(model):
        assert not any(m.training for m in model.modules())
        assert any(fused for _, fused in modes(model).values())
    assert modes(model) == before
    assert not any(p.requires_grad for p in model.backbone.stages[1].parameters())
    with pytest.raises(RuntimeError, match='inside'), in_testing(model):
        raise RuntimeError('inside')
    assert modes(model) == before


@pytest.mark.parametrize('look', ['find_view_size', 'script', 'deploy', 'step'])
def test_frozen_normalisations_stay_frozen(look: str) -> None:
    model = small('art')
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    before = modes(model)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    {
        'find_view_size': model.find_view_size,
        'script': lambda: torch.jit.script(model),
        'deploy': lambda: deploy(model),
        'step': lambda: LossStep(model),
    }[look]()
    assert modes(model) == before
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_what_testing_leaves_in_a_network_is_forgotten() -> None:
    """Attention biases that timm keeps in testing belong to no training, and cannot be copied."""
    LossStep(timm.create_model('art', backbone='levit_128s', num_classes=3))


# ------------------------------------------------------------------------------------ layer decay


def scales(model: nn.Module) -> dict[str, float]:
    names = {id(p): name for name, p in model.named_parameters()}
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    return {names[id(p)]: group['lr_scale'] for group in groups for p in group['params']}


@pytest.mark.parametrize(
    'backbone',
    [
        'cait_xxs24_224',
        'inception_v3',
        'inception_resnet_v2',
        'densenet121',
        'cspresnet50',
        'vit_tiny_patch16_224',
        'resnet10t',
        'crossvit_tiny_240',
    ],
)
def test_layer_decay_is_in_timms_order(backbone: str) -> None:
    """Groups are a function, patterns, lists of them: the order is the plain network's."""
    with torch.device('meta'):
        plain = scales(timm.create_model(backbone, num_classes=3))
        head = 'mean' if backbone.startswith('crossvit') else 'network'
        model = timm.create_model('art', backbone=backbone, num_classes=3, head=head)
        composed, step = scales(model), scales(LossStep(model))
    names = sorted((n for n in plain if f'backbone.{n}' in composed), key=plain.get)
    assert len(set(composed.values())) > 3
    for one, other in itertools.pairwise(names):
        a, b = composed[f'backbone.{one}'], composed[f'backbone.{other}']
        assert a == b if plain[one] == plain[other] else a <= b, (one, other)
    assert {v for n, v in composed.items() if n.startswith('method.')} == {1.0}
    assert all(step[f'model.{n}'] == v for n, v in composed.items())
    twins = [n for n in step if n.startswith('second.')]
    assert twins and all(step[n] == step[f'model.backbone.{n[7:]}'] for n in twins)


def test_group_matchers_of_every_kind() -> None:
    import re

    first = {'stem': '^stem', 'none': None, 'blocks': [(r'^b\.(\d+)', None), ('^n', (99999,))]}
    find = layer_ordinals(first)
    assert find('stem.x') == (0,) and find('b.7.x') == (2, 7) and find('n') == (2, 99999)
    assert find('head') == (float('inf'),)
    compiled = layer_ordinals({'stem': re.compile('^STEM', re.I), 'rest': re.compile('.')})
    assert compiled('stem.x') == (0,) and compiled('head') == (1,)
    triples = layer_ordinals([(re.compile('a'), (3,), None), (re.compile('b'), (1,), (2,))])
    assert triples('a') == (3,) and triples('b') == (1, 2)
    assert layer_ordinals(len)('four') == (4,) and layer_ordinals(lambda n: [1, 2])('x') == (1, 2)


def test_clipping_leaves_the_named_classifiers_out() -> None:
    for method in list_methods():
        model = small(method)
        kept = {id(p) for p in MethodTask(model, verbose=False).get_clip_parameters(True)}
        left = {n for n, p in model.named_parameters() if id(p) not in kept}
        names = model.pretrained_cfg['classifier']
        names = (names,) if isinstance(names, str) else names
        own = dict(model.named_parameters())
        assert left == {n for n in own if n.rpartition('.')[0] in names} and left


# ------------------------------------------------------------------------------------------ names


def test_a_backbone_from_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / 'my networks' / 'a=b'
    plain = timm.create_model('resnet10t', num_classes=7, in_chans=1)
    save_for_hf(plain, folder, model_config={'label_names': list('abcdefg')})
    name = f'local-dir:{folder}'
    model = timm.create_model('warn', backbone=name, num_classes=3, pretrained=True)
    assert model.in_chans == 1 and 'label_names' not in model.pretrained_cfg
    assert torch.equal(model.backbone.conv1[0].weight, plain.conv1[0].weight)
    save_for_hf(model, tmp_path / 'own')
    assert method_of(f'local-dir:{tmp_path / "own"}') == 'warn'
    assert method_of(name) is None and method_of('warn_wrn28_10') == 'warn'
    for spec, expected in (
        (name, (name, 'ours')),
        (f'{name}:paper', (name, 'paper')),
        ('local-dir:paper', ('local-dir:paper', 'ours')),
        ('hf-hub:owner/name:backbone', ('hf-hub:owner/name', 'backbone')),
        ('warn:paper', ('warn', 'paper')),
    ):
        assert split_form(spec) == expected
    with pytest.raises(ValueError, match='has a method on top already'):
        timm.create_model('gap', backbone=f'local-dir:{tmp_path / "own"}')


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('local-dir:/nowhere', "backbone='local-dir:/nowhere': its config.json cannot be read"),
        ('hf-hub:owner/name', "backbone='hf-hub:owner/name': config.json from the hub cannot"),
        ('hf_hub:a@b@c', 'config.json from the hub cannot be read'),
        ('owner/name', "Use 'hf-hub:owner/name'"),
        ('resnet18.nonsense', "resnet18 has no weights 'nonsense'; there are: a1_in1k"),
    ],
)
def test_names_that_lead_nowhere(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.models import _hub

    def offline(*arguments: object, **kwargs: object) -> None:
        raise ConnectionError('there is\nno connection')

    monkeypatch.setattr(_hub, 'hf_hub_download', offline)
    with pytest.raises(ValueError, match=message) as caught:
        timm.create_model('warn', backbone=name, num_classes=3)
    assert '\n' not in str(caught.value)


def test_a_name_with_a_tag() -> None:
    model = timm.create_model('gap', backbone='resnet18.a1_in1k', num_classes=3)
    assert model.pretrained_cfg['crop_pct'] == 0.95


# ---------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize('there', [1, 3])
@pytest.mark.parametrize('here', [1, 2, 3, 4])
def test_weights_of_another_number_of_channels(there: int, here: int, tmp_path: Path) -> None:
    from timm.models import adapt_input_conv

    plain = timm.create_model('resnet10t', num_classes=7, in_chans=there)
    torch.save({'state_dict': {f'module.{k}': v for k, v in plain.state_dict().items()}},
               tmp_path / 'w.pth')  # fmt: skip
    model = small('warn', in_chans=here, backbone_checkpoint=tmp_path / 'w.pth')
    first = adapt_input_conv(here, plain.conv1[0].weight.detach(), there)
    torch.testing.assert_close(model.backbone.conv1[0].weight.detach(), first)
    assert torch.equal(model.backbone.layer4[0].conv1.weight, plain.layer4[0].conv1.weight)


def test_position_embeddings_are_resampled(tmp_path: Path) -> None:
    """To what timm makes of them itself."""
    from safetensors.torch import save_file

    kwargs = {'img_size': 96, 'in_chans': 1}
    plain = timm.create_model('vit_tiny_patch16_224', num_classes=5)
    save_file(plain.state_dict(), tmp_path / 'w.safetensors')
    overlay = {'file': str(tmp_path / 'w.safetensors'), 'num_classes': 5}
    timms = timm.create_model(
        'vit_tiny_patch16_224', pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0,
        **kwargs,
    ).state_dict()  # fmt: skip
    model = small(
        'gap', backbone='vit_tiny_patch16_224', backbone_checkpoint=str(overlay['file']), **kwargs
    )
    assert model.backbone.pos_embed.shape == (1, 37, 192)
    assert all(torch.equal(v, timms[k]) for k, v in model.backbone.state_dict().items())


@pytest.mark.parametrize('backbone', ['efficientvit_m0', 'densenet121', 'levit_128s'])
def test_a_head_of_any_kind_is_left_out(backbone: str, tmp_path: Path) -> None:
    """A normalisation before the classifier; filters of weights that take one argument."""
    plain = timm.create_model(backbone, num_classes=7)
    torch.save({'model': plain.state_dict()}, tmp_path / 'w.pth')
    model = small('gap', backbone=backbone, backbone_checkpoint=str(tmp_path / 'w.pth'))
    state = plain.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.backbone.state_dict().items())


def test_averaged_weights_are_taken(tmp_path: Path) -> None:
    one, other = (timm.create_model('resnet10t', num_classes=7) for _ in range(2))
    torch.save({'state_dict': one.state_dict(), 'state_dict_ema': other.state_dict()},
               tmp_path / 'w.pth')  # fmt: skip
    model = small('warn', backbone_checkpoint=str(tmp_path / 'w.pth'))
    assert torch.equal(model.backbone.conv1[0].weight, other.conv1[0].weight)


def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    state = timm.create_model('resnet10t', num_classes=7).state_dict()
    file = tmp_path / 'w.pth'
    wide = {**state, 'layer1.0.conv1.weight': torch.zeros(3, 64, 3, 3)}
    for content, message in (
        ({k: v for k, v in state.items() if k != 'bn1.bias'}, 'does not fit: it lacks bn1.bias$'),
        ({**state, 'neck.weight': torch.zeros(3)}, 'does not fit: it has neck.weight besides$'),
        (wide, r'conv1.weight is \(3, 64, 3, 3\) in it and \(64, 64, 3, 3\) in the model$'),
        ([1], 'cannot be read'),
    ):
        torch.save(content, file)
        with pytest.raises(ValueError, match=message):
            small('warn', backbone_checkpoint=str(file))
    file.write_bytes(b'no weights')
    with pytest.raises(ValueError, match='cannot be read'):
        small('warn', backbone_checkpoint=str(file))
    (tmp_path / 'w.npz').write_bytes(b'')
    with pytest.raises(ValueError, match='ResNet reads no NumPy files'):
        small('warn', backbone_checkpoint=str(tmp_path / 'w.npz'))


def test_saved_arguments_do_not_say_where_the_first_weights_were(tmp_path: Path) -> None:
    torch.save(timm.create_model('resnet10t').state_dict(), tmp_path / 'w.pth')
    model = small('warn', backbone_checkpoint=tmp_path / 'w.pth')
    save_for_hf(model, tmp_path / 'own')
    (tmp_path / 'w.pth').unlink()
    again = timm.create_model(f'local-dir:{tmp_path / "own"}', pretrained=True)
    assert torch.equal(again.backbone.conv1[0].weight, model.backbone.conv1[0].weight)


@pytest.mark.parametrize(
    ('backbone', 'kwargs', 'size', 'fixed'),
    [
        ('vit_tiny_patch16_224', {'img_size': 96}, (96, 96), (96, 96)),
        ('vit_tiny_patch16_224', {'dynamic_img_size': True}, (224, 224), None),
        ('resnet10t', {}, (176, 176), None),
    ],
)
def test_the_size_is_the_networks_own(
    backbone: str, kwargs: dict, size: tuple, fixed: tuple | None
) -> None:
    with torch.device('meta'):
        model = timm.create_model('gap', backbone=backbone, num_classes=3, **kwargs)
    assert model.input_size == size and model.fixed_size == fixed


# ----------------------------------------------------------------------------------- quantisation


@pytest.mark.parametrize('method', list_methods())
def test_quantised_and_copied(method: str) -> None:
    import copy
    import pickle

    model, x = small(method, backbone='test_resnet').eval(), torch.randn(2, 3, 64, 64)
    quantise = lambda m: torch.ao.quantization.quantize_dynamic(m, {nn.Linear})  # noqa: E731
    quantised = quantise(model)
    kinds = {type(m).__module__ for m in quantised.modules()}
    assert any('quantized' in kind for kind in kinds)
    with torch.no_grad():
        scores = quantised(x)
        torch.testing.assert_close(scores, model(x), atol=0.02, rtol=0.02)
        again = quantise(small(method, backbone='test_resnet').eval())
        again.load_state_dict(quantised.state_dict())
        assert torch.equal(again(x), scores)
        assert torch.equal(copy.deepcopy(quantised)(x), scores)
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))
    for one, other in zip(quantised.attention_maps(x), model.attention_maps(x), strict=True):
        torch.testing.assert_close(one, other, atol=0.05, rtol=0.05)
