"""One way to get a model for the tools: from a config of MMPretrain's kind, or by a timm name."""

from __future__ import annotations

import argparse
import ast
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fgplugins.errors import UserError, did_you_mean
from fgplugins.methods import Method, Regularizer
from fgplugins.modes import in_testing

__all__ = ['LoadedModel', 'add_model_arguments', 'load_model', 'parse_value']


@dataclass
class LoadedModel:
    """A model of either zoo, with what the tools ask of it.

    Attributes:
        name: the config's or the timm model's.
        model: in eval mode.
        input_size: (channels, height, width).
        features: images (N, C, H, W) -> the maps a method reads; None for a plain network.
        method: the method on top; None for a plain network.
        read_image: path -> (the image as the model sees it in bytes, the network's input (1, ...)).
        classes: names of the classes where they are known.
        config: the config of a model of MMPretrain's kind.
        views: images -> the named views (N, C, h, w) that a method trains on, where it has some
            and they were asked for.
    """

    name: str
    model: nn.Module
    input_size: tuple[int, int, int]
    features: Callable[[Tensor], list[Tensor]] | None
    method: Method | None
    read_image: Callable[[str], tuple[np.ndarray, Tensor]]
    classes: list[str] | None = None
    config: object | None = None
    views: Callable[[Tensor], dict[str, Tensor]] | None = None

    def look(self, inputs: Tensor, **asked: object) -> tuple[Tensor, list[Tensor]]:
        """Scores (N, Y) of images, and the method's (N, K, H_s, W_s) masks per level.

        Args:
            inputs: (N, C, H, W).
            **asked: what the method's ``attention`` takes besides.
        """
        with in_testing(self.model), self.method.looking_at(inputs) as inputs:
            features = self.features(inputs)
            masks = self.method.attention(features, **asked)
            return self.method(features).detach(), [m.detach() for m in masks]


