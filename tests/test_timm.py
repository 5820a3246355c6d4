"""The timm side: composed models, presets, counts, the training task."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy
from torch import nn

import fgplugins
from fgplugins.analysis.complexity import count_complexity, count_layers, paper_form
from fgplugins.analysis.loading import load_model
from fgplugins.methods import get_method
from fgplugins.zoo_timm.composed import choose_levels
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
    if name.startswith(('warn_wide_resnet50_4', 'warn_wrn40', 'att2_wrn40')) or '101' in name:
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
    model = timm.create_model(method, backbone=backbone, num_classes=5)
    C, H, W = model.pretrained_cfg['input_size']
    if not model.pretrained_cfg.get('fixed_input_size'):
        H, W = min(H, 64), min(W, 96)
    x, target = torch.randn(2, C, H, W), torch.tensor([0, 4])
    features = model.forward_features(x)
    assert [f.shape[1] for f in features] == [info['num_chs'] for info in model.feature_info]
    step = LossStep(model)
    sum(step(x, target).values()).backward()
    assert [k for k, p in step.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        maps = model.eval().attention_maps(x)
        assert [m.shape[2:] for m in maps] == [f.shape[2:] for f in features]
        torch.testing.assert_close(model(x), model.method(model.forward_features(x)))
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
    assert [info['reduction'] for info in chosen.feature_info] == [4, 32]
    named = timm.create_model('att2_vgg', levels=(0, 2))  # in place of the preset's own
    assert [info['num_chs'] for info in named.feature_info] == [256, 512]
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
        ({'backbone': 'resnet10t', 'global_pool': 'max'}, "global_pool='max'"),
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


def test_dropout_between_the_convolutions() -> None:
    model = timm.create_model('wrn28_10', depth=10, width=1, block_drop_rate=0.5)
    x = torch.randn(2, 3, 32, 32)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


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

    def test_plain_models_train_as_ever(self) -> None:
        task = classification_task(timm.create_model('resnet10t', num_classes=3), verbose=False)
        assert isinstance(task, timm.task.ClassificationTask)


def launch(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, '-m', 'fgplugins.zoo_timm.train', *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_launcher_puts_the_task_in_place(tmp_path: Path) -> None:
    script = tmp_path / 'train.py'
    script.write_text(
        'import sys, timm, torch\n'
        'from timm.task import ClassificationTask\n'
        "model = timm.create_model('warn', backbone='clutter_cnn', in_chans=1, num_classes=3)\n"
        'task = ClassificationTask(model=model, criterion=torch.nn.CrossEntropyLoss())\n'
        'print(type(task).__name__, sys.argv[1:])\n'
    )
    done = launch(str(script), '--model', 'warn')
    assert done.stdout.strip().endswith("MethodTask ['--model', 'warn']"), done.stderr
    script.write_text('print(1)\n')
    for arguments in ([str(script)], [str(tmp_path / 'none.py')]):
        done = launch(*arguments)
        assert done.returncode == 2 and done.stderr.startswith('error: ')
        assert 'Traceback' not in done.stderr
