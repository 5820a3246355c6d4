"""Settings: types as classes, what is inherited, what has an effect; wrappers; what stops a run."""

from __future__ import annotations

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from helpers import classifier, load_config
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmpretrain.models import ResNet
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image

import fgplugins.zoo_mmpretrain as zoo
from fgplugins.errors import UserError
from fgplugins.utils.arguments import add_config_arguments
from fgplugins.utils.shipped import shipped_configs
from fgplugins.zoo_mmpretrain import evaluation
from fgplugins.zoo_mmpretrain.hooks import LeaveOutHook
from fgplugins.zoo_mmpretrain.running import (
    checkpoints,
    data,
    initial_weights,
    launching,
    models,
)
from fgplugins.zoo_mmpretrain.running.inheritance import accepted_arguments
from fgplugins.zoo_mmpretrain.running.initial_weights import drop_pretrained
from fgplugins.zoo_mmpretrain.running.saved_settings import saved_config
from fgplugins.zoo_mmpretrain.running.settings import innermost_datasets, name_types

CONFIGS = Path(__file__).parent.parent / 'configs'


# --------------------------------------------------------------------------------- types as classes


@pytest.mark.parametrize('head', [zoo.heads.WARNHead, 'WARNHead', 'fgplugins.WARNHead'])
@pytest.mark.parametrize('backbone', [ResNet, 'ResNet', 'mmpretrain.models.ResNet'])
def test_types_as_classes(head: object, backbone: object) -> None:
    model = MODELS.build(
        dict(
            type=zoo.FineGrainedClassifier,
            backbone=dict(type=backbone, depth=18, out_indices=(1, 2, 3)),
            head=dict(type=head, num_classes=3),
        )
    )
    assert model.head.method.in_channels == (128, 256, 512)


def test_a_config_with_classes_for_types(tmp_path: Path) -> None:
    """As in MMEngine's newer style; what is saved of it can be read again."""
    file = tmp_path / 'mine.py'
    text = (CONFIGS / 'gap_r50_cub.py').read_text().replace("'_base_/", f"'{CONFIGS}/_base_/")
    file.write_text(
        text + "model['backbone']['type'] = __import__('mmpretrain.models').models.ResNet"
    )
    cfg = load_config(file)
    assert cfg.model.backbone.type == 'mmpretrain.models.backbones.resnet.ResNet'
    cfg.dump(tmp_path / 'saved.py')
    assert type(models.check_model(load_config(tmp_path / 'saved.py')).backbone) is ResNet
    assert name_types({'a': [ResNet, 1], 'b': ('c', tiny)})['b'] == ('c', f'{__name__}.tiny')


