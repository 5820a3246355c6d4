"""Colour normalisation of small images: brightness locally, colours globally.

Learn to Pay Attention, appendix A.1, normalises colours. Its published code does it as Torch's
examples on CIFAR-10 did: RGB becomes YUV, Y goes through Torch7's
``SpatialContrastiveNormalization(1, image.gaussian1D(7))``, and U and V are reduced to mean 0 and
deviation 1 over all training images. With G * the blur by that Gaussian, zero beyond the borders:

    v = Y - (G * Y) / (G * 1)
    s = sqrt(G * v^2) / (G * 1)
    out = v / max(s, 1e-4)

(G * 1) mends the borders; that it divides the root in s, and not what is under it, is Torch7's.
Below the threshold s is the threshold itself.
"""

from __future__ import annotations

import numpy as np

__all__ = ['locally_normalised', 'rgb_to_yuv']

# Torch7's image.rgb2yuv: rows Y, U and V of red, green and blue
RGB_TO_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]]
)
SIZE = 7
SIGMA = 0.25  # of SIZE: Torch7's default
THRESHOLD = 1e-4  # Torch7's default, for values of 0 to 255


def _gaussian() -> np.ndarray:
    steps = np.arange(SIZE) - SIZE // 2
    kernel = np.exp(-((steps / (SIGMA * SIZE)) ** 2) / 2)
    return kernel / kernel.sum()


KERNEL = _gaussian()


def rgb_to_yuv(image: np.ndarray) -> np.ndarray:
    """An RGB image (H, W, 3) of any scale as YUV, in double precision."""
    return image.astype(np.float64) @ RGB_TO_YUV.T


def locally_normalised(y: np.ndarray) -> np.ndarray:
    """One channel (H, W) less its local mean, by its local deviation, in double precision.

    Double precision is Torch7's, and matters: where an image is even, v is rounding error alone,
    and is divided by the threshold.
    """
    y = y.astype(np.float64)
    ones = _blur(np.ones_like(y))
    v = y - _blur(y) / ones
    s = np.sqrt(_blur(v * v)) / ones
    return v / np.maximum(s, THRESHOLD)


def _blur(image: np.ndarray) -> np.ndarray:
    """The Gaussian along the rows, then along the columns; zeros lie beyond the borders."""
    for _ in range(2):
        width = image.shape[1]
        padded = np.pad(image, ((0, 0), (SIZE // 2, SIZE // 2)))
        image = sum(KERNEL[i] * padded[:, i : i + width] for i in range(SIZE)).T
    return image
