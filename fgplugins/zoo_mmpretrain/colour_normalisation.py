"""The colour normalisation of Learn to Pay Attention as a step of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from fgplugins.data.local_contrast import locally_normalised, rgb_to_yuv
from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.registry import TRANSFORMS, register

__all__ = ['LocalContrastYUV']


class LocalContrastYUV(BaseTransform):
    """A BGR image as YUV: Y normalised locally, U and V globally.

    See `fgplugins.data.local_contrast`. It comes after resizing and before crops with padding, as
    in the published code, where what is padded is zero in these colours; flips from left to right
    may come before or after. The model must leave alone what it gives:
    ``data_preprocessor=dict(mean=None, std=None, to_rgb=False)``. Pictures of attention show the
    image as it is without this step.

    Args:
        mean: of U and of V over the training images, of values of 0 to 255.
        std: their deviations. The defaults were measured on the 50,000 training images of
            CIFAR-10 re-encoded as JPEG, which are not quite the published pixels.

    Raises:
        UserError: if the numbers are none, or an image has other than three channels.
    """

    makes_no_picture = True

    def __init__(
        self,
        mean: Sequence[float] = (-4.297, 2.344),
        std: Sequence[float] = (13.047, 16.115),
    ) -> None:
        if len(mean) != 2 or len(std) != 2 or min(std) <= 0:
            raise UserError(
                f'LocalContrastYUV: mean={mean}, std={std}: must be two numbers each, of U and of '
                'V, the deviations above 0'
            )
        self.mean, self.std = tuple(mean), tuple(std)

    def transform(self, results: dict) -> dict:
        """From ``img`` (H, W, 3), blue first, 0 to 255, to YUV in single precision."""
        image = results['img']
        if image.ndim != 3 or image.shape[2] != 3:
            raise UserError(
                f'LocalContrastYUV: image of shape {image.shape} is not in colour: load it by '
                "dict(type='LoadImage')"
            )
        yuv = rgb_to_yuv(image[..., ::-1])
        yuv[..., 0] = locally_normalised(yuv[..., 0])
        yuv[..., 1:] = (yuv[..., 1:] - self.mean) / self.std
        results['img'] = yuv.astype(np.float32)
        return results

    def __repr__(self) -> str:
        return f'LocalContrastYUV(mean={self.mean}, std={self.std})'


register(TRANSFORMS, LocalContrastYUV)
