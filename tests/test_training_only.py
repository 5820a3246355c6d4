"""siou and art inside the zoos: processes, accumulation, checkpointing, schedules, deploying."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import timm
import torch
from helpers import classifier
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fgplugins.errors import UserError
from fgplugins.methods import art, siou
from fgplugins.utils.probing import check_gradient_path
from fgplugins.zoo_timm import ComposedModel
from fgplugins.zoo_timm.deploy import deploy as deploy_timm
from fgplugins.zoo_timm.task import LossStep, MethodTask, classification_task

METHODS = ['siou', 'art']
RESNET = dict(type='ResNet', depth=18, out_indices=(2, 3))


def small_step(method: str, **kwargs: object) -> LossStep:
    """On digits; with fixed normalisation, which would tie the images of a batch together."""
    torch.manual_seed(0)
    model = timm.create_model(
        method, backbone='clutter_cnn', num_classes=4, in_chans=1, **kwargs
    )  # fmt: skip
    step = LossStep(model).double()
    for p in step.parameters():  # a gap between classes, so that no rival changes by rounding
        if p.ndim > 1:
            nn.init.kaiming_normal_(p)
    return step.eval()


def batch(N: int = 8) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(N, 1, 40, 40, dtype=torch.float64), torch.arange(N) % 4


def gradients(step: nn.Module) -> dict[str, Tensor]:
    return {k.removeprefix('module.'): p.grad.clone() for k, p in step.named_parameters()}


def backward(step: nn.Module, x: Tensor, y: Tensor, share: float = 1.0) -> None:
    (share * sum(step(x, y).values())).backward()


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor], atol: float = 1e-6) -> None:
    assert set(ours) == set(theirs)
    for name in ours:
        scale = theirs[name].abs().max().clamp_min(1)
        assert (ours[name] - theirs[name]).abs().max() <= atol * scale, name


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        'gloo', rank=rank, world_size=2, init_method=f'file://{folder}/meeting'
    )
    torch.set_num_threads(1)
    x, y = batch()
    half = slice(4 * rank, 4 * rank + 4)
    for method in METHODS:
        step = DistributedDataParallel(small_step(method))
        with step.no_sync():  # accumulated: two halves of this rank's share
            backward(step, x[half][:2], y[half][:2], 0.5)
        backward(step, x[half][2:], y[half][2:], 0.5)
        if rank == 0:
            torch.save(gradients(step), f'{folder}/{method}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_with_accumulation_equal_one(tmp_path: Path) -> None:
    """DDP averages over ranks; its gradients are those of the concatenated batch."""
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    for method in METHODS:
        step = small_step(method)
        backward(step, *batch())
        same(torch.load(tmp_path / f'{method}.pt'), gradients(step))


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('backbone', ['resnet10t', 'convnext_atto'])
def test_checkpointed_activations_give_the_same_gradients(method: str, backbone: str) -> None:
    torch.manual_seed(0)
    step = LossStep(timm.create_model(method, backbone=backbone, num_classes=3))
    x, y = torch.randn(2, 3, 64, 96), torch.tensor([0, 2])
    state = {k: v.clone() for k, v in step.state_dict().items()}
    backward(step, x, y)
    plain = gradients(step)
    step.load_state_dict(state)  # the running statistics
    step.zero_grad()
    step.model.set_grad_checkpointing()
    backward(step, x, y)
    same(gradients(step), plain, atol=1e-4)


def test_reentrant_checkpointing_and_frozen_levels_are_refused(zoo: ModuleType) -> None:
    for options, message in (
        (dict(with_cp=True), 'its gradient cannot be computed: .*use_reentrant'),
        (dict(frozen_stages=3), 'frozen: freeze fewer stages'),
    ):
        with pytest.raises(ValueError, match=rf'SIoUHead .* of ResNet, and .*{message}'):
            classifier(dict(type='SIoUHead'), dict(**RESNET, **options))


def test_layers_without_a_second_derivative_are_refused_or_rewritten() -> None:
    inner = torch.randn(2, 3, 4, 4, requires_grad=True) * 2
    with pytest.raises(ValueError, match=r'cannot be differentiated twice: .*hardsigmoid'):
        check_gradient_path([inner, nn.functional.hardsigmoid(inner)])
    step = LossStep(timm.create_model('siou', backbone='mobilenetv3_small_050', num_classes=3))
    backward(step, torch.randn(2, 3, 64, 64), torch.tensor([0, 1]))
    assert all(p.grad.isfinite().all() for p in step.parameters())


def test_compiling_the_training_of_siou_is_refused() -> None:
    task = MethodTask(small_step('siou').model, verbose=False)
    with pytest.raises(ValueError, match=r'gradients inside its loss, which torch.compile cannot'):
        task.compile(backend='aot_eager')


def test_frozen_networks_still_show_their_attention() -> None:
    model = small_step('siou').model.requires_grad_(False)
    x, _ = batch(2)
    with torch.inference_mode():
        masks = model.attention_maps(x)
    assert [m.shape[:2] for m in masks] == [(2, 2), (2, 2)] and masks[0].max() > 0


class TestSecondStream:
    def test_it_is_not_in_the_model(self) -> None:
        step = small_step('art')
        backbone = timm.create_model('clutter_cnn', num_classes=4, in_chans=1)
        own = sum(p.numel() for p in step.model.parameters())
        assert own == sum(p.numel() for p in backbone.parameters())
        assert not {k for k in step.model.state_dict() if 'second' in k or 'regularizer' in k}
        with pytest.raises(RuntimeError, match='art trains beside a second network'):
            step.model.loss(*batch())

    def test_plain_classifiers_of_the_zoo_refuse(self, zoo: ModuleType) -> None:
        from mmpretrain.structures import DataSample

        model = zoo.MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=dict(type='ResNet', depth=18),
                head=dict(type='ARTHead', num_classes=3, in_channels=[512]),
            )
        )
        assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)
        with pytest.raises(RuntimeError, match=r"use model\.type='FineGrainedClassifier'"):
            model(torch.randn(1, 3, 64, 64), [DataSample().set_gt_label(0)], mode='loss')

    def test_task_state_resumes_it(self) -> None:
        one, other = (MethodTask(small_step('art').model, verbose=False) for _ in range(2))
        nn.init.normal_(one.trainable_module.regularizer.proposal.weight)
        state = one.get_checkpoint_state()
        assert not set(state['state_dict']) & set(state['task_state'])
        other.load_checkpoint_state(state['state_dict'], state['task_state'])
        for k, v in one.trainable_module.state_dict().items():
            assert torch.equal(v, other.trainable_module.state_dict()[k]), k
        with pytest.raises(RuntimeError, match='what art trains besides the model'):
            other.load_checkpoint_state(state['state_dict'], None)

    def test_layer_decay_groups_and_head_clipping(self) -> None:
        from timm.optim import create_optimizer_v2

        task = MethodTask(timm.create_model('art', backbone='resnet10t'), verbose=False)
        step = task.trainable_module
        optimizer = create_optimizer_v2(step, 'sgd', 0.1, layer_decay=0.5)
        scale = {id(p): g['lr_scale'] for g in optimizer.param_groups for p in g['params']}
        for name, p in step.model.backbone.named_parameters():
            assert scale[id(p)] == scale[id(step.second.get_parameter(name))], name
        assert scale[id(step.model.method.classifier.weight)] == 1
        clipped = {id(p) for p in task.get_clip_parameters(exclude_head=True)}
        heads = [*step.model.method.parameters(), *step.regularizer.parameters()]
        assert not clipped & {id(p) for p in heads}
        assert clipped | {id(p) for p in heads} == {id(p) for p in step.parameters()}

    def test_schedule(self, zoo: ModuleType) -> None:
        hook = zoo.HOOKS.build(dict(type='RestrictionScheduleHook', begin=2, period=3))
        model = classifier(dict(type='ARTHead'), RESNET)
        states = []
        for epoch in range(9):
            hook.before_train_epoch(SimpleNamespace(epoch=epoch, model=model))
            states.append('restriction' not in model.regularizer.left_out)
        assert states == [True] * 2 + [False] * 3 + [True] * 3 + [False]
        model.regularizer = None
        with pytest.raises(ValueError, match=r'with ARTHead has no attention restriction'):
            hook.before_train_epoch(SimpleNamespace(epoch=0, model=model))
        with pytest.raises(ValueError, match='period=0'):
            zoo.HOOKS.build(dict(type='RestrictionScheduleHook', period=0))

    @pytest.mark.parametrize('compiled', [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_schedule_of_a_task(self, compiled: bool) -> None:
        """The same epochs as in MMPretrain's hook, through whatever wraps the loss."""
        model = small_step('art').model
        schedule = art.RestrictionSchedule(2, 3)
        task = MethodTask(model, verbose=False, restriction_schedule=schedule).double()
        if compiled:
            task.compile(backend='eager')
        x, y = batch(2)
        with pytest.raises(UserError, match=r'which epoch it is: call task\.set_epoch\(epoch\)'):
            task(x, y)
        epochs = (0, 2) if compiled else range(9)
        found = []
        for epoch in epochs:
            task.set_epoch(epoch)
            found.append('restriction' in task(x, y))
        states = [True] * 2 + [False] * 3 + [True] * 3 + [False]
        assert found == [states[epoch] for epoch in epochs]
        resumed = MethodTask(model, verbose=False, restriction_schedule=schedule).double()
        resumed.set_epoch(3)
        assert 'restriction' not in resumed(x, y)

    def test_schedules_that_nobody_can_keep(self) -> None:
        paper = art.RestrictionSchedule()
        assert [epoch for epoch in (0, 49, 50, 94, 95, 139, 140) if paper.is_on(epoch)] == [
            0, 49, 95, 139
        ]  # fmt: skip
        for wrong in ({'begin': -1}, {'period': 0}):
            with pytest.raises(ValueError, match='begin must be at least 0, period at least 1'):
                art.RestrictionSchedule(**wrong)
        with pytest.raises(ValueError, match='siou has no attention restriction; it is for art'):
            MethodTask(small_step('siou').model, verbose=False, restriction_schedule=paper)
        with pytest.raises(ValueError, match='ResNet has no attention restriction'):
            classification_task(timm.create_model('resnet10t'), restriction_schedule=paper)

    def test_views_take_the_size_of_networks_that_have_only_one(self) -> None:
        model = timm.create_model('art', backbone='vit_tiny_patch16_224', img_size=48)
        step = LossStep(model)
        assert step.regularizer.view_size == (48, 48)
        terms = step(torch.randn(2, 3, 48, 48), torch.tensor([0, 1]))
        assert all(v.isfinite() for v in terms.values())


