"""The timm side: composed models, presets, counts, the training task."""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from helpers import CLASSES, image_folder
from PIL import Image
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy
from timm.models import save_for_hf
from torch import nn

import fgplugins
from fgplugins.analysis.complexity import count_complexity, paper_form
from fgplugins.analysis.loading import load_model
from fgplugins.analysis.module_counters import count_layers
from fgplugins.errors import UserError
from fgplugins.methods import NoClassMap, get_method
from fgplugins.methods.art import RestrictionSchedule
from fgplugins.networks.levels import choose_levels
from fgplugins.utils.command_line import main_guard
from fgplugins.zoo_timm import train
from fgplugins.zoo_timm.checkpoints import data_config, read_checkpoint
from fgplugins.zoo_timm.data import RunData
from fgplugins.zoo_timm.deploy import deploy, deployed_checkpoint
from fgplugins.zoo_timm.task import LossStep, MethodTask, classification_task

# one small model per way that timm gives features: plain, pre-activation, NHWC, tokens, dense, with
# a head convolution, without normalisation
BACKBONES = [
    'clutter_cnn',
    'convnext_atto',
    'densenet121',
    'mobilenetv2_035',
    'regnety_002',
    'resnet10t',
    'resnetv2_18',
    'swin_tiny_patch4_window7_224',
    'vgg11',
    'vit_tiny_patch16_224',
    'efficientnet_b0',
    'mobilenetv4_conv_small_035',
]

# the same kinds of layers, fewer of them
SMALLER = {
    'densenet121': {'block_config': (2, 2, 2, 2)},
    'swin_tiny_patch4_window7_224': {
        'embed_dim': 24, 'depths': (1, 1, 2, 1), 'num_heads': (1, 2, 2, 4), 'img_size': 112,
    },
    'vgg11': {'mlp_ratio': 1 / 64},
    'vit_tiny_patch16_224': {'depth': 4, 'img_size': 64},
}  # fmt: skip

# these hand over normalised or permuted copies of what they continue from
OFF_THE_GRADIENT_PATH = {'swin_tiny_patch4_window7_224', 'vit_tiny_patch16_224'}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ('name', 'kwargs', 'expected'),
    [
        ('wrn28_10', {'num_classes': 10}, 36_479_194),
        ('wrn28_10', {'num_classes': 100}, 36_536_884),
        ('wrn40_10', {'num_classes': 10}, 55_841_754),
        ('wrn40_10', {'num_classes': 100}, 55_899_444),
        ('warn_wrn28_10', {'num_classes': 10}, 36_965_594),
        ('warn_wrn28_10', {'num_classes': 100}, 40_652_084),
        ('warn_wrn28_10', {'num_classes': 100, 'gate_norm': True}, 40_652_092),
        ('warn_wrn40_10', {'num_classes': 10}, 56_328_154),
        ('warn_wrn40_10', {'num_classes': 100}, 60_014_644),
        ('warn_wrn40_10', {'num_classes': 100, 'gate_norm': True}, 60_014_652),
        ('wide_resnet50_4', {'num_classes': 1000}, 223_439_144),
        ('pan_vgg', {'num_classes': 10}, 19_714_635),
        ('cifar_vgg16', {'num_classes': 10}, 14_991_946),
        ('att2_vgg', {'num_classes': 10}, 14_736_458),
        ('att2_vgg', {'num_classes': 10, 'compat': 'dp'}, 19_719_754),
        ('att2_vgg', {'num_classes': 10, 'mask': 'sigmoid'}, 19_720_780),
        ('att2_vgg', {'num_classes': 100, 'mask': 'sigmoid'}, 19_813_030),
        ('att2_vgg', {'num_classes': 200, 'mask': 'sigmoid'}, 19_915_530),
        ('clan_vgg16_bn', {'num_classes': 200}, 16_081_835),
        ('clan3_vgg16_bn', {'num_classes': 200}, 17_337_734),
    ],
)
def test_parameters_to_the_unit(name: str, kwargs: dict, expected: int) -> None:
    with torch.device('meta'):
        assert parameters(timm.create_model(name, **kwargs)) == expected


@pytest.mark.parametrize(
    ('name', 'classes', 'macs', 'paper'),
    [
        ('wrn28_10', 10, 5.243e9, None),
        ('warn_wrn28_10', 10, None, 5.367e9),
        ('warn_wrn28_10', 100, None, 6.296e9),
        ('warn_wrn40_10', 10, None, 8.198e9),
        ('warn_wrn40_10', 100, None, 9.127e9),
    ],
)
def test_macs(name: str, classes: int, macs: float | None, paper: float | None) -> None:
    """Within 0.5 % of the paper's in its order of operations, and fewer in ours."""
    loaded = load_model(name, model_kwargs=[f'num_classes={classes}'])
    ours = count_complexity(loaded.model, loaded.input_size)
    if macs:
        assert ours.macs == pytest.approx(macs, rel=0.005)
    if paper:
        theirs = count_complexity(loaded.model, loaded.input_size, paper_form(loaded))
        assert theirs.macs == pytest.approx(paper, rel=0.005)
        assert ours.macs < theirs.macs
        attention = ours.by_module['method'][1]
        assert attention < 26e6
        assert theirs.macs - ours.macs > 0.1e9


