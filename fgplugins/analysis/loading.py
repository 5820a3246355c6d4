"""One way to get a model for the tools: from a config of MMPretrain's kind, or by a timm name."""

from __future__ import annotations

import argparse
import ast
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fgplugins.errors import UserError, did_you_mean
from fgplugins.methods import Method, Regularizer
from fgplugins.utils.modes import in_testing
from fgplugins.utils.shipped import shipped_configs

__all__ = [
    'LoadedModel',
    'add_model_arguments',
    'key_values',
    'load_classifier',
    'load_model',
    'parse_value',
]


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
        data: how images are prepared for a timm model.
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
    data: dict[str, object] | None = None

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


def _img_size(text: str) -> str:
    """``'96'`` as one of the arguments of a timm model."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive number')
    return f'img_size={int(text)}'


def add_model_arguments(parser: argparse.ArgumentParser, checkpoint: bool = False) -> None:
    """How a command line names a model of either zoo."""
    parser.add_argument('model', help='config file (or the name of a shipped one), or a timm model')
    if checkpoint:
        parser.add_argument('checkpoint', help='trained weights')
    parser.add_argument(
        '--model-kwargs',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help='arguments of a timm model, as backbone=resnet18 num_classes=200',
    )
    parser.add_argument(
        '--img-size',
        dest='model_kwargs',
        action='append',
        type=_img_size,
        metavar='N',
        help="side of a timm model's images (what its checkpoint or its settings say)",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='override settings of a config, as model.head.num_classes=200',
    )


def key_values(option: str, items: list[str]) -> dict[str, object]:
    """The ``KEY=VALUE`` of an option.

    Raises:
        UserError: for anything else.
    """
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
    any_method: bool = False,
) -> LoadedModel:
    """Build a model by its timm name or its config, with weights if a checkpoint is given.

    Args:
        name: of the model.
        checkpoint: file of weights.
        model_kwargs: KEY=VALUE of a timm model.
        cfg_options: KEY=VALUE of a config.
        training_only: also load what exists in training only.
        any_method: take the weights of another method, if this one has the same, as gap and siou.

    Raises:
        UserError: if the name is of neither kind, an argument is wrong, or the weights do not fit.
    """
    import timm

    from fgplugins.zoo_timm.names import is_timm_name

    if is_timm_name(name):
        if cfg_options:
            raise UserError(f'--cfg-options is for configs; {name} is a timm model: --model-kwargs')
        kwargs = key_values('--model-kwargs', model_kwargs or [])
        return _from_timm(name, checkpoint, kwargs, training_only, any_method)
    try:
        from fgplugins.zoo_mmpretrain.running import configs
    except ImportError as error:
        raise UserError(
            f'{name!r} is not a timm model, and configs cannot be read: {error}'
        ) from None
    try:
        configs.find_config(name)
    except UserError:
        known = [*shipped_configs(), *timm.list_models()]
        raise UserError(
            f'{name!r} is neither a config (a file, or one of configs/), '
            f'nor a method or another model of timm{did_you_mean(Path(name).stem, known)}'
        ) from None
    if any(item.startswith('img_size=') for item in model_kwargs or []):
        raise UserError(
            f'--img-size is for timm models; {name!r} is a config: its size of images is in '
            'test_dataloader.dataset.pipeline (and model.backbone.img_size, if it has that): '
            '--cfg-options'
        )
    if model_kwargs:
        raise UserError(f'--model-kwargs is for timm models; {name!r} is a config: --cfg-options')
    options = key_values('--cfg-options', cfg_options or [])
    return _from_config(name, checkpoint, options, training_only, any_method)


def _from_timm(
    name: str,
    checkpoint: str | None,
    kwargs: dict[str, object],
    training_only: bool,
    any_method: bool = False,
) -> LoadedModel:
    import timm
    from PIL import Image

    from fgplugins.zoo_timm import ComposedModel, checkpoints

    saved = checkpoints.SavedModel('', {})
    if checkpoint:
        saved = checkpoints.read_checkpoint(checkpoint)
    try:
        if not any_method:
            checkpoints.check_method(saved, name)
        arguments, size = checkpoints.build_arguments(name, saved, kwargs)
        model = timm.create_model(name, **arguments).eval()
        if checkpoint:
            checkpoints.check_weights(model, saved)
            model.load_state_dict(saved.weights)
        check_names(saved.classes, getattr(model, 'num_classes', None), checkpoint)
        data = checkpoints.data_config(model, saved.data, size)
    except UserError:
        raise
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError, OSError) as error:
        raise UserError(f'{name}: {" ".join(str(error).split())[:300]}') from error
    transform = timm.data.create_transform(**data, is_training=False)
    mean, std = (torch.tensor(data[key]).view(-1, 1, 1) for key in ('mean', 'std'))
    channels = data['input_size'][0]

    def read_image(path: str) -> tuple[np.ndarray, Tensor]:
        from fgplugins.data.images import read_image as read_pixels

        mode = {1: 'L', 3: 'RGB'}.get(channels)
        if mode is None:
            raise UserError(f'image {path}: {name} reads {channels} channels, pictures have 1 or 3')
        inputs = transform(Image.fromarray(read_pixels(path, mode)))
        shown = ((inputs * std + mean).clamp(0, 1) * 255).byte()
        return shown.permute(1, 2, 0).numpy(), inputs[None]

    composed = isinstance(model, ComposedModel)
    views = None
    if training_only and composed and model.method.has_regularizer:
        from fgplugins.zoo_timm.task import MethodTask

        if not saved.training_only:
            raise UserError(
                f'checkpoint {checkpoint!r} holds no weights that exist in training only'
            )
        task = MethodTask(model, verbose=False)
        task.load_task_state(saved.training_only)
        views = _views(task.trainable_module.regularizer, model, model.forward_features)
    return LoadedModel(
        name,
        model,
        tuple(data['input_size']),
        model.forward_features if composed else None,
        model.method if composed else None,
        read_image,
        saved.classes,
        views=views,
        data=data,
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


def check_names(classes: Sequence[str] | None, count: int | None, checkpoint: str | None) -> None:
    """Refuse names of classes that are not those of a model's scores.

    Raises:
        UserError: if there are more or fewer of them, or one stands twice.
    """
    if not classes:
        return
    twice, times = Counter(classes).most_common(1)[0]
    if times > 1:
        raise UserError(f'checkpoint {checkpoint!r} is damaged: its class {twice!r} stands twice')
    if count is not None and count != len(classes):
        raise UserError(
            f'checkpoint {checkpoint!r} is of {len(classes)} classes, the model has {count}'
        )


def _from_config(
    name: str,
    checkpoint: str | None,
    options: dict[str, object],
    training_only: bool,
    any_method: bool = False,
) -> LoadedModel:
    from fgplugins.zoo_mmpretrain.running import checkpoints, configs

    cfg = configs.load_config(
        argparse.Namespace(config=name, cfg_options=options, work_dir=None, data_root=None)
    )
    content = None
    if checkpoint:
        content = checkpoints.read_checkpoint(checkpoint)
        classes = checkpoints.class_names(content)
        head = cfg.model.get('head') or {}
        if classes and 'num_classes' in head and 'model.head.num_classes' not in options:
            head.num_classes = len(classes)
    return load_classifier(Path(name).stem, cfg, checkpoint, content, training_only, any_method)


def load_classifier(
    name: str,
    cfg: object,
    checkpoint: str | None = None,
    content: dict | None = None,
    training_only: bool = False,
    any_method: bool = False,
) -> LoadedModel:
    """Build the model of a config of MMPretrain's kind.

    Args:
        name: what reports call it.
        cfg: the config, an mmengine ``Config``.
        checkpoint: file of weights; without it those of the config.
        content: what was read of the file.
        training_only: also load what exists in training only.
        any_method: take the weights of another method, if this one has the same.

    Raises:
        UserError: if it cannot be built, has no test pipeline, or the weights do not fit.
    """
    from mmengine.dataset import Compose
    from mmpretrain.registry import TRANSFORMS

    from fgplugins.zoo_mmpretrain import FineGrainedClassifier, MethodHead
    from fgplugins.zoo_mmpretrain.backbone_maps import ask_image_channels
    from fgplugins.zoo_mmpretrain.colours import as_rgb, gives_bgr
    from fgplugins.zoo_mmpretrain.running import checkpoints, models
    from fgplugins.zoo_mmpretrain.running.errors import user_errors
    from fgplugins.zoo_mmpretrain.running.initial_weights import drop_pretrained
    from fgplugins.zoo_mmpretrain.running.settings import innermost_datasets, short_type

    if not isinstance(cfg.get('model'), dict):
        raise UserError(f'{name}: model={cfg.get("model")!r}: must be a dict with a type')
    if short_type(cfg.model) == FineGrainedClassifier.__name__:
        cfg.model.deployed = not training_only
    if content is not None:
        drop_pretrained(cfg.model)  # the checkpoint has all of its own
    model = models.check_model(cfg)
    model.eval()
    head, classes = getattr(model, 'head', None), None
    if content is not None:
        classes = checkpoints.class_names(content)
        check_names(classes, getattr(head, 'num_classes', None), checkpoint)
        checkpoints.check_checkpoint(content, checkpoint, model, any_method=any_method)
        weights = checkpoints.weights_of(content)
        model.load_state_dict(weights, strict=isinstance(model, FineGrainedClassifier))

    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not loader:
        raise UserError(f'{name}: the config has neither test_dataloader nor val_dataloader')
    pipeline_cfg = innermost_datasets(loader.dataset)[0].pipeline

    @functools.cache
    def pipeline() -> Compose:
        with user_errors('test pipeline'):
            return Compose([TRANSFORMS.build(step) for step in pipeline_cfg])

    def read_image(path: str) -> tuple[np.ndarray, Tensor]:
        packed = pipeline()({'img_path': str(path)})
        batch = {'inputs': [packed['inputs']], 'data_samples': [packed['data_samples']]}
        inputs = model.data_preprocessor(batch, training=False)['inputs']
        return as_rgb(packed['inputs'], blue_first()), inputs

    @functools.cache
    def blue_first() -> bool:
        return gives_bgr(pipeline(), bool(model.data_preprocessor.to_rgb))

    has_method = isinstance(head, MethodHead)

    def features(inputs: Tensor) -> list[Tensor]:
        return list(model.head.pre_logits(model.extract_feat(inputs)))

    views = None
    if training_only and getattr(model, 'regularizer', None) is not None:
        views = _views(model.regularizer, model, features)
    stated = (cfg.model.get('backbone') or {}).get('in_channels')
    channels = stated or ask_image_channels(model)
    return LoadedModel(
        name,
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
