"""Ways of testing: AUC against scikit-learn, ten crops, whole images, the terms of the loss."""

from __future__ import annotations

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

from pathlib import Path

import numpy as np
import torch
from helpers import load_config
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmpretrain.registry import METRICS, MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from sklearn.metrics import roc_auc_score
from torchvision.transforms import functional as F

import fgplugins
from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain import CornerCrop, MultiLabelAUC, evaluation

CONFIGS = Path(__file__).parent.parent / 'configs'


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope('mmpretrain')


def config(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


# ------------------------------------------------------------------------------------------ the AUC


def evaluate(metric: MultiLabelAUC, samples: list[DataSample], **meta: object) -> dict:
    evaluator = Evaluator(metrics=metric)
    evaluator.dataset_meta = meta
    for batch in (samples[:7], samples[7:]):
        evaluator.process(data_samples=batch)
    return evaluator.evaluate(len(samples))


def random_labels(count: int = 20, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    labels = (torch.rand(count, classes) < 0.4).long()
    labels[0], labels[1] = 0, 1  # every class is present and absent
    return torch.rand(count, classes), labels


@pytest.mark.parametrize('given', ['gt_score', 'gt_label'])
def test_auc_is_scikit_learns(given: str) -> None:
    scores, labels = random_labels()
    samples = [DataSample().set_pred_score(s) for s in scores]
    for sample, y in zip(samples, labels, strict=True):
        if given == 'gt_score':
            sample.set_gt_score(y.float())
        else:
            sample.set_gt_label(y.nonzero()[:, 0])
    found = evaluate(METRICS.build(dict(type='MultiLabelAUC')), samples)
    expected = roc_auc_score(labels.numpy(), scores.numpy(), average='macro')
    assert found == {'multi-label/AUC': pytest.approx(100 * expected, abs=1e-6)}
    each = evaluate(METRICS.build(dict(type='fgplugins.MultiLabelAUC', average=None)), samples)
    expected = roc_auc_score(labels.numpy(), scores.numpy(), average=None)
    assert each['multi-label/AUC_classwise'] == pytest.approx(list(100 * expected), abs=1e-6)


def test_classes_without_a_curve_are_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmengine.logging import MMLogger

    said = []
    logger = type('Logger', (), {'warning': lambda self, text: said.append(text)})()
    monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: logger)
    scores, labels = random_labels()
    labels[:, 1], labels[:, 3] = 0, 1
    samples = [
        DataSample().set_pred_score(s).set_gt_score(y) for s, y in zip(scores, labels, strict=True)
    ]
    found = evaluate(MultiLabelAUC(), samples, classes=('boat', 'bus', 'cat', 'cow'))
    kept = [0, 2]
    expected = roc_auc_score(labels[:, kept].numpy(), scores[:, kept].numpy())
    assert found['multi-label/AUC'] == pytest.approx(100 * expected, abs=1e-6)
    assert said == [
        'MultiLabelAUC: no image, or every image, has bus, cow: left out; the other 2 of 4 classes '
        'count'
    ]
    each = evaluate(MultiLabelAUC(average=None), samples)['multi-label/AUC_classwise']
    assert np.isnan([each[1], each[3]]).all() and ' 1, 3: ' in said[1]
    with pytest.raises(ValueError, match="average='micro': must be 'macro' or None"):
        MultiLabelAUC(average='micro')


def test_difficult_labels_do_not_count() -> None:
    scores, labels = random_labels()
    samples, kept = [], np.ones_like(labels.numpy(), dtype=bool)
    for i, (s, y) in enumerate(zip(scores, labels, strict=True)):
        # difficult instances of class 0 in odd images; where there is an easy one, it counts
        difficult = [0] if i % 2 else []
        kept[i, 0] = not difficult or bool(y[0])
        sample = DataSample().set_pred_score(s).set_gt_label(y.nonzero()[:, 0])
        sample.set_field(difficult, 'gt_label_difficult', field_type='metainfo')
        samples.append(sample)
    assert not kept.all()
    expected = [
        roc_auc_score(labels[kept[:, y], y].numpy(), scores[kept[:, y], y].numpy())
        for y in range(4)
    ]
    found = evaluate(MultiLabelAUC(average=None), samples)['multi-label/AUC_classwise']
    assert found == pytest.approx([100 * e for e in expected], abs=1e-6)


# ------------------------------------------------------------------------------------ several views


@pytest.mark.parametrize('size', [(256, 300), (340, 256)])
def test_ten_crops_are_the_right_pixels(size: tuple[int, int]) -> None:
    """Against torchvision's ten_crop, on an image that needs no resizing."""
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    pipeline = Compose([TRANSFORMS.build(s) for s in config('siou_r18_imagenet').tta_pipeline])
    views = pipeline({'img': image.permute(1, 2, 0).numpy(), 'gt_label': 3})
    assert [int(sample.gt_label) for sample in views['data_samples']] == [3] * 10
    crops = F.ten_crop(image, 224)  # four corners and the centre, then those of the mirror image
    for i, crop in enumerate(crops[:5]):
        assert torch.equal(views['inputs'][2 * i], crop), i
        assert torch.equal(views['inputs'][2 * i + 1], F.hflip(crop)), i
    found = {view.numpy().tobytes() for view in views['inputs']}
    assert len(found) == 10 and found == {crop.numpy().tobytes() for crop in crops}


def test_corner_crop_of_any_shape() -> None:
    image = np.arange(5 * 7).reshape(5, 7)
    for corner, part in (
        ('top_left', image[:2, :3]),
        ('top_right', image[:2, 4:]),
        ('bottom_left', image[3:, :3]),
        ('bottom_right', image[3:, 4:]),
    ):
        found = CornerCrop(crop_size=(2, 3), corner=corner)({'img': image})
        assert np.array_equal(found['img'], part) and found['img_shape'] == (2, 3)
    with pytest.raises(UserError, match=r"corner='top': must be one of top_left, top_right"):
        CornerCrop(2, 'top')
    with pytest.raises(UserError, match=r'crop_size=\(6, 6\) is larger than the image of \(5, 7\)'):
        CornerCrop(6, 'top_left')({'img': image})


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda p: p.stem)
def test_views_of_every_config(path: Path) -> None:
    """The config's own, or mirror images; the settings stay plain, since they are written out."""
    cfg = Config.fromfile(path)
    model = cfg.model.to_dict()
    evaluation.set_tta(cfg)
    assert cfg.model.type == 'AverageClsScoreTTA' and cfg.model.module.to_dict() == model
    assert cfg.test_dataloader.dataset.pipeline[-1].type == 'TestTimeAug'
    assert 'object at 0x' not in cfg.pretty_text


