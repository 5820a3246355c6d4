"""A trained model as a folder that timm loads: ``timm.create_model('local-dir:DIR')``.

The same files, put on a hub, load by ``hf-hub:owner/name``. A method that is the network in testing
(`gap`, `siou`, `art`) is published as that, which timm loads by itself.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from torch import nn

from fgplugins.errors import UserError, one_line
from fgplugins.networks.weights import first_difference
from fgplugins.serving.card import model_card
from fgplugins.serving.models import method_of, network_of
from fgplugins.serving.preprocessing import as_timm_data, describe_preprocessing
from fgplugins.utils.loaded import LoadedModel
from fgplugins.zoo_timm import ComposedModel
from fgplugins.zoo_timm.deploy import deploy
from fgplugins.zoo_timm.fg_models import OF_THE_WEIGHTS

__all__ = ['as_timm_model', 'publish']

# settings of MMPretrain's TimmClassifier that are not the network's
OF_THE_CLASSIFIER = (
    'type', 'loss', 'train_cfg', 'with_cp', 'data_preprocessor', 'init_cfg', 'model_name',
    'pretrained', 'checkpoint_path',
)  # fmt: skip
# settings of a head that are not the method's
OF_THE_HEAD = (
    'type', 'num_classes', 'in_channels', 'taps', 'topk', 'cal_acc', 'init_cfg',
    'embedding_channels',
)  # fmt: skip


def as_timm_model(loaded: LoadedModel) -> nn.Module:
    """A model of either zoo as one of timm's, with the same scores bit for bit.

    Raises:
        UserError: for a network of MMPretrain's own, which timm has not.
    """
    model = loaded.model if loaded.config is None else _from_config(loaded)
    multi_label = loaded.method is not None and loaded.method.multi_label
    if isinstance(model, ComposedModel) and model.method.is_network and not multi_label:
        model = deploy(model)[0]
    name = getattr(model, 'backbone_name', '')
    if name.startswith('local-dir:'):
        raise UserError(f'{loaded.name} stands on {name!r}, a folder that others do not have')
    # a tag, a licence, an origin are those of the weights that training started from
    kept = {k: v for k, v in model.pretrained_cfg.items() if k not in OF_THE_WEIGHTS}
    model.pretrained_cfg = {**kept, 'architecture': model.pretrained_cfg['architecture']}
    return model.eval()


def _from_config(loaded: LoadedModel) -> nn.Module:
    """The timm model that has the weights of a classifier of MMPretrain's.

    Its ``backbone.timm_model`` is the composed model's ``backbone``, its ``head.method`` the
    ``method``.
    """
    from mmpretrain.models import TimmClassifier

    from fgplugins.zoo_mmpretrain import FineGrainedClassifier
    from fgplugins.zoo_mmpretrain.deploy import OF_THE_BACKBONE
    from fgplugins.zoo_mmpretrain.timm_network import TimmNetwork

    model, settings = loaded.model, loaded.config.model.to_dict()
    if isinstance(model, TimmClassifier):
        kept = {k: v for k, v in settings.items() if k not in OF_THE_CLASSIFIER}
        return _built(loaded, settings['model_name'], kept, model.model.state_dict())
    method, backbone = method_of(loaded), getattr(model, 'backbone', None)
    fits = isinstance(model, FineGrainedClassifier) and isinstance(backbone, TimmNetwork)
    if not fits or method is None or model.with_neck:
        raise UserError(
            f"{loaded.name} is a {type(model).__name__} on MMPretrain's own "
            f'{type(backbone).__name__}, whose weights no timm model has: train it with --backbone '
            '(a network of timm), or use tools/export.py, which takes any'
        )
    own = settings['backbone']
    arguments = {
        'backbone': backbone.model_name,
        'num_classes': loaded.method.num_classes,
        'in_chans': backbone.in_channels,
        'levels': list(backbone.reading.levels),
        **({'head': own['head']} if own.get('head') else {}),
        **{k: v for k, v in settings['head'].items() if k not in OF_THE_HEAD},
        **{k: v for k, v in own.items() if k not in OF_THE_BACKBONE},
    }
    weights = {f'backbone.{k}': v for k, v in backbone.timm_model.state_dict().items()}
    weights |= {f'method.{k}': v for k, v in loaded.method.state_dict().items()}
    return _built(loaded, method, arguments, weights)


def _built(
    loaded: LoadedModel, name: str, arguments: dict[str, Any], weights: dict[str, torch.Tensor]
) -> nn.Module:
    """A timm model with these weights, if its scores are those of the classifier.

    Raises:
        UserError: if they are not.
    """
    model = timm.create_model(name, **arguments).eval()
    reason = first_difference(weights, model)
    if reason is None:
        model.load_state_dict(weights)
        images = _noise(loaded)
        with torch.inference_mode():
            if torch.equal(model(images), loaded.model(images)):
                return model
        reason = 'its scores differ'
    raise UserError(f'{loaded.name} has no equal among timm models: {name} as built here: {reason}')


def _noise(loaded: LoadedModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *loaded.input_size, generator=generator)


def publish(loaded: LoadedModel, folder: str | Path, results: list[tuple[str, str]]) -> nn.Module:
    """Write a model's folder: weights as safetensors, timm's config.json, and a card.

    Args:
        loaded: the model, on the CPU.
        folder: to make.
        results: what is known of its accuracy, in words and numbers.

    Returns:
        The published model.

    Raises:
        UserError: if timm has no model like it, or what is loaded gives other scores.
    """
    folder = Path(folder)
    model = as_timm_model(loaded)
    description = describe_preprocessing(loaded)
    data = loaded.data
    if data is None:
        data = as_timm_data(description, loaded.name)
    multi_label = loaded.method is not None and loaded.method.multi_label
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent) as unfinished:
        made = Path(unfinished) / folder.name
        try:
            save_for_hf(
                model,
                made,
                model_config={'label_names': loaded.classes} if loaded.classes else None,
                safe_serialization=True,
                data_config={**data, 'input_size': tuple(data['input_size'])},
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f'{loaded.name} cannot be saved: {one_line(error, 200)}') from error
        again = timm.create_model(f'local-dir:{made}', pretrained=True).eval()
        images = _noise(loaded)
        with torch.inference_mode():
            difference = (again(images) - loaded.model(images)).abs().max()
        if difference != 0:
            raise UserError(
                f'{folder} is not written: the model as loaded from it gives scores that differ by '
                f'{difference:.1e}'
            )
        text = model_card(
            folder.name,
            method=method_of(loaded),
            network=network_of(loaded),
            composed=isinstance(model, ComposedModel),
            classes=loaded.classes,
            description=description,
            multi_label=multi_label,
            results=results,
        )
        (made / 'README.md').write_text(text, encoding='utf-8')
        if folder.is_dir():
            folder.rmdir()  # an empty one
        shutil.move(made, folder)
    return model