class TestDeploying:
    @pytest.mark.parametrize('method', METHODS)
    @pytest.mark.parametrize(
        ('backbone', 'head', 'plain'),
        [
            ('resnet10t', 'network', True),
            ('clutter_cnn', 'network', True),
            ('convnext_atto', 'network', True),
            ('regnety_002', 'mean', True),
            ('vgg11', 'mean', False),
            ('convnext_atto', 'mean', False),
        ],
    )
    def test_timm(self, method: str, backbone: str, head: str, plain: bool, tmp_path: Path) -> None:
        model: ComposedModel = timm.create_model(
            method, backbone=backbone, num_classes=5, head=head
        )
        images = torch.randn(2, model.in_chans, *(min(64, side) for side in model.input_size))
        shipped, name, arguments = deploy_timm(model)
        assert name == (backbone if plain else 'gap')
        torch.save({'state_dict': shipped.state_dict()}, tmp_path / 'shipped.pth')
        again = timm.create_model(name, **arguments, checkpoint_path=str(tmp_path / 'shipped.pth'))
        with torch.no_grad():
            assert torch.equal(again.eval()(images), model.eval()(images))
        counts = [sum(p.numel() for p in m.parameters()) for m in (again, model)]
        assert counts[0] == counts[1]

    def test_methods_that_stay(self) -> None:
        model = timm.create_model('warn', backbone='resnet10t', num_classes=3, heads=2)
        shipped, name, arguments = deploy_timm(model)
        assert shipped is model
        again = timm.create_model(name, **arguments)
        again.load_state_dict(model.state_dict())

    @pytest.mark.parametrize('head', [
        dict(type='SIoUHead'), dict(type='ARTHead'), dict(type='SIoUHead', multi_label=True),
        dict(type='GAPHead', multi_label=True),
    ])  # fmt: skip
    def test_mmpretrain(self, zoo: ModuleType, head: dict) -> None:
        from mmengine.config import Config

        from fgplugins.zoo_mmpretrain.deploy import deploy as deploy_mmpretrain

        cfg = Config(
            dict(
                model=dict(
                    type='FineGrainedClassifier', backbone=RESNET, head=dict(num_classes=3, **head)
                )
            )
        )
        trained = zoo.MODELS.build(cfg.model)
        model = zoo.MODELS.build({**cfg.model.to_dict(), 'deployed': True})
        model.load_state_dict(trained.state_dict())
        images = torch.randn(2, 3, 64, 64)
        shipped, shipped_cfg = deploy_mmpretrain(model, cfg, (3, 64, 64))
        assert shipped_cfg.model.type == 'ImageClassifier'
        again = zoo.MODELS.build(shipped_cfg.model)
        again.load_state_dict(shipped.state_dict())
        again.eval(), trained.eval()
        with torch.no_grad():
            assert torch.equal(again(images), trained(images))
            for ours, theirs in zip(
                trained(images, mode='predict'), again(images, mode='predict'), strict=True
            ):
                assert torch.equal(ours.pred_score, theirs.pred_score)
                assert ours.pred_label.tolist() == theirs.pred_label.tolist()


