"""The MMPretrain side: heads, classifier, losses, data sets, transforms, metrics and hooks.

The only room that knows MMPretrain. Configs bring it in by

    custom_imports = dict(imports=['fgplugins.zoo_mmpretrain'])
"""

import warnings

from fgplugins.zoo_mmpretrain.first_import import import_mmpretrain
from fgplugins.zoo_mmpretrain.installation import check_installation

check_installation()
# about a compiled operator that no method needs; mmcv says it at every start
warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
# the timm models first: MMPretrain tries to import timm, and hides why that fails
import fgplugins.networks  # noqa: E402, F401

import_mmpretrain()

from fgplugins.zoo_mmpretrain.classifier import FineGrainedClassifier  # noqa: E402
from fgplugins.zoo_mmpretrain.colour_normalisation import LocalContrastYUV  # noqa: E402
from fgplugins.zoo_mmpretrain.datasets import ClutteredDigits, FineGrainedImages  # noqa: E402
from fgplugins.zoo_mmpretrain.heads import MethodHead, MultiBranchHead  # noqa: E402
from fgplugins.zoo_mmpretrain.hooks import (  # noqa: E402
    EpochSeedHook,
    FiniteGradientHook,
    RestrictionScheduleHook,
    WorkFolderHook,
)
from fgplugins.zoo_mmpretrain.hub import register_configs  # noqa: E402
from fgplugins.zoo_mmpretrain.losses import (  # noqa: E402
    AttentionConsistencyLoss,
    AttentionRestrictionLoss,
    ContrastiveReinforcementLoss,
    MaskDiversityLoss,
    SoftIoULoss,
)
from fgplugins.zoo_mmpretrain.metrics import MultiLabelAUC  # noqa: E402
from fgplugins.zoo_mmpretrain.necks import CLANNeck  # noqa: E402
from fgplugins.zoo_mmpretrain.optim import AutocastOptimWrapper  # noqa: E402
from fgplugins.zoo_mmpretrain.pictures import AttentionMapHook  # noqa: E402
from fgplugins.zoo_mmpretrain.timm_network import TimmNetwork  # noqa: E402
from fgplugins.zoo_mmpretrain.tracking import MLflowBackend, WandbBackend  # noqa: E402
from fgplugins.zoo_mmpretrain.transforms import CornerCrop, CropToBox, LoadImage  # noqa: E402

__all__ = [
    'AttentionConsistencyLoss',
    'AttentionMapHook',
    'AttentionRestrictionLoss',
    'AutocastOptimWrapper',
    'CLANNeck',
    'ClutteredDigits',
    'ContrastiveReinforcementLoss',
    'CornerCrop',
    'CropToBox',
    'EpochSeedHook',
    'FineGrainedClassifier',
    'FineGrainedImages',
    'FiniteGradientHook',
    'LoadImage',
    'LocalContrastYUV',
    'MLflowBackend',
    'MaskDiversityLoss',
    'MethodHead',
    'MultiBranchHead',
    'MultiLabelAUC',
    'RestrictionScheduleHook',
    'SoftIoULoss',
    'TimmNetwork',
    'WandbBackend',
    'WorkFolderHook',
    'register_configs',
]
