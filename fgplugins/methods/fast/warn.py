"""WARN's modules, pooled before they are projected: what `fgplugins.methods.warn` is made of.

Eqs. 2 and 5 are linear in Z, so the average under a mask can be taken before the convolution:

    sum_x H_k(x) sum_d W_k(d) Z(x - d) = sum_d W_k(d) P_k(d),   P_k(d) = sum_x H_k(x) Z(x - d)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ['convolve_to_few', 'masked_patches']


def convolve_to_few(Z: Tensor, weight: Tensor, size: int) -> Tensor:
    """A convolution with few maps K to come out, several times faster on a CPU.

    Kernels of few maps leave most of a vector register empty. Here one matrix product multiplies
    every position, then the d d small results are moved onto each other.

    Args:
        Z: features (N, C, H, W).
        weight: (K, d d, C), as that of a `Convolution`.
        size: d.

    Returns:
        (N, K, H, W).
    """
    N, C, H, W = Z.shape
    kernels = weight.view(-1, C).expand(N, -1, -1)  # (N, K d d, C)
    products = torch.bmm(kernels, Z.flatten(2))  # (N, K d d, H W)
    return F.fold(products, (H, W), size, padding=size // 2)


def masked_patches(H: Tensor, Z: Tensor, size: int) -> Tensor:
    """P_k(d) = sum_x H_k(x) Z(x - d) for every offset d of a ``size`` x ``size`` kernel.

    Args:
        H: masks (N, K, H, W).
        Z: features (N, C, H, W), taken as zero outside the map.
        size: odd side of the kernel.

    Returns:
        (N, K, size * size * C), ordered as the weights of a `Convolution` are.
    """
    # P_k(d) = sum_y H_k(y + d) Z(y): it is the K small masks that move
    moved = F.unfold(H, size, padding=size // 2)  # (N, K d d, H W)
    return torch.bmm(moved, Z.flatten(2).transpose(1, 2)).view(*H.shape[:2], -1)