def test_losses_alone_are_the_methods_terms(zoo: ModuleType) -> None:
    torch.manual_seed(0)
    A, B, inner = torch.rand(2, 4, 4), torch.rand(2, 4, 4), torch.rand(2, 8, 8)

    def loss(name: str, **kwargs: object) -> nn.Module:
        return zoo.MODELS.build(dict(type=name, loss_weight=2.0, **kwargs))

    whole = torch.ones_like(A)
    expected = siou.soft_iou(siou.normalized(A), siou.normalized(B), whole).mean()
    torch.testing.assert_close(loss('SoftIoULoss')(A, B), 2 * expected)
    torch.testing.assert_close(
        loss('SoftIoULoss', normalize=False)(A, B, A), 2 * siou.soft_iou(A, B, A).mean()
    )
    mask = siou.resize_mask(siou.target_region(siou.normalized(A)), inner)
    expected = siou.attention_consistency(siou.normalized(inner), mask).mean()
    last = A.clone().requires_grad_()
    value = loss('AttentionConsistencyLoss')(inner, last)
    torch.testing.assert_close(value, 2 * expected)
    assert torch.autograd.grad(value, last)[0].any()
    value = loss('AttentionConsistencyLoss', detach_mask=True)(inner.requires_grad_(), last)
    torch.testing.assert_close(value, 2 * expected)
    assert torch.autograd.grad(value, last, allow_unused=True)[0] is None
    gamma = 3 * torch.randn(4, 4)
    expected = art.attention_restriction(gamma).mean()
    torch.testing.assert_close(loss('AttentionRestrictionLoss')(gamma), 2 * expected)
    f, g = torch.randn(4, 5), torch.randn(4, 5)
    expected = art.contrastive_reinforcement(f, g)
    torch.testing.assert_close(loss('ContrastiveReinforcementLoss')(f, g), 2 * expected)