def test_views_that_cannot_be_built() -> None:
    cfg = config('siou_r18_imagenet')
    cfg.tta_pipeline[1].type = 'ResizeEdg'
    with pytest.raises(UserError, match=r"^tta_pipeline: type='ResizeEdg' .* did you mean Resize"):
        evaluation.set_tta(cfg)


# ------------------------------------------------------------------------------------- whole images


def test_whole_images() -> None:
    cfg = config('art_r50_cub')
    evaluation.set_uncropped(cfg)
    steps = [step.type for step in cfg.test_dataloader.dataset.pipeline]
    assert steps == ['LoadImage', 'ResizeEdge', 'PackInputs']
    assert cfg.test_dataloader.batch_size == 1 and cfg.val_dataloader.batch_size == 64
    pipeline = Compose([TRANSFORMS.build(s) for s in cfg.test_dataloader.dataset.pipeline])
    for size in ((300, 400), (700, 333)):
        view = pipeline({'img': np.zeros((*size, 3), np.uint8)})['inputs']
        assert min(view.shape[1:]) == 512
        assert max(view.shape[1:]) == int(512 * max(size) / min(size))
    with pytest.raises(UserError, match='crops nothing: LoadImage, Resize, PackInputs'):
        evaluation.set_uncropped(config('gap_r110_cifar10'))


@torch.no_grad()
def test_averaging_dense_scores_is_classifying_the_average() -> None:
    """What CRA-CNN, section 4.3, calls averaging the final prediction scores."""
    model = small_model('art').eval()
    image = torch.randn(1, 1, 72, 104)
    (feature,) = model.extract_feat(image)[-1:]
    linear = model.head.method.classifier
    dense = [
        linear(feature[0, :, i, j])
        for i in range(feature.shape[2])
        for j in range(feature.shape[3])
    ]
    torch.testing.assert_close(model(image)[0], torch.stack(dense).mean(dim=0))


# ------------------------------------------------------------------------------- terms of the loss


def small_model(method: str) -> torch.nn.Module:
    cls = fgplugins.get_method(method)
    model = load_config('gap_cnn_digits').model
    model.backbone.widths = (4, 4, 4, 4, 8)
    model.head = dict(type=f'{cls.__name__}Head', num_classes=3)
    model.data_preprocessor = dict(mean=[0.0], std=[255.0], to_rgb=False)
    return MODELS.build(model)


@pytest.mark.parametrize('method', fgplugins.list_methods())
def test_terms_are_means_over_images(method: str) -> None:
    model = small_model(method)
    samples = [
        {
            'inputs': torch.randint(0, 256, (1, 40, 40), dtype=torch.uint8),
            'data_samples': DataSample().set_gt_label(i % 3),
        }
        for i in range(5)
    ]
    batches = [samples[:3], samples[3:]]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():  # as the runner tests
        found = evaluation.mean_terms(model, (default_collate(b) for b in batches))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and model.training

    model.eval()
    expected: dict[str, float] = {}
    for batch in batches:
        data = model.data_preprocessor(default_collate(batch))
        for name, value in model.loss(data['inputs'], data['data_samples']).items():
            expected[name] = expected.get(name, 0) + value.item() * len(batch) / 5
    assert expected and {k: v for k, v in found.items() if k != 'loss'} == pytest.approx(expected)
    assert found['loss'] == pytest.approx(sum(expected.values()))


def test_a_deployed_model_takes_either_checkpoint() -> None:
    cfg = config('art_mobilenetv2_cub')
    evaluation.set_deployed(cfg)
    assert cfg.model.deployed
    plain = Config(dict(model=dict(type='ImageClassifier')))
    evaluation.set_deployed(plain)
    assert 'deployed' not in plain.model
