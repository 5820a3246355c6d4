"""What several test files need: loops of the oracles, folders of images, small models."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import nn

if TYPE_CHECKING:
    from mmengine.config import Config

CLASSES = ('crow', 'duck', 'eagle')


def loop_softmax(values: list[float]) -> list[float]:
    exponentials = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def write_image(path: Path, size: tuple[int, int] = (8, 8), colour: tuple = (100, 20, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, colour).save(path)
    return path


def image_folder(
    root: Path, splits: dict[str, int], classes: tuple[str, ...] = CLASSES, side: int = 40
) -> Path:
    """``root/split/class/0.png`` and so on, as many of each class as the split says."""
    for split, count in splits.items():
        for label, name in enumerate(classes):
            for i in range(count):
                colour = (80 * label, 10 * i, 100)
                write_image(root / split / name / f'{i}.png', (side, side), colour)
    return root


def load_config(config: Path | str, control: bool = False, **options: object) -> Config:
    """A config as tools read it, with ``--cfg-options`` and ``--control``."""
    from fgplugins.zoo_mmpretrain.running import configs

    return configs.load_config(
        argparse.Namespace(
            config=str(config), cfg_options=options, work_dir=None, data_root=None, control=control
        )
    )


def classifier(head: dict, backbone: dict, **more: object) -> nn.Module:
    """A classifier of MMPretrain under one of our heads, by default of three classes."""
    from mmpretrain.registry import MODELS

    head = {'num_classes': 3, **head}
    return MODELS.build(dict(type='FineGrainedClassifier', backbone=backbone, head=head, **more))


def assert_same_clan(parts: nn.Module, whole: nn.Module) -> None:
    """`CLANNeck` before `MultiBranchHead` is the method clan, with the same weights."""
    import torch
    from mmpretrain.structures import DataSample

    for p in whole.head.parameters():
        nn.init.normal_(p, std=0.05)
    parts.backbone.load_state_dict(whole.backbone.state_dict())
    parts.neck.refinement.load_state_dict(whole.head.method.refinement.state_dict())
    parts.head.classifier.load_state_dict(whole.head.method.classifier.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(parts(x), whole(x))
    samples = [DataSample().set_gt_label(label) for label in (1, 4)]
    ours, theirs = parts(x, samples, mode='loss'), whole(x, samples, mode='loss')
    assert set(ours) == set(theirs)
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key])