@pytest.mark.parametrize('method', ['SIoU', 'GAP'])
def test_several_labels_in_the_zoo(method: str, zoo: ModuleType) -> None:
    from mmpretrain.structures import DataSample

    model = classifier(dict(type=f'{method}Head', num_classes=4, multi_label=True), RESNET)
    x = torch.randn(2, 3, 64, 64)
    samples = [DataSample().set_gt_label([0, 2]), DataSample().set_gt_label([1])]
    losses = model(x, samples, mode='loss')
    of_siou = {'loss_siou_inner', 'loss_siou_last', 'loss_consistency'}
    assert set(losses) == {'loss_soft_margin', *(of_siou if method == 'SIoU' else ())}
    sum(losses.values()).backward()
    model.eval()
    for sample, scores in zip(model(x, mode='predict'), model(x), strict=True):
        torch.testing.assert_close(sample.pred_score, scores.sigmoid())
        assert sample.pred_label.tolist() == (scores > 0).nonzero()[:, 0].tolist()


@pytest.mark.parametrize('method', ['SIoU', 'GAP', 'WARN'])
def test_labels_that_nobody_said_are_several_are_refused(method: str, zoo: ModuleType) -> None:
    """Also where their number is that of the images."""
    from mmpretrain.structures import DataSample

    model = classifier(dict(type=f'{method}Head', num_classes=4, taps=2), RESNET)
    for labels, count in ((([0, 2], [1]), 2), (([], [1, 3]), 0)):
        samples = [DataSample().set_gt_label(torch.tensor(y, dtype=torch.long)) for y in labels]
        with pytest.raises(ValueError, match=rf'an image has {count} labels: set head.multi_label'):
            model(torch.randn(2, 3, 64, 64), samples, mode='loss')
