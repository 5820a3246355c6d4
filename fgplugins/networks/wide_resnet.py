"""WRN-50-4: the bottleneck ResNet-50 with inner layers four times as wide.

Zagoruyko and Komodakis, *Wide Residual Networks*, BMVC 2016, https://arxiv.org/abs/1605.07146,
section 3 (ImageNet). timm has the factor 2 only.

The WARN paper writes WRN-50-4 (section 4.4), but the parameters that its Table 4 stands for are
those of the factor 2, timm's `wide_resnet50_2`, whose ImageNet weights are published
(docs/complexity.md). This is the network that the text names; no weights of it are published in a
form that timm can load.
"""

from __future__ import annotations

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet

__all__ = ['wide_resnet50_4']

default_cfgs = generate_default_cfgs(
    {
        'wide_resnet50_4.untrained': {
            'num_classes': 1000,
            'input_size': (3, 224, 224),
            'pool_size': (7, 7),
            'crop_pct': 0.875,
            'interpolation': 'bilinear',
            'mean': (0.485, 0.456, 0.406),
            'std': (0.229, 0.224, 0.225),
            'first_conv': 'conv1',
            'classifier': 'fc',
            'license': 'apache-2.0',
        }
    }
)


@register_model
def wide_resnet50_4(pretrained: bool = False, **kwargs: object) -> ResNet:
    """ResNet-50 with 256, 512, 1024 and 2048 inner channels: 223.4 M parameters."""
    arguments = {'block': Bottleneck, 'layers': (3, 4, 6, 3), 'base_width': 64 * 4}
    return build_model_with_cfg(ResNet, 'wide_resnet50_4', pretrained, **{**arguments, **kwargs})
