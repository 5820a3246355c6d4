"""Narrows timm's own tests, which run on all models that are registered, to those of fgplugins.

Copied beside an unedited ``test_models.py`` of timm. Methods that are the network (gap, siou, art)
go by timm's standard rules. The others, whose ``forward_features`` gives a list of maps, go by its
rules for models with other outputs ("non-standard").
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import timm
import torch

import fgplugins
from fgplugins.zoo_timm.fg_models import method_of

warnings.filterwarnings('ignore')
torch.set_num_threads(1)

list_all = timm.list_models
BUCKETS = os.environ.get('FGPLUGINS_TIMM_BUCKETS', 'fg_models').split()
NON_STANDARD = 'vit_*'  # the first of timm's patterns for models by other rules
INTERMEDIATES = 'vision_transformer'  # the first of its modules that give intermediate maps


def is_standard(name: str) -> bool:
    """Whether a model gives its scores from one map, as a network does; plain networks do."""
    method = method_of(name)
    return method is None or fgplugins.get_method(method).is_network


def list_ours(
    filter: str | Sequence[str] = '',
    module: str | Sequence[str] = '',
    pretrained: bool = False,
    exclude_filters: str | Sequence[str] = '',
    name_matches_cfg: bool = False,
    include_tags: bool | None = None,
) -> list[str]:
    """As timm's ``list_models``, of our modules alone."""
    options = {'name_matches_cfg': name_matches_cfg, 'include_tags': include_tags}
    ours = [n for b in BUCKETS for n in list_all(module=b, pretrained=pretrained, **options)]
    if NON_STANDARD in filter:
        return [n for n in ours if not is_standard(n)]
    if filter or (module and INTERMEDIATES not in module):
        return []  # the tests name modules and models of timm's there
    return [n for n in ours if is_standard(n)] if NON_STANDARD in exclude_filters else ours


timm.list_models = list_ours
