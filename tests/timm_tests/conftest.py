"""Narrows timm's own tests, which run on all models that are registered, to those of fgplugins.

Copied beside an unedited ``test_models.py`` of timm. Our models go by timm's rules for models with
other outputs ("non-standard"), since ``forward_features`` gives a list of maps.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import timm
import torch

import fgplugins  # noqa: F401  (registers the models)

warnings.filterwarnings('ignore')
torch.set_num_threads(1)

list_all = timm.list_models
BUCKETS = os.environ.get('FGPLUGINS_TIMM_BUCKETS', 'fg_models').split()
NON_STANDARD = 'vit_*'  # the first of timm's patterns for models by other rules


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
    composed = 'fg_models' in BUCKETS
    if NON_STANDARD in exclude_filters and composed:
        return []
    if module or (filter and not (NON_STANDARD in filter and composed)):
        return []  # the tests name modules and models of timm's there
    return [n for b in BUCKETS for n in list_all(module=b, pretrained=pretrained, **options)]


timm.list_models = list_ours