# ------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ('key', 'use'),
    [
        ('test_pipeline.2.crop_size', 'test_dataloader.dataset.pipeline.2.crop_size'),
        ('train_pipeline.0.type', 'override train_dataloader.dataset.pipeline.0.type'),
        ('vis_backends.0.type', 'override visualizer.vis_backends.0.type'),
    ],
)
def test_overrides_without_effect_are_refused(key: str, use: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config('warn_mobilenetv2_cub', **{key: 99})
    assert key in str(caught.value) and use in str(caught.value)


def test_overrides_read_as_python_and_as_mmengine_reads_them() -> None:
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    given = {
        'a=1': 1, 'b=1e-3': 1e-3, 'c=True': True, 'd=None': None, 'e=1,2': [1, 2], 'f=(3,)': (3,),
        "g={'x': [1]}": {'x': [1]}, 'h=[a,b]': ['a', 'b'], "i=x'(": "x'(", 'j=a=b': 'a=b',
        "k='1'": '1',
    }  # fmt: skip
    args = parser.parse_args(['x', '--cfg-options', *given])
    assert list(args.cfg_options.values()) == list(given.values())
    args = parser.parse_args(['x', '--cfg-options', 'a=1', '--cfg-options', 'b=2'])
    assert args.cfg_options == {'a': 1, 'b': 2}


# ------------------------------------------------------------------------------ what was inherited


def derived(tmp_path: Path, text: str, base: str = 'warn_mobilenetv2_cub') -> Path:
    file = tmp_path / 'derived.py'
    file.write_text(f"_base_ = '{CONFIGS}/{base}.py'\n{text}\n")
    return file


def test_inherited_settings_of_another_head_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first = derived(tmp_path, "model = dict(head=dict(heads=2, mix='prob'))").rename(
        tmp_path / 'first.py'
    )
    second = tmp_path / 'second.py'
    second.write_text(f"_base_ = '{first}'\nmodel = dict(head=dict(type='GAPHead', taps=1))\n")
    cfg = load_config(second)
    assert dict(cfg.model.head) == {'type': 'GAPHead', 'num_classes': 200, 'taps': 1}
    assert 'GAPHead does not take heads, mix, inherited' in capsys.readouterr().out
    cfg = load_config(first, **{'model.head.type': 'Att2Head'})
    assert dict(cfg.model.head) == {'type': 'Att2Head', 'num_classes': 200, 'taps': 3}


@pytest.mark.parametrize(
    ('text', 'options'),
    [
        ("model = dict(head=dict(type='GAPHead', heads=2))", {}),
        ("model = dict(head={'type': 'GAPHead', 'heads': 2})", {}),
        ('', {'model.head.type': 'GAPHead', 'model.head.heads': 2}),
        ("model = dict(head=dict(type='GAPHead'))", {'model.head.heads': 2}),
    ],
)
def test_own_settings_that_a_head_does_not_take_are_refused(
    tmp_path: Path, text: str, options: dict
) -> None:
    with pytest.raises(UserError, match=r"model\.head\.heads: GAPHead has no 'heads'.*_delete_"):
        load_config(derived(tmp_path, text), **options)


def test_a_component_that_starts_anew(tmp_path: Path) -> None:
    text = "model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=3, taps=1))"
    assert dict(load_config(derived(tmp_path, text)).model.head) == {
        'type': 'GAPHead', 'num_classes': 3, 'taps': 1,
    }  # fmt: skip


# ---------------------------------------------------------------------------------------- --control


@pytest.mark.parametrize(
    ('name', 'lost'),
    [
        ('warn_mobilenetv2_cub', 'taps'),
        ('clan_r50_cub', 'taps, inner_channels'),
        ('art_r50_cub', 'view_size, RestrictionScheduleHook'),
        ('att2_vgg_cifar10', 'taps, pool_first'),
    ],
)
def test_the_control_of_any_config(name: str, lost: str, capsys: pytest.CaptureFixture) -> None:
    plain, cfg = load_config(name), load_config(name, control=True)
    method = plain.model.head.type
    assert f'note: GAPHead in the place of {method}, whose {lost} is' in capsys.readouterr().out
    assert cfg.model.head.type == 'GAPHead'
    assert cfg.model.head.num_classes == plain.model.head.num_classes
    assert cfg.model.head.get('multi_label') == plain.model.head.get('multi_label')
    assert cfg.work_dir == f'{plain.work_dir}_control'
    for key in ('train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg'):
        assert cfg[key] == plain[key]
    assert MODELS.build(cfg.model).head.method.is_network


def test_what_the_control_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.head\.heads: GAPHead has no 'heads'"):
        load_config('warn_mobilenetv2_cub', control=True, **{'model.head.heads': 2})
    with pytest.raises(UserError, match='the place of the method: leave one of them out'):
        load_config('warn_mobilenetv2_cub', control=True, **{'model.head.type': 'CLANHead'})
    plain = derived(tmp_path, "model = dict(head=dict(_delete_=True, type='LinearClsHead'))")
    with pytest.raises(UserError, match=r"--control: model\.head\.type='LinearClsHead'"):
        load_config(plain, control=True)


@pytest.mark.parametrize(
    ('place', 'kind', 'lost'),
    [
        ('test_evaluator', 'ConfusionMatrix', 'topk'),
        ('val_evaluator', 'SingleLabelMetric', 'topk'),
        ('model.backbone', 'ResNet', 'model_name'),
        ('optim_wrapper.optimizer', 'LBFGS', 'weight_decay'),
    ],
)
def test_other_components_too(
    place: str, kind: str, lost: str, capsys: pytest.CaptureFixture
) -> None:
    cfg = load_config('gap_mobilenetv2_cub', **{f'{place}.type': kind})
    for key in place.split('.'):
        cfg = cfg[key]
    assert lost not in cfg and cfg.type == kind
    assert f'note: {place}: {kind} does not take' in capsys.readouterr().out


def test_accepted_arguments() -> None:
    assert {'heads', 'taps', 'num_classes', 'mix'} < accepted_arguments(zoo.heads.WARNHead)
    assert accepted_arguments(zoo.FineGrainedImages) is None  # the rest goes to its parent
    assert accepted_arguments(torch.optim.SGD) >= {'lr', 'momentum'}


@pytest.mark.parametrize('name', shipped_configs())
def test_pretrained_finds_weights_or_says_where_they_come_from(name: str) -> None:
    cfg = load_config(name)
    try:
        assert initial_weights.set_pretrained(cfg, 'config') is None
    except UserError as error:
        scratch = 'from random weights' in str(error)
        assert scratch or cfg.pretrained_hint in str(error)
        # a fine-tuning never starts from nothing without a word
        assert scratch == ('pretrained_hint' not in cfg)
    else:
        backbone = cfg.model.backbone
        assert backbone.get('pretrained') or backbone.init_cfg.checkpoint


def test_a_whole_model_but_for_what_the_config_leaves_out(tmp_path: Path) -> None:
    """As att2 starts on CUB: from all that was learned on CIFAR-100 but the classifier."""
    text = (
        "pretrained_leaves_out = ['head.method.norms.', 'head.method.classifier.']\n"
        "model = dict(head=dict(compat='dp', taps=1))\n"
    )
    cfg = load_config(derived(tmp_path, text, 'att2_mobilenetv2_cub'))
    cfg.model.backbone.model_name = 'resnet18'
    model = MODELS.build(cfg.model)
    file = str(tmp_path / 'start.pth')
    theirs = {k: v + 1 if v.is_floating_point() else v for k, v in model.state_dict().items()}
    theirs['head.method.classifier.weight'] = torch.zeros(3, 512)
    torch.save({'state_dict': theirs, 'meta': {}}, file)
    assert initial_weights.set_pretrained(cfg, file) is None and cfg.load_from == file

    content = checkpoints.read_checkpoint(file)
    left_out = cfg.pretrained_leaves_out
    checkpoints.check_checkpoint(content, file, model, left_out=left_out)
    LeaveOutHook(left_out).after_load_checkpoint(None, content)
    model.load_state_dict(content['state_dict'], strict=False)
    for key, value in model.state_dict().items():
        left = key.startswith(tuple(left_out))
        if value.is_floating_point() and value.shape == theirs[key].shape:
            assert torch.equal(value, theirs[key]) != left, key
    del content['state_dict']['backbone.timm_model.conv1.weight']
    with pytest.raises(UserError, match='it lacks backbone'):
        checkpoints.check_checkpoint(content, file, model, left_out=left_out)


def test_where_weights_came_from_is_left_out() -> None:
    pretrained = dict(type='Pretrained', checkpoint='a.pth')
    model = ConfigDict(
        backbone=dict(type='TIMMBackbone', pretrained=True, pretrained_cfg_overlay=dict(file='a')),
        neck=[dict(init_cfg=pretrained), dict(init_cfg=dict(type='Kaiming'))],
        init_cfg=pretrained,
        head=dict(num_classes=3),
    )
    drop_pretrained(model)
    assert model.to_dict() == {
        'backbone': {'type': 'TIMMBackbone'},
        'neck': [{}, {'init_cfg': {'type': 'Kaiming'}}],
        'head': {'num_classes': 3},
    }


# ---------------------------------------------------------------------------- wrappers of data sets


@DATASETS.register_module()
class PairedForTests:
    """A third party's wrapper, with a name of its own for what it wraps."""

    def __init__(self, first: dict, second: dict) -> None:
        self.first, self.second = DATASETS.build(first), DATASETS.build(second)
        self.metainfo = self.first.metainfo

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: int) -> object:
        return self.first[index]


