"""The model of a config: built once, and run on one image, before anything is written."""

from __future__ import annotations

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmpretrain.registry import MODELS
from torch import nn

from fgplugins.errors import UserError
from fgplugins.utils.modes import in_testing
from fgplugins.zoo_mmpretrain.running.checkpoints import harmless_checkpoints
from fgplugins.zoo_mmpretrain.running.errors import one_line_with_hint, user_errors

__all__ = ['check_input', 'check_model']


def check_model(cfg: Config) -> nn.Module:
    """Build the model once, before the runner creates its folder.

    Raises:
        UserError: if the config's model cannot be built.
    """
    model_cfg = ConfigDict(cfg.model.to_dict())
    if cfg.get('data_preprocessor'):
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    with harmless_checkpoints(), user_errors('model'):
        return MODELS.build(model_cfg)


def check_input(model: nn.Module, dataset: object) -> None:
    """Run the backbone on one image as the pipeline gives it.

    Raises:
        UserError: if it does not take images of that size or number of channels.
    """
    with user_errors('data'):
        batch = pseudo_collate([dataset[0]])
        inputs = model.data_preprocessor(batch, training=False)['inputs']
    try:
        with torch.no_grad(), in_testing(model):
            (model.extract_feat if hasattr(model, 'extract_feat') else model)(inputs)
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        reason = one_line_with_hint(error)[:200].rstrip('.')
        raise UserError(
            f'model.backbone does not run on images of {tuple(inputs.shape[1:])}, as the pipeline '
            f'gives them: {reason}; give other sizes in the pipelines (scale, crop_size), or '
            f'model.backbone.img_size={inputs.shape[-1]} where the network takes it'
        ) from error
