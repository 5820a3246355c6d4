"""Networks the papers use and the zoos lack, written and registered as timm models.

MMPretrain configs reach them through its ``TIMMBackbone`` with ``features_only=True``.
"""

from fgplugins.networks.att_vgg import AttentionVGG
from fgplugins.networks.cifar_resnet import CifarResNet
from fgplugins.networks.cifar_wrn import CifarWideResNet
from fgplugins.networks.clutter_cnn import ClutterCNN
from fgplugins.networks.wide_resnet import wide_resnet50_4

__all__ = ['AttentionVGG', 'CifarResNet', 'CifarWideResNet', 'ClutterCNN', 'wide_resnet50_4']