@pytest.mark.parametrize(
    'wrap',
    [
        lambda d: dict(type='RepeatDataset', times=2, dataset=d),
        lambda d: dict(type='ConcatDataset', datasets=[d, d]),
        lambda d: dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=d),
        lambda d: dict(type='KFoldDataset', num_splits=2, dataset=d),
        lambda d: dict(type='RepeatDataset', times=1,
                       dataset=dict(type='ConcatDataset', datasets=[d])),
        lambda d: dict(type='PairedForTests', first=d, second=d),
    ],
    ids=['repeat', 'concat', 'balanced', 'folds', 'both', 'other'],
)  # fmt: skip
def test_wrappers_of_data_sets(tmp_path: Path, wrap: Callable[[dict], dict]) -> None:
    for split in ('train', 'test'):
        for name in ('crow', 'duck'):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                Image.new('RGB', (9, 9)).save(folder / f'{i}.png')
    cfg = load_config('gap_mobilenetv2_cub')
    cfg.test_dataloader.dataset = wrap(cfg.test_dataloader.dataset)
    leaves = innermost_datasets(cfg.test_dataloader.dataset)
    assert {leaf.type for leaf in leaves} == {'FineGrainedImages'}
    for leaf in leaves:
        leaf.data_root = str(tmp_path)
    order = ('x.pth', ('duck', 'crow'))
    built = data.match_classes(cfg, ('test',), None, order)
    assert tuple(built['test'].metainfo['classes']) == ('duck', 'crow')
    assert cfg.model.head.num_classes == 2
    data.check_images(cfg, built)
    evaluation.set_tta(cfg)