@pytest.mark.parametrize(
    ('name', 'layers', 'with_products', 'ours_at_most'),
    [
        ('clan_vgg16_bn', 62.30, 62.61, 62.4),
        ('clan3_vgg16_bn', 64.83, 70.18, 65.4),
    ],
)
def test_table_5_of_clan(
    name: str, layers: float, with_products: float, ours_at_most: float
) -> None:
    """The paper's complexities, to the digit, in its own order; ours are lower."""
    loaded, size = load_model(name, model_kwargs=['num_classes=200']), (3, 448, 448)
    alone, products = count_layers(loaded.model, size, paper_form(loaded))
    assert round(alone / 1e9, 2) == layers
    assert round((alone + products) / 1e9, 2) == with_products
    assert sum(count_layers(loaded.model, size)) / 1e9 <= ours_at_most


def test_the_dead_branch_of_att2() -> None:
    """pc under a softmax: two convolutions and a linear layer less, and the scorers' biases."""
    with torch.device('meta'):
        alive = timm.create_model('att2_vgg', num_classes=10, mask='sigmoid')
        dead = timm.create_model('att2_vgg', num_classes=10)
    branch = parameters(alive.method.global_branch)
    assert branch == 4_984_320
    assert parameters(alive) - parameters(dead) == branch + 2


