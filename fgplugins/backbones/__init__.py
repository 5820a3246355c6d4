"""Networks the papers use and the zoos lack, written and registered as timm models.

MMPretrain configs reach them through its ``TIMMBackbone`` with ``features_only=True``.
"""

from fgplugins.backbones.att_vgg import AttentionVGG
from fgplugins.backbones.cifar_resnet import CifarResNet
from fgplugins.backbones.cifar_wrn import CifarWideResNet
from fgplugins.backbones.clutter_cnn import ClutterCNN
from fgplugins.backbones.wide_resnet import wide_resnet50_4

__all__ = ['AttentionVGG', 'CifarResNet', 'CifarWideResNet', 'ClutterCNN', 'wide_resnet50_4']