def parse_value(text: str) -> object:
    """``'3'`` -> 3, ``'(1, 2)'`` -> (1, 2), ``'resnet18'`` -> 'resnet18'."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def add_model_arguments(parser: argparse.ArgumentParser, checkpoint: bool = False) -> None:
    """How a command line names a model of either zoo."""
    parser.add_argument('model', help='config file (or the name of a shipped one), or a timm model')
    if checkpoint:
        parser.add_argument('checkpoint', help='trained weights')
    parser.add_argument(
        '--model-kwargs',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='arguments of a timm model, as backbone=resnet18 num_classes=200',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='override settings of a config, as model.head.num_classes=200',
    )


def _pairs(option: str, items: list[str]) -> dict[str, object]:
    wrong = next((item for item in items if '=' not in item), None)
    if wrong is not None:
        raise UserError(f'{option} {wrong!r}: must read KEY=VALUE')
    return {key: parse_value(value) for key, value in (item.split('=', 1) for item in items)}


def load_model(
    name: str,
    checkpoint: str | None = None,
    model_kwargs: list[str] | None = None,
    cfg_options: list[str] | None = None,
    training_only: bool = False,
) -> LoadedModel:
    """Build a model by its timm name or its config, with weights if a checkpoint is given.

    Args:
        name: of the model.
        checkpoint: file of weights.
        model_kwargs: KEY=VALUE of a timm model.
        cfg_options: KEY=VALUE of a config.
        training_only: also load what exists in training only.

    Raises:
        UserError: if the name is of neither kind, an argument is wrong, or the weights do not fit.
    """
    import timm

    if timm.is_model(name.split('.')[0]) and not Path(name).is_file():
        if cfg_options:
            raise UserError(f'--cfg-options is for configs; {name} is a timm model: --model-kwargs')
        kwargs = _pairs('--model-kwargs', model_kwargs or [])
        return _from_timm(name, checkpoint, kwargs, training_only)
    try:
        from fgplugins.zoo_mmpretrain import running
    except ImportError as error:
        raise UserError(
            f'{name!r} is not a timm model, and configs cannot be read: {error}'
        ) from None
    try:
        running.find_config(name)
    except UserError:
        known = [*running.shipped_configs(), *timm.list_models()]
        raise UserError(
            f'{name!r} is neither a config (a file, or one of {running.configs_folder().name}/), '
            f'nor a method or another model of timm{did_you_mean(Path(name).stem, known)}'
        ) from None
    if model_kwargs:
        raise UserError(f'--model-kwargs is for timm models; {name!r} is a config: --cfg-options')
    options = _pairs('--cfg-options', cfg_options or [])
    return _from_config(name, checkpoint, options, training_only)


def _from_timm(
    name: str, checkpoint: str | None, kwargs: dict[str, object], training_only: bool
) -> LoadedModel:
    import timm
    from PIL import Image
    from timm.models import load_checkpoint

    from fgplugins.zoo_timm import ComposedModel

    if checkpoint and not Path(checkpoint).is_file():
        raise UserError(f'checkpoint {checkpoint!r} is not a file')
    try:
        model = timm.create_model(name, **kwargs).eval()
        if checkpoint:
            load_checkpoint(model, checkpoint)
    except (AttributeError, RuntimeError, TypeError, ValueError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(f'{name}: {" ".join(lines)[:300]}') from error
    data = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**data, is_training=False)
    mean, std = (torch.tensor(data[key]).view(-1, 1, 1) for key in ('mean', 'std'))
    mode = {1: 'L', 3: 'RGB'}.get(data['input_size'][0])

    def read_image(path: str) -> tuple[np.ndarray, Tensor]:
        try:
            with Image.open(path) as image:
                inputs = transform(image.convert(mode))
        except (OSError, SyntaxError) as error:
            raise UserError(f'image {path} cannot be read: {error}') from None
        shown = ((inputs * std + mean).clamp(0, 1) * 255).byte()
        return shown.permute(1, 2, 0).numpy(), inputs[None]

    composed = isinstance(model, ComposedModel)
    views = None
    if training_only and composed and model.method.has_regularizer:
        from fgplugins.zoo_timm.task import MethodTask

        task = MethodTask(model, verbose=False)
        state = torch.load(checkpoint, map_location='cpu', weights_only=True).get('task_state')
        if not state:
            raise UserError(
                f'checkpoint {checkpoint!r} holds no weights that exist in training only'
            )
        task.load_task_state(state)
        views = _views(task.trainable_module.regularizer, model, model.forward_features)
    return LoadedModel(
        name,
        model,
        tuple(data['input_size']),
        model.forward_features if composed else None,
        model.method if composed else None,
        read_image,
        views=views,
    )


def _views(
    regularizer: nn.Module, model: nn.Module, features: Callable[[Tensor], list[Tensor]]
) -> Callable[[Tensor], dict[str, Tensor]] | None:
    """What a training-only part shows of images; None if that is nothing."""
    if getattr(type(regularizer), 'show', Regularizer.show) is Regularizer.show:
        return None

    def views(images: Tensor) -> dict[str, Tensor]:
        with in_testing(model), in_testing(regularizer), torch.no_grad():
            return regularizer.show(images, features(images))

    return views


def _from_config(
    name: str, checkpoint: str | None, options: dict[str, object], training_only: bool
) -> LoadedModel:
    from mmengine.dataset import Compose
    from mmpretrain.registry import TRANSFORMS

    from fgplugins.zoo_mmpretrain import FineGrainedClassifier, MethodHead, running
    from fgplugins.zoo_mmpretrain.colours import as_rgb, gives_bgr

    cfg = running.load_config(
        argparse.Namespace(config=name, cfg_options=options, work_dir=None, data_root=None)
    )
    classes = None
    if checkpoint:
        meta = running.read_checkpoint(checkpoint).get('meta') or {}
        classes = (meta.get('dataset_meta') or {}).get('classes')
        if classes and 'num_classes' in cfg.model.head and 'model.head.num_classes' not in options:
            cfg.model.head.num_classes = len(classes)
    if cfg.model.type.split('.')[-1] == FineGrainedClassifier.__name__:
        cfg.model.deployed = not training_only
    model = running.check_model(cfg)
    model.eval()
    if checkpoint:
        weights = running.check_checkpoint(checkpoint, model)
        model.load_state_dict(weights.get('state_dict', weights))

    pipeline_cfg = cfg.test_dataloader.dataset.pipeline
    pipeline = Compose([TRANSFORMS.build(step) for step in pipeline_cfg])

    def read_image(path: str) -> tuple[np.ndarray, Tensor]:
        packed = pipeline({'img_path': str(path)})
        batch = {'inputs': [packed['inputs']], 'data_samples': [packed['data_samples']]}
        inputs = model.data_preprocessor(batch, training=False)['inputs']
        return as_rgb(packed['inputs'], blue_first()), inputs

    @functools.cache
    def blue_first() -> bool:
        return gives_bgr(pipeline, bool(model.data_preprocessor.to_rgb))

    has_method = isinstance(model.head, MethodHead)

    def features(inputs: Tensor) -> list[Tensor]:
        return list(model.head.pre_logits(model.extract_feat(inputs)))

    views = None
    if training_only and getattr(model, 'regularizer', None) is not None:
        views = _views(model.regularizer, model, features)
    channels = cfg.model.backbone.get('in_channels', 3)
    return LoadedModel(
        Path(name).stem,
        model,
        (channels, *pipeline_size(pipeline_cfg)),
        features if has_method else None,
        model.head.method if has_method else None,
        read_image,
        list(classes) if classes else None,
        cfg,
        views,
    )


def pipeline_size(pipeline: list[dict]) -> tuple[int, int]:
    """Height and width that a test pipeline ends with: its last crop or resize."""
    for step in reversed(pipeline):
        size = step.get('crop_size') or step.get('scale')
        if isinstance(size, int) and size > 0:
            return size, size
        if isinstance(size, (tuple, list)):
            # mmcv's scale is (width, height), its crop sizes are (height, width)
            height, width = size if 'crop_size' in step else reversed(size)
            return int(height), int(width)
    return 224, 224