# --------------------------------------------------------------------------------- what stops a run


def tiny(**head: object) -> torch.nn.Module:
    backbone = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)
    return classifier(dict(type='GAPHead', **head), backbone)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_a_term_that_is_not_finite_is_named(value: float) -> None:
    model = tiny()
    MessageHub.get_current_instance().update_info('iter', 11)
    good, bad = torch.tensor(1.0), torch.tensor(value)
    assert model.parse_losses({'loss_a': good, 'loss_b': good})[0] == 2
    with pytest.raises(UserError, match=r"'loss_b' is -?(nan|inf) in iteration 12"):
        model.parse_losses({'loss_a': good, 'loss_b': bad})


def test_a_gradient_that_is_not_finite_is_named() -> None:
    """Before it reaches the weights."""
    model = tiny()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    hub = MessageHub.get_instance('gradients')
    hub.update_info('loss_terms', {'loss_ce': torch.tensor(5e24)}, resumed=False)
    runner = argparse.Namespace(model=model, optim_wrapper=wrapper, message_hub=hub, iter=6)
    zoo.FiniteGradientHook().before_train(runner)
    wrapper.update_params(sum(p.square().sum() for p in model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    weight = model.head.method.classifier.weight
    with pytest.raises(
        UserError, match=r'classifier\.weight is not finite in iteration 7 \(loss_ce 5e\+24'
    ):
        wrapper.update_params((weight - weight.detach()).sqrt().sum())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize('length', [0, -1, 'two', 1.5])
def test_a_training_without_a_step_is_refused(length: object) -> None:
    cfg = load_config('gap_mobilenetv2_cub', **{'train_cfg.max_epochs': length})
    with pytest.raises(UserError, match=r'train_cfg.max_epochs'):
        launching.check_length(cfg)


def test_images_that_a_backbone_does_not_take() -> None:
    cfg = load_config(
        'gap_cnn_digits',
        **{
            'model.backbone.model_name': 'vit_tiny_patch16_224',
            'model.backbone.out_indices': (11,),
            'model.backbone.depth': 12,
            'test_dataloader.dataset.num_images': 2,
        },
    )
    cfg.model.backbone = dict(
        type='TIMMBackbone', model_name='test_vit', features_only=True, in_channels=1,
        out_indices=(2,),
    )  # fmt: skip
    model = models.check_model(cfg)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    modes = [m.training for m in model.modules()]
    with pytest.raises(UserError, match=r'images of \(1, 40, 40\).*model\.backbone\.img_size=40'):
        models.check_input(model, dataset)
    assert [m.training for m in model.modules()] == modes


def test_levels_that_a_network_lacks() -> None:
    with pytest.raises(
        UserError, match=r'resnet10t has 5 levels, 0 to 4;.*give out_indices=\(2, 3, 4\)'
    ):
        models.check_model(
            Config(
                dict(
                    model=dict(
                        type='FineGrainedClassifier',
                        backbone=dict(
                            type='TIMMBackbone', model_name='resnet10t', features_only=True,
                            out_indices=(3, 4, 5),
                        ),
                        head=dict(type='WARNHead', num_classes=3),
                    )
                )
            )
        )  # fmt: skip


def test_maps_with_the_channels_last() -> None:
    """timm's Swin hands over (N, H, W, C)."""
    model = MODELS.build(
        dict(
            type='FineGrainedClassifier',
            backbone=dict(
                type='TIMMBackbone', model_name='swin_tiny_patch4_window7_224', features_only=True,
                out_indices=(1, 2, 3), img_size=64, embed_dim=12, depths=(1, 1, 1, 1),
                num_heads=(1, 1, 1, 1), window_size=2,
            ),
            head=dict(type='WARNHead', num_classes=3),
        )
    )  # fmt: skip
    maps = model.extract_feat(torch.randn(2, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [(2, 24, 8, 8), (2, 48, 4, 4), (2, 96, 2, 2)]
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 3)


def test_both_streams_decay_alike() -> None:
    backbone = dict(type='VisionTransformer', arch='deit-tiny', img_size=32, out_type='featmap')
    model = classifier(dict(type='ARTHead'), backbone)
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
            constructor='LearningRateDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.5),
        ),
    )
    rates = {g['param_name']: g['lr'] for g in wrapper.optimizer.param_groups}
    twins = [name for name in rates if name.startswith('second_stream.backbone.')]
    assert len(twins) > 100
    for name in twins:
        assert rates[name] == rates[name.removeprefix('second_stream.')], name
    assert len({rates[name] for name in twins}) > 10


def test_a_checkpoint_of_other_classes_in_the_hub(tmp_path: Path) -> None:
    import mmpretrain

    small = mmpretrain.get_model('gap_cnn_digits', head={'num_classes': 3})
    meta = {'dataset_meta': {'classes': ['a', 'b', 'c']}}
    torch.save({'state_dict': small.state_dict(), 'meta': meta}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r'of 3 classes, the model has 10.*num_classes=3'):
        mmpretrain.get_model('gap_cnn_digits', pretrained=str(tmp_path / 'a.pth'))
    model = mmpretrain.get_model(
        'gap_cnn_digits', pretrained=str(tmp_path / 'a.pth'), head={'num_classes': 3}
    )
    (result,) = mmpretrain.ImageClassificationInferencer(model)(np.zeros((40, 40), np.uint8))
    assert result['pred_class'] in 'abc'


@pytest.mark.parametrize(
    'command', [['-m', 'fgplugins', 'train'], [str(CONFIGS.parent / 'tools/train.py')]]
)
def test_ctrl_c_while_all_is_imported(command: list[str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, *command, 'warn_cnn_digits'], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert stderr == '' and process.returncode == -signal.SIGINT


@pytest.mark.parametrize('name', shipped_configs())
def test_every_config_can_be_read_from_a_checkpoint(name: str) -> None:
    cfg = load_config(name)
    saved = saved_config({'meta': {'cfg': cfg.pretty_text}}, name)
    assert saved.model.to_dict() == cfg.model.to_dict()
