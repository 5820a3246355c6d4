"""Any network of timm's with its own head, for both zoos; and the papers' own, which timm lacks.

`adapter` builds a network, finds out how it is read, and takes its classifier out. The papers' own
networks are registered as timm models; MMPretrain configs reach all of them by ``TimmNetwork``.
"""

from fgplugins.networks.att_vgg import AttentionVGG
from fgplugins.networks.cifar_resnet import CifarResNet
from fgplugins.networks.cifar_vgg import CifarVGG
from fgplugins.networks.cifar_wrn import CifarWideResNet
from fgplugins.networks.clutter_cnn import ClutterCNN, ClutterCNN2FC
from fgplugins.networks.wide_resnet import wide_resnet50_4

__all__ = [
    'AttentionVGG',
    'CifarResNet',
    'CifarVGG',
    'CifarWideResNet',
    'ClutterCNN',
    'ClutterCNN2FC',
    'wide_resnet50_4',
]