def test_levels_of_clans_vgg_are_timms_own_layers() -> None:
    """conv4_3, conv5_2 and the end, with timm's weights."""
    ours, theirs = timm.create_model('clan_vgg16'), timm.create_model('vgg16_bn')
    theirs.load_state_dict(ours.state_dict())
    assert ours.pretrained_cfg['hf_hub_id'] == theirs.pretrained_cfg['hf_hub_id']
    x = torch.randn(1, 3, 64, 64)
    outputs = {}
    convolutions = [i for i, m in enumerate(theirs.features) if isinstance(m, nn.Conv2d)]
    for name, position in (('conv4_3', 9), ('conv5_2', 11)):  # counted from zero
        relu = theirs.features[convolutions[position] + 2]
        relu.register_forward_hook(lambda m, a, out, n=name: outputs.__setitem__(n, out.clone()))
    with torch.no_grad():
        last = theirs.eval().forward_features(x)
        maps = ours.eval().forward_intermediates(x, intermediates_only=True)
    for a, b in zip(maps, (outputs['conv4_3'], outputs['conv5_2'], last), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('name', timm.list_models(module='fg_models'))
def test_presets_build_and_run(name: str) -> None:
    if name.startswith(('warn_wide_resnet', 'warn_wrn40', 'att2_wrn40')) or '101' in name:
        with torch.device('meta'):  # large: the smaller sister is run
            assert parameters(timm.create_model(name)) > 0
        return
    model = timm.create_model(name, num_classes=5).eval()
    C, H, W = model.pretrained_cfg['input_size']
    with torch.no_grad():
        assert model(torch.randn(1, C, min(H, 64), min(W, 64))).shape == (1, 5)


@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize('method', fgplugins.list_methods())
def test_any_backbone(method: str, backbone: str) -> None:
    if get_method(method).needs_gradient_path and backbone in OFF_THE_GRADIENT_PATH:
        with pytest.raises(ValueError, match=f'{method} on {backbone}: .* copy.*: take a backbone'):
            timm.create_model(method, backbone=backbone)
        return
    model = timm.create_model(method, backbone=backbone, num_classes=5, **SMALLER.get(backbone, {}))
    C, (H, W) = model.in_chans, model.input_size
    if not model.pretrained_cfg.get('fixed_input_size'):
        H, W = min(H, 64), min(W, 96)
    x, target = torch.randn(2, C, H, W), torch.tensor([0, 4])
    features, _ = model.method.split(model.read(x))
    assert [f.shape[1] for f in features] == model.channels
    step = LossStep(model)
    sum(step(x, target).values()).backward()
    assert [k for k, p in step.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        try:
            maps = model.eval().attention_maps(x)
            assert [m.shape[2:] for m in maps] == [f.shape[2:] for f in features]
        except NoClassMap:
            assert backbone.startswith('vit_') and method in ('gap', 'art')
        features, given = model.method.split(model.read(x))
        torch.testing.assert_close(model(x), model.method(features, **given))
    state = model.state_dict()
    assert f'{model.pretrained_cfg["first_conv"]}.weight' in state
    names = model.pretrained_cfg['classifier']
    names = [names] if isinstance(names, str) else names
    assert names and all(f'{name}.weight' in state for name in names)
    for name in names:
        assert state[f'{name}.weight'].shape[0] % 5 == 0


def test_levels_are_the_last_maps_or_evenly_spaced_in_depth() -> None:
    pyramid = [{'reduction': r} for r in (2, 4, 8, 16, 32)]
    assert choose_levels(pyramid, 3, 'x') == [2, 3, 4]
    tokens = [{'reduction': 16}] * 12
    assert choose_levels(tokens, 3, 'x') == [3, 7, 11]
    assert choose_levels(tokens, 1, 'x') == [11]
    assert choose_levels(tokens, 12, 'x') == list(range(12))
    with pytest.raises(ValueError, match=r'warn reads taps=6 feature maps, the backbone gives 5'):
        choose_levels(pyramid, 6, 'warn')


def test_arguments_reach_the_method_or_the_backbone() -> None:
    model = timm.create_model(
        'warn', backbone='resnet10t', num_classes=3, taps=2, heads=5, mask='sigmoid', in_chans=1,
        drop_path_rate=0.1,
    )  # fmt: skip
    assert model.method.taps == 2 and model.method.attention_modules[0].heads == 5
    assert model.backbone.conv1[0].in_channels == 1
    assert model(torch.randn(1, 1, 64, 64)).shape == (1, 3)
    chosen = timm.create_model('warn', backbone='resnet10t', num_classes=3, levels=(1, -1))
    assert chosen.reductions == [4, 32]
    named = timm.create_model('att2_vgg', levels=(0, 2))  # in place of the preset's own
    assert named.channels == [256, 512]
    with pytest.raises(TypeError, match="neither takes 'headz'; did you mean heads"):
        timm.create_model('warn', backbone='resnet10t', headz=3)
    with pytest.raises(FileNotFoundError, match="='none\\.pth' is not a file"):
        timm.create_model('warn', backbone='resnet10t', backbone_checkpoint='none.pth')
    with pytest.raises(ValueError, match='num_classes=0 has no warn, nor attention'):
        empty = timm.create_model('warn', backbone='resnet10t', num_classes=0)
        empty.attention_maps(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'backbone': 'resnet5000'}, "'resnet5000' is not a timm model"),
        ({'backbone': 'resnet19'}, 'did you mean resnet18 or'),
        ({'backbone': 'clan'}, "'clan' has a method on top already: give 'resnet50'"),
        ({'backbone': 'resnet10t', 'taps': 9}, 'taps=9'),
        ({'backbone': 'resnet10t', 'levels': (7,)}, r'levels=\[7\]'),
        ({'backbone': 'resnet10t', 'levels': (1,), 'taps': 1}, 'give one of them'),
        ({'backbone': 'resnet10t', 'head': 'mean', 'global_pool': 'max'}, "global_pool='max'"),
        ({'backbone': 'wrn28_10', 'pretrained': True}, "no weights of 'wrn28_10'"),
        ({'backbone': 'resnet10t', 'mask': 'relu'}, "mask='relu'"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm.create_model('warn', **kwargs)


def test_backbone_weights_and_own_weights_are_loaded(tmp_path: Path) -> None:
    plain = timm.create_model('resnet10t', num_classes=7)
    torch.save(plain.state_dict(), tmp_path / 'backbone.pth')
    model = timm.create_model(
        'warn',
        backbone='resnet10t',
        num_classes=3,
        backbone_checkpoint=str(tmp_path / 'backbone.pth'),
    )
    assert torch.equal(model.backbone.conv1[0].weight, plain.conv1[0].weight)
    with pytest.raises(ValueError, match=r'backbone_checkpoint=.*does not fit'):
        timm.create_model(
            'warn', backbone='resnet18', backbone_checkpoint=str(tmp_path / 'backbone.pth')
        )
    torch.save(model.state_dict(), tmp_path / 'own.pth')
    again = timm.create_model(
        'warn', backbone='resnet10t', num_classes=3, checkpoint_path=str(tmp_path / 'own.pth')
    ).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.eval()(x), again(x))
    with pytest.raises(RuntimeError, match='size mismatch'):
        timm.create_model(
            'warn', backbone='resnet10t', num_classes=4, checkpoint_path=str(tmp_path / 'own.pth')
        )


@pytest.mark.parametrize('method', fgplugins.list_methods())
def test_weights_of_another_number_of_classes_start_a_new_one(method: str, tmp_path: Path) -> None:
    """As timm does it: all but the layers that depend on the number of classes."""
    kwargs = {'backbone': 'resnet10t'}
    old = timm.create_model(method, num_classes=7, **kwargs)
    torch.save(old.state_dict(), tmp_path / 'old.pth')
    overlay = {'file': str(tmp_path / 'old.pth'), 'num_classes': 7}
    new = timm.create_model(
        method, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=3, **kwargs
    )
    left, classes = old.state_dict(), []
    for name, value in new.state_dict().items():
        if value.shape == left[name].shape:
            assert torch.equal(value, left[name]), name
        else:
            classes.append(name)
    assert classes and all(name.startswith('method.') for name in classes)


def test_reset_classifier_and_checkpointing() -> None:
    model = timm.create_model('warn', backbone='resnet10t', num_classes=3).eval()
    x = torch.randn(2, 3, 64, 64)
    scores = model(x)
    model.set_grad_checkpointing()
    torch.testing.assert_close(model(x), scores)
    model.reset_classifier(6)
    assert model(x).shape == (2, 6) and model.num_classes == 6


def test_wide_resnet_taps_are_what_the_next_layer_reads() -> None:
    model = timm.create_model('wrn28_10', depth=10, width=1, num_classes=4).eval()
    x = torch.randn(2, 3, 32, 32)
    raw = {}
    for i, group in enumerate(model.stages):
        group[-1].conv2.register_forward_hook(lambda m, a, out, i=i: raw.__setitem__(i, out))
    final, taps = model.forward_intermediates(x)
    assert all((t >= 0).all() for t in taps)
    assert [t.shape[1:] for t in taps] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert torch.equal(final, taps[-1]) and torch.equal(final, model.forward_features(x))
    torch.testing.assert_close(model(x), model.head.fc(final.mean(dim=(2, 3))))
    features_only = timm.create_model(
        'wrn28_10', depth=10, width=1, features_only=True, out_indices=(0, 2)
    ).eval()
    features_only.model.load_state_dict(model.state_dict(), strict=False)
    for ours, theirs in zip(features_only(x), (taps[0], taps[2]), strict=True):
        assert torch.equal(ours, theirs)
    pruned = timm.create_model('wrn28_10', depth=10, width=1, num_classes=4).eval()
    pruned.load_state_dict(model.state_dict())
    pruned.prune_intermediate_layers([0, 1])
    assert torch.equal(pruned.forward_intermediates(x, [1], intermediates_only=True)[0], taps[1])
    assert len(pruned.stages) == 2


@pytest.mark.parametrize('kind', ['element', 'channel'])
def test_dropout_between_the_convolutions(kind: str) -> None:
    """Of single values (the WRN paper), or of whole channels (WARN's official code)."""
    given = {} if kind == 'element' else {'block_drop_type': kind}
    model = timm.create_model('wrn28_10', depth=10, width=1, block_drop_rate=0.5, **given)
    x = torch.randn(2, 3, 32, 32)
    assert not torch.equal(model(x), model(x))
    kept = model.stages[0][0].drop(torch.ones(8, 16, 32, 32)).mean(dim=(2, 3)) / 2
    assert kept.mean().item() == pytest.approx(0.5, abs=0.15)
    assert set(kept.unique().tolist()) == {0.0, 1.0} if kind == 'channel' else kept.max() < 0.7
    model.eval()
    assert torch.equal(model(x), model(x))


def test_another_kind_of_dropout() -> None:
    message = "block_drop_type='pixel': must be 'element' or 'channel'"
    with pytest.raises(ValueError, match=message):
        timm.create_model('wrn28_10', depth=10, width=1, block_drop_type='pixel')


def test_what_warn_fine_tunes() -> None:
    """Three levels of four heads on timm's wide ResNet with its own head and weights."""
    with torch.device('meta'):
        model = timm.create_model('warn_wide_resnet50_2', num_classes=200)
        plain = timm.create_model('wide_resnet50_2', num_classes=200)
    assert model.method.taps == 3 and model.method_args == {'heads': 4}
    assert model.head == 'network' and model.place is not None
    own = {f'backbone.{n}' for n, _ in plain.named_parameters() if not n.startswith('fc.')}
    assert own <= {n for n, _ in model.named_parameters()}
    assert timm.get_pretrained_cfg('wide_resnet50_2').has_weights
    assert timm.model_entrypoint('warn_wide_resnet50_2').backbone == 'wide_resnet50_2'


def test_att2_on_resnet164_has_the_official_dropout() -> None:
    with torch.device('meta'):
        model = timm.create_model('att2_resnet164')
    assert [m.p for m in model.method.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3]


class TestTask:
    def model(self) -> nn.Module:
        return timm.create_model('warn', backbone='clutter_cnn', num_classes=4, in_chans=1)

    def test_loss_is_the_sum_of_the_methods_terms(self) -> None:
        model, x, y = self.model().eval(), torch.randn(3, 1, 40, 40), torch.tensor([0, 1, 3])
        result = MethodTask(model, verbose=False)(x, y)
        terms = model.loss(x, y)
        assert set(result) == {'loss', *terms}
        torch.testing.assert_close(result['loss'], sum(terms.values()))

    @pytest.mark.parametrize('criterion', [LabelSmoothingCrossEntropy(0.2), None])
    def test_label_smoothing_carries_over(self, criterion: nn.Module | None) -> None:
        model, x, y = self.model().eval(), torch.randn(3, 1, 40, 40), torch.tensor([0, 1, 3])
        kwargs = None if criterion else {'smoothing': 0.2}
        result = MethodTask(model, criterion, kwargs, verbose=False)(x, y)
        soft = torch.eye(4)[y] * 0.8 + 0.05
        torch.testing.assert_close(result['nll'], model.loss(x, soft)['nll'])

    def test_other_criteria_are_refused(self) -> None:
        with pytest.raises(ValueError, match='BinaryCrossEntropy'):
            MethodTask(self.model(), BinaryCrossEntropy())
        with pytest.raises(ValueError, match='asl'):
            MethodTask(self.model(), criterion_kwargs={'loss_type': 'asl'})

    def test_average_of_weights_and_checkpoint_hold_the_bare_model(self) -> None:
        model = self.model()
        task = MethodTask(model, verbose=False)
        task.setup_ema(decay=0.5)
        task.update_ema(step=1)
        state = task.get_checkpoint_state()
        assert set(state['state_dict']) == set(model.state_dict())
        assert set(task.get_checkpoint_state(ema=True)['state_dict_ema']) == set(model.state_dict())
        task.load_checkpoint_state(state['state_dict'])
        assert task.get_eval_model() is model

    def test_layer_decay_groups_every_parameter(self) -> None:
        from timm.optim import create_optimizer_v2

        task = MethodTask(self.model(), verbose=False)
        optimizer = create_optimizer_v2(task.get_trainable_module(), 'sgd', 0.1, layer_decay=0.5)
        scales = {g['lr_scale'] for g in optimizer.param_groups}
        assert len(scales) > 2
        grouped = sum(len(g['params']) for g in optimizer.param_groups)
        assert grouped == len(list(task.parameters()))

    def test_compiled_and_eager_losses_agree(self) -> None:
        model, x, y = self.model().eval(), torch.randn(3, 1, 40, 40), torch.tensor([0, 1, 3])
        expected = MethodTask(model, verbose=False)(x, y)['loss']
        task = MethodTask(model, verbose=False)
        task.compile(backend='aot_eager')
        torch.testing.assert_close(task(x, y)['loss'], expected)

    @pytest.mark.parametrize(('term', 'value'), [('nll', 'nan'), ('diversity', 'inf')])
    def test_a_term_that_is_not_finite_stops(
        self, term: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, x, y = self.model().eval(), torch.randn(3, 1, 40, 40), torch.tensor([0, 1, 3])
        task = MethodTask(model, verbose=False)
        task(x, y)
        terms = {**model.loss(x, y), term: torch.tensor(float(value))}
        monkeypatch.setattr(type(model.method), 'loss', lambda *a: terms)
        with pytest.raises(
            UserError, match=f'not finite at step 2 of this run: {term} is {value};'
        ):
            task(x, y)

    def test_checkpoints_say_what_the_classes_are_called(self) -> None:
        for model in (self.model(), timm.create_model('resnet10t', num_classes=4)):
            task = classification_task(model, verbose=False)
            assert 'class_names' not in task.get_checkpoint_state()
            task.class_names = list('abcd')
            assert task.get_checkpoint_state()['class_names'] == list('abcd')
            assert task.get_checkpoint_state(ema=True) == {}

    def test_plain_models_train_as_ever(self) -> None:
        task = classification_task(timm.create_model('resnet10t', num_classes=3), verbose=False)
        assert isinstance(task, timm.task.ClassificationTask)


def test_clan_without_clsa_trains_nothing_of_it() -> None:
    """The rows "CLCA" of the paper's Tables 1 and 2, from the preset."""
    model = timm.create_model('clan_resnet50', num_classes=4, spatial=False)
    assert not [name for name, _ in model.named_parameters() if 'spatial' in name or 'clsa' in name]
    terms = LossStep(model)(torch.randn(2, 3, 64, 64), torch.tensor([0, 3]))
    assert set(terms) == {'ce_mid1', 'ce_top'}
    with pytest.raises(ValueError, match=r"branches=\['clsa'\].*spatial=False has no clsa"):
        timm.create_model('clan_resnet50', num_classes=4, spatial=False, branches=['clsa'])


def test_launcher_puts_the_task_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    script = tmp_path / 'train.py'
    script.write_text(
        'import sys, timm, torch\n'
        'from timm.task import ClassificationTask\n'
        "model = timm.create_model('warn', backbone='clutter_cnn', in_chans=1, num_classes=3)\n"
        'task = ClassificationTask(model=model, criterion=torch.nn.CrossEntropyLoss())\n'
        'print(type(task).__name__, sys.argv[1:])\n'
    )
    command = [sys.executable, '-m', 'fgplugins.zoo_timm.train', str(script), '--model', 'warn']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("MethodTask ['--model', 'warn']"), done.stderr
    script.write_text('print(1)\n')
    for arguments in ([str(script)], [str(tmp_path / 'none.py')]):
        monkeypatch.setattr(sys, 'argv', ['train', *arguments])
        with pytest.raises(SystemExit) as end:
            main_guard(train.main)
        said = capsys.readouterr().err
        assert end.value.code == 2 and said.startswith('error: ') and said.count('\n') == 1


# ----------------------------------------------------------------------------------- data folders


class TestFolders:
    def test_train_and_test_do_not_mix(self, tmp_path: Path) -> None:
        root, data = image_folder(tmp_path, {'train': 3, 'test': 2}), RunData()
        hidden = root / 'train' / 'crow' / '.ipynb_checkpoints'
        hidden.mkdir()
        Image.new('RGB', (8, 8)).save(hidden / 'x.png')
        parts = [data.create_dataset('', root=str(root), split=s) for s in ('train', 'validation')]
        assert [len(part) for part in parts] == [9, 6] and data.classes == list(CLASSES)
        names = [part.filename(0, absolute=True) for part in parts]
        assert names == [str(root / split / 'crow' / '0.png') for split in ('train', 'test')]
        assert parts[0].filename(0) == 'train/crow/0.png'
        image, label = parts[1][5]
        assert image.size == (40, 40) and image.getpixel((0, 0)) == (160, 10, 100) and label == 2
        grey = data.create_dataset('', root=str(root), split='train', input_img_mode='L')
        assert grey[0][0].mode == 'L'
        with pytest.raises(UserError, match=r'--num-classes 5: .* has 3 classes: --num-classes 3'):
            data.check_number(5)

    def test_val_comes_before_test(self, tmp_path: Path) -> None:
        root = image_folder(tmp_path, {'train': 3, 'test': 2, 'val': 1})
        assert len(RunData().create_dataset('', root=str(root), split='validation')) == 3
        assert len(RunData().create_dataset('', root=str(root), split='test')) == 6

    def test_pictures_are_upright(self, tmp_path: Path) -> None:
        root = image_folder(tmp_path, {'train': 1, 'test': 1})
        turned = Image.new('RGB', (40, 20))
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(root / 'train' / 'crow' / '0.png', exif=exif)
        assert RunData().create_dataset('', root=str(root), split='train')[0][0].size == (20, 40)

    def test_the_labels_of_a_class_map(self, tmp_path: Path) -> None:
        root, data = image_folder(tmp_path, {'train': 2, 'test': 1}), RunData()
        (tmp_path / 'map.txt').write_text('eagle\ncrow\n')
        part = data.create_dataset('', root=str(root), split='train', class_map='map.txt')
        assert data.classes == ['eagle', 'crow'] and [part[i][1] for i in range(4)] == [1, 1, 0, 0]

    def test_other_data_are_timms_own(self, tmp_path: Path) -> None:
        """And a folder without splits is not validated on what it trains on."""
        root, data = image_folder(tmp_path, {'birds': 2}) / 'birds', RunData()
        assert len(data.create_dataset('', root=str(root), split='train')) == 6
        with pytest.raises(UserError, match=r"no folder for validation.*--val-split ''"):
            data.create_dataset('', root=str(root), split='validation')
        named = data.create_dataset('torch/image_folder', root=str(root), split='train')
        assert type(named).__name__ == 'ImageFolder'
        with pytest.raises(UserError, match='is not a folder'):
            data.create_dataset('', root=str(tmp_path / 'none'), split='train')


SCRIPT = """
import argparse, sys, timm, torch
from timm import utils
from timm.data import create_dataset, create_loader
from timm.models import create_model
from timm.task import ClassificationTask, resume_task_checkpoint

parser = argparse.ArgumentParser()
for option in ('data-dir', 'model', 'resume', 'output'):
    parser.add_argument('--' + option, default='')
parser.add_argument('--num-classes', type=int)
parser.add_argument('--epochs', type=int, default=1)
parser.add_argument('--img-size', type=int)
parser.add_argument('--model-kwargs', nargs='*', default={}, action=utils.ParseKwargs)
args = parser.parse_args()
model = create_model(args.model, num_classes=args.num_classes, **args.model_kwargs)
train, test = (create_dataset('', root=args.data_dir, split=s) for s in ('train', 'validation'))
loader = create_loader(train, (3, 64, 64), 4, is_training=True, use_prefetcher=False, num_workers=0)
task = ClassificationTask(model=model, criterion=torch.nn.CrossEntropyLoss())
optimizer = torch.optim.SGD(task.get_trainable_module().parameters(), 0.01)
if args.resume:
    resume_task_checkpoint(task, args.resume, optimizer=optimizer)
for epoch in range(args.epochs):
    if hasattr(loader.dataset, 'set_epoch'):
        loader.dataset.set_epoch(epoch)
    for x, y in loader:
        terms = task(x, y)
    if args.epochs > 1:
        print(epoch, 'restriction' in terms)
terms['loss'].backward()
optimizer.step()
saver = utils.CheckpointSaver(model, optimizer, args, checkpoint_dir=args.output, task=task)
saver.save_checkpoint(0, 1.0)
print(len(train), len(test))
"""


@pytest.fixture
def trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., str]:
    """Run the launcher in this process, on a script with timm's own steps."""
    (tmp_path / 'train.py').write_text(SCRIPT)

    def run(
        *arguments: str, model: str = 'warn', classes: int = 3, before: tuple[str, ...] = ()
    ) -> str:
        given = ['--model', model, '--num-classes', str(classes), '--output', str(tmp_path)]
        given += ['--img-size', '64', '--model-kwargs', 'backbone=test_resnet']
        command = ['train', *before, str(tmp_path / 'train.py'), *given, *arguments]
        monkeypatch.setattr(sys, 'argv', command)
        with monkeypatch.context() as patch:
            for module, name in (
                (timm.data, 'create_dataset'),
                (timm.task, 'ClassificationTask'),
                (timm.task, 'resume_task_checkpoint'),
            ):
                patch.setattr(module, name, getattr(module, name))
            train.main()
        return capsys.readouterr().out.strip()

    return run


class TestLauncher:
    def test_folders_names_and_resuming(self, trained: Callable, tmp_path: Path) -> None:
        root = str(image_folder(tmp_path / 'a', {'train': 3, 'test': 2}))
        assert trained('--data-dir', root) == '9 6'
        last = str(tmp_path / 'last.pth.tar')
        saved = read_checkpoint(last)
        assert saved.classes == list(CLASSES) and saved.arch == 'warn'
        assert saved.arguments == {'num_classes': 3, 'backbone': 'test_resnet'}
        assert trained('--data-dir', root, '--resume', last) == '9 6'
        other = str(
            image_folder(tmp_path / 'b', {'train': 1, 'test': 1}, ('crow', 'dove', 'eagle'))
        )
        with pytest.raises(
            UserError, match=r"checkpoint .* class 1 is 'duck' of 3 in the one, 'dove'"
        ):
            trained('--data-dir', other, '--resume', last)
        with pytest.raises(UserError, match="is of 'warn', not of 'gap'"):
            trained('--data-dir', root, '--resume', last, model='gap')
        with pytest.raises(UserError, match=r'--num-classes 3'):
            trained('--data-dir', root, classes=4)

    def test_restriction_schedule(self, trained: Callable, tmp_path: Path) -> None:
        """One epoch with L_res, two without, two with it: the data hear of epochs, the task too."""
        root = str(image_folder(tmp_path / 'a', {'train': 2, 'test': 1}))
        arguments = ['--data-dir', root, '--epochs', '4']
        told = trained(*arguments, model='art', before=('--restriction-schedule', '1', '2'))
        lines = ['0 True', '1 False', '2 False', '3 True', '6 3']
        assert told.split('\n') == lines
        assert 'False' not in trained(*arguments, model='art')
        with pytest.raises(UserError, match='warn has no attention restriction; it is for art'):
            trained(*arguments, before=('--restriction-schedule', '1', '2'))
        for wrong in (('1',), ('1', '0'), ('1', 'x')):
            with pytest.raises(UserError, match=r'--restriction-schedule 1 .*: give two whole'):
                trained(*arguments, before=('--restriction-schedule', *wrong))

    def test_loading_processes_are_not_sent_the_task(self) -> None:
        """And data that count epochs themselves are still told."""
        data = Counting()
        epochs = train._Epochs(RestrictionSchedule())
        made = epochs.create_dataset(SimpleNamespace(create_dataset=lambda: data))
        epochs.task = Counting()
        made.set_epoch(3)
        assert data.epoch == epochs.task.epoch == 3
        copy = pickle.loads(pickle.dumps(made))
        copy.set_epoch(4)
        assert (copy.epoch, data.epoch, epochs.task.epoch) == (4, 3, 3)


class Counting:
    """Whatever is told which epoch begins."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


# ------------------------------------------------------------------------------------------ tools


class TestCheckpoints:
    def save(self, path: Path, method: str = 'gap', **more: object) -> Path:
        model = timm.create_model(method, backbone='test_resnet', num_classes=3, in_chans=1)
        args = argparse.Namespace(
            num_classes=3, in_chans=1, img_size=96, crop_pct=1.0, mean=[0.25], std=None,
            interpolation='bilinear', model_kwargs={'backbone': 'test_resnet'}, input_size=None,
        )  # fmt: skip
        content = {'arch': method, 'args': args, 'state_dict': model.state_dict(), **more}
        torch.save(content, path)
        return path

    def test_preprocessing_is_that_of_training(self, tmp_path: Path) -> None:
        file = self.save(tmp_path / 'w.pth', class_names=list(CLASSES))
        loaded = load_model('gap', str(file))
        assert loaded.input_size == (1, 96, 96) and loaded.classes == list(CLASSES)
        assert loaded.data['mean'] == (0.25,) and loaded.data['interpolation'] == 'bilinear'
        assert loaded.data['std'] == (0.5,)  # the network's own
        other = data_config(timm.create_model('resnet10t', in_chans=2))
        assert other['std'] == pytest.approx(((0.229 + 0.224 + 0.225) / 3,) * 2)
        Image.new('L', (200, 100), 255).save(tmp_path / 'x.png')
        shown, inputs = loaded.read_image(str(tmp_path / 'x.png'))
        assert shown.shape == (96, 96, 1) and inputs.shape == (1, 1, 96, 96)
        assert inputs.amax() == pytest.approx(0.75 / loaded.data['std'][0])
        assert load_model('gap', str(file), ['img_size=64']).input_size == (1, 64, 64)

    @pytest.mark.parametrize('method', ['gap', 'warn'])
    def test_deployed_weights_keep_names_and_preprocessing(
        self, method: str, tmp_path: Path
    ) -> None:
        file = self.save(tmp_path / 'w.pth', method, class_names=list(CLASSES))
        loaded = load_model(method, str(file))
        model, architecture, arguments = deploy(loaded.model)
        assert architecture == ('test_resnet' if method == 'gap' else 'warn')
        content = deployed_checkpoint(model, architecture, arguments, loaded.classes, loaded.data)
        torch.save(content, tmp_path / 'd.pth')
        again = load_model(architecture, str(tmp_path / 'd.pth'))
        assert again.data == loaded.data and again.classes == list(CLASSES)
        x = torch.randn(1, 1, 96, 96)
        assert torch.equal(again.model(x), loaded.model(x))

    def test_other_weights_are_refused_in_one_line(self, tmp_path: Path) -> None:
        file = str(self.save(tmp_path / 'w.pth'))
        kwargs = ['backbone=test_resnet']
        for name, given, message in (
            ('warn', kwargs, "is of 'gap', not of 'warn'$"),
            ('test_resnet', [], "is of 'gap', not of 'test_resnet'$"),
            ('gap', ['backbone=resnet10t'], r'another model: backbone.conv1.0.weight is \(16, 1'),
            ('gap', [*kwargs, 'num_classes=5'], r'in it and \(5, \d+\) in the model$'),
        ):
            with pytest.raises(UserError, match=message):
                load_model(name, file, given)
        plain = timm.create_model('test_resnet', num_classes=3)
        torch.save({'arch': 'test_resnet', 'state_dict': plain.state_dict()}, file)
        with pytest.raises(UserError, match="'test_resnet', a network without a method, not of"):
            load_model('gap', file, kwargs)
        torch.save({**plain.state_dict(), 'x': torch.zeros(1)}, file)
        with pytest.raises(UserError, match=r'another model: it has x besides$'):
            load_model('test_resnet', file, ['num_classes=3'])

    def test_averaged_weights_go_with_their_own_second_network(self, tmp_path: Path) -> None:
        model = timm.create_model('art', backbone='test_resnet', num_classes=3)
        task = MethodTask(model, verbose=False)
        task.setup_ema(decay=0.0)
        state = {**task.get_checkpoint_state(), **task.get_checkpoint_state(ema=True)}
        state['task_state_ema'] = {k: v + 1 for k, v in state['task_state_ema'].items()}
        torch.save({'arch': 'art', **state}, tmp_path / 'w.pth')
        saved = read_checkpoint(str(tmp_path / 'w.pth'))
        name = 'regularizer.proposal.bias'
        assert torch.equal(saved.training_only[name], state['task_state'][name] + 1)

    def test_a_class_map_beside_the_data_names_the_classes(self, tmp_path: Path) -> None:
        (tmp_path / 'map.txt').write_text('eagle\ncrow\n')
        args = argparse.Namespace(class_map='map.txt', data_dir=str(tmp_path))
        torch.save({'args': args, 'state_dict': {}}, tmp_path / 'w.pth')
        assert read_checkpoint(str(tmp_path / 'w.pth')).classes == ['eagle', 'crow']


class TestTools:
    @pytest.mark.parametrize(
        ('kwargs', 'shape'),
        [
            (['in_chans=1'], '1 x 160 x 160'),
            (['in_chans=4', 'img_size=64'], '4 x 64 x 64'),
            (['backbone=vit_tiny_patch16_224', 'img_size=96'], '3 x 96 x 96'),
        ],
    )
    def test_channels_and_sizes(self, kwargs: list, shape: str, run_tool: Callable) -> None:
        given = ['gap', '--model-kwargs', 'num_classes=3', 'backbone=test_resnet', *kwargs]
        done = run_tool('get_flops', *given)
        assert done.returncode == 0 and f'gap, input {shape}\n' in done.stdout, done.stderr

    @pytest.mark.usefixtures('room')
    def test_the_side_of_images(self, run_tool: Callable) -> None:
        both = ('--versus', 'test_vit', '--img-size', '64')
        done = run_tool('get_flops', 'gap', *both, '--model-kwargs', 'backbone=test_resnet')
        assert done.stdout.count('3 x 64 x 64') == 2, done.stdout + done.stderr
        done = run_tool('get_flops', 'gap_r50_cub', '--img-size', '64')
        assert done.returncode == 2 and 'test_dataloader.dataset.pipeline' in done.stderr
        done = run_tool('get_flops', 'gap', '--img-size', '0')
        assert done.returncode == 2 and "'0' is not a positive number" in done.stderr

    def test_memory_of_a_checkpoint(self, run_tool: Callable, tmp_path: Path) -> None:
        file = TestCheckpoints().save(tmp_path / 'w.pth', 'warn')
        done = run_tool('get_memory', str(file), '--sizes', '96')
        assert done.returncode == 0 and done.stdout.splitlines()[-1].split()[0] == '96'
        again = run_tool('get_memory', 'warn', '--checkpoint', str(file), '--sizes', '96')
        assert again.stdout == done.stdout
        kwargs = ['backbone=vit_tiny_patch16_224', 'num_classes=3', 'img_size=64']
        done = run_tool('get_memory', 'warn', '--model-kwargs', *kwargs)
        assert [line.split()[0] for line in done.stdout.splitlines()[3:]] == ['64']

    def test_a_model_in_a_folder(self, run_tool: Callable, tmp_path: Path) -> None:
        plain = timm.create_model('test_resnet', num_classes=3)
        name = f'local-dir:{tmp_path / "my network"}'
        save_for_hf(plain, tmp_path / 'my network')
        done = run_tool('get_flops', name)
        assert done.returncode == 0 and done.stdout.startswith(name), done.stderr
        done = run_tool('get_flops', 'gap', '--model-kwargs', f'backbone={name}')
        assert done.returncode == 0, done.stderr
        done = run_tool('get_flops', 'local-dir:nowhere')
        assert done.returncode == 2 and 'nowhere' in done.stderr and '\n' not in done.stderr[:-1]


@pytest.mark.parametrize(
    'wrong',
    [{'in_chans': 0}, {'num_classes': '3'}, {'taps': -1}, {'taps': '2'}, {'levels': []},
     {'levels': [1, 1]}, {'num_classes': True}],
    ids=str,
)  # fmt: skip
def test_numbers_that_no_model_has(wrong: dict) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=rf'^{name}='):
        timm.create_model('warn', backbone='test_resnet', **wrong)


def test_a_file_brings_no_sources_of_weights(tmp_path: Path) -> None:
    """And names of as many classes as it has scores."""
    model = timm.create_model('gap', backbone='test_resnet', num_classes=3)
    sources = {'pretrained': True, 'checkpoint_path': 'x', 'pretrained_cfg_overlay': {'url': 'x'}}
    arguments = {'backbone': 'test_resnet', 'num_classes': 3}
    content = {'arch': 'gap', 'model_args': {**arguments, **sources}}
    content['state_dict'] = model.state_dict()
    torch.save(content, tmp_path / 'a.pth')
    assert read_checkpoint(str(tmp_path / 'a.pth')).arguments == arguments
    load_model('gap', str(tmp_path / 'a.pth'))
    for names, message in (
        (['a', 'b'], 'is of 2 classes, the model has 3'),
        (['a', 'b', 'b'], "class 'b' stands twice"),
        ('abc', 'class_names is '),
    ):
        torch.save({**content, 'class_names': names}, tmp_path / 'a.pth')
        with pytest.raises(UserError, match=message):
            load_model('gap', str(tmp_path / 'a.pth'))
    torch.save({**content, 'class_names': {'b': 1, 'a': 0, 'c': 2}}, tmp_path / 'a.pth')
    assert load_model('gap', str(tmp_path / 'a.pth')).classes == ['a', 'b', 'c']
    for key, value in (('args', [1]), ('data_config', {'mean': 'x'}), ('arch', ['gap'])):
        torch.save({**content, key: value}, tmp_path / 'a.pth')
        with pytest.raises(UserError, match='is damaged: '):
            load_model('gap', str(tmp_path / 'a.pth'))
