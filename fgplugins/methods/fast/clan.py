"""CLAN's context attention at less cost: what `fgplugins.methods.clan.ContextAttention` runs.

Eqs. 1 to 3 with fewer operations, whatever the number of positions n and channels:

  * Relations of the dot product are associative: (theta^T phi) k / n = theta^T (phi k^T) / n. The
    cheaper order is taken by shape, so that no map is larger than min(n, C_int) squared.
  * Softmax relations cost the same in every order. Where the map of all pairs is large, it is made
    in blocks and never stored; that takes a seventh product of it in a training step.
  * W_g is linear and up-sampling averages, so W_g is applied to the small map first.
  * theta(W_l l) is one linear map: W_l is folded into theta and phi and not applied to a map, where
    there are more positions than that takes.
  * Where there are many positions, no map of theta, phi or k is made: phi k^T comes from L L^T, and
    W_y (phi k^T)^T theta + l is one linear map of l.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['FastContextAttention', 'Gram', 'resize_matrices', 'upsample']

# a map of all pairs with more numbers than this is made in blocks: 64 MB in float32
PAIRS = 2**24


def resize_matrices(x: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """U (h, H) and V (w, W): `resize` of x (N, C, h, w) to (N, C, H, W) is U^T x V."""
    unit = (torch.eye(side, device=like.device, dtype=like.dtype)[None] for side in x.shape[2:])
    U, V = (
        F.interpolate(e, size=side, mode='linear', align_corners=False)[0]
        for e, side in zip(unit, like.shape[2:], strict=True)
    )
    return U, V


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """`resize` as two products, several times faster on a CPU where channels are many."""
    U, V = resize_matrices(x, like)
    return U.T @ (x @ V)


class Gram(torch.autograd.Function):
    """L L^T / n of L (N, C, n); the gradient is one product, where torch would make two."""

    @staticmethod
    def forward(L: Tensor) -> Tensor:
        # by alpha, since in half precision a sum over positions can overflow
        return torch.baddbmm(L.new_zeros(()), L, L.transpose(1, 2), beta=0, alpha=1 / L.shape[2])

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, _: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, g: Tensor) -> Tensor:
        (L,) = ctx.saved_tensors
        g = (g + g.transpose(1, 2)) / L.shape[2]
        return (g @ L.to(g.dtype)).to(L.dtype)


class FastContextAttention(nn.Module):
    """The forward pass of a context attention; the class that inherits it makes the layers."""

    relation: str
    inner_channels: int
    W_l: nn.Conv2d | None
    W_g: nn.Conv2d | None
    theta: nn.Conv2d | None
    phi: nn.Conv2d | None
    W_k: nn.Conv2d
    W_y: nn.Conv2d

    def forward(self, L: Tensor, L_N: Tensor) -> Tensor:
        """The refined map (N, C_s, H, W) of L (N, C_s, H, W) and the top map L^N (N, C_g, h, w)."""
        _, C, H, W = L.shape
        n = H * W
        if self.relation == 'dot' and n > 2 * C:
            return self._by_channels(L, L_N)
        theta, phi = (x.flatten(2) for x in self._embed(L, L_N))  # (N, C_int, n)
        k = self.W_k(L).flatten(2)
        if self.relation != 'dot':
            y = self._softmax_relation(theta, phi, k)
        elif n > self.inner_channels:
            phi_k = torch.bmm(phi, k.transpose(1, 2)) / n  # (N, C_int, C_int)
            y = torch.bmm(phi_k.transpose(1, 2), theta)  # Eqs. 2, 7
        else:
            f = torch.bmm(phi.transpose(1, 2), theta) / n  # (N, n, n), here the smaller one
            y = torch.bmm(k, f)  # Eqs. 2, 7
        return self.W_y(y.unflatten(2, (H, W))) + L  # Eq. 3

    def _softmax_relation(self, theta: Tensor, phi: Tensor, k: Tensor) -> Tensor:
        """Eqs. 2, 5 and 6: y (N, C_int, n) of maps with n positions."""
        N, _, n = k.shape
        # kernels of blocks need theta, phi and k of one width; a compiled graph serves any batch
        large = torch.compiler.is_compiling() or N * n * n > PAIRS
        if large and n > 2 * self.W_k.in_channels and theta.shape == k.shape:
            # they read the channels of a position one after the other
            query, key, value = (
                x.transpose(1, 2).contiguous().unsqueeze(1) for x in (theta, phi, k)
            )
            y = F.scaled_dot_product_attention(query, key, value, scale=1.0)
            return y.squeeze(1).transpose(1, 2)
        f = torch.bmm(theta.transpose(1, 2), phi).softmax(dim=2)  # (N, n, n)
        return torch.bmm(k, f.transpose(1, 2))

    def _by_channels(self, L: Tensor, L_N: Tensor) -> Tensor:
        """`forward` where there are many positions: no map of theta, phi or k is made.

        theta = A_theta L + up(t_theta), phi = A_phi L + up(t_phi) and k = W_k L + b_k are linear in
        L. So phi k^T needs L L^T, which is C x C, and y + l is one linear map of L.
        """
        A, b = self._theta_phi()
        if self.W_l is None:
            t = b.view(1, -1, 1, 1).expand(L.shape[0], -1, 1, 1)  # a map of one position
            A = A.flatten(1)
        else:
            t = F.conv2d(self._top(L_N), A, b)
            A = A.flatten(1) @ self.W_l.weight.flatten(1)
        A_theta, A_phi = A.chunk(2)  # (C_int, C)
        t_theta, t_phi = t.chunk(2, dim=1)  # (N, C_int, h, w)
        U, V = resize_matrices(t, L)
        x = L.flatten(2)
        LL = Gram.apply(x) if torch.is_grad_enabled() else Gram.forward(x)  # (N, C, C)
        # the adjoint of up(), applied to L / n and to ones / n
        L_down = (U @ (L @ (V.T / x.shape[2]))).flatten(2)  # (N, C, h w)
        one_down = (U.mean(1)[:, None] * V.mean(1)).view(-1, 1)
        t_phi = t_phi.flatten(2)
        phi_L = A_phi @ LL + t_phi @ L_down.transpose(1, 2)  # phi L^T / n (N, C_int, C)
        phi_1 = A_phi @ L_down.sum(2, keepdim=True) + t_phi @ one_down  # phi 1 / n (N, C_int, 1)
        phi_k = phi_L @ self.W_k.weight.flatten(1).T + phi_1 * self.W_k.bias  # (N, C_int, C_int)
        W_y_phi_k = self.W_y.weight.flatten(1) @ phi_k.transpose(1, 2)  # (N, C, C_int)
        y = W_y_phi_k @ t_theta.flatten(2) + self.W_y.bias.view(-1, 1)  # (N, C, h w)
        y = (U.T @ (y.unflatten(2, t.shape[2:]) @ V)).flatten(2)
        one = torch.eye(L.shape[1], device=L.device, dtype=L.dtype)
        return torch.baddbmm(y, W_y_phi_k @ A_theta + one, x).view_as(L)  # Eqs. 1 to 3, 7

    def _theta_phi(self) -> tuple[Tensor, Tensor]:
        """Weights (2 C_int, C_s, 1, 1) and biases (2 C_int,) of theta and phi, as one layer."""
        weight = torch.cat([self.theta.weight, self.phi.weight])
        return weight, torch.cat([self.theta.bias, self.phi.bias])

    def _top(self, L_N: Tensor) -> Tensor:
        """What up() is applied to in Eq. 1 (N, C_s, h, w): W_g L^N, with both biases."""
        return F.conv2d(L_N, self.W_g.weight, self.W_g.bias + self.W_l.bias)

    def _embed(self, L: Tensor, L_N: Tensor) -> tuple[Tensor, Tensor]:
        """theta(l^) and phi(l^); l^ itself twice for the plain Gaussian."""
        if self.W_l is None:
            return self.theta(L), self.phi(L)
        top = self._top(L_N)
        if self.theta is None:
            fused = F.conv2d(L, self.W_l.weight) + upsample(top, L)  # Eq. 1
            return fused, fused
        weight, bias = self._theta_phi()
        # folded, W_l is applied to every row of theta and phi; as printed, to every position of
        # the batch. A compiled graph serves any batch, and folds.
        positions = L.shape[0] * L.shape[2] * L.shape[3]
        if torch.compiler.is_compiling() or positions > len(weight):
            folded = (weight.flatten(1) @ self.W_l.weight.flatten(1))[:, :, None, None]
            both = F.conv2d(L, folded) + upsample(F.conv2d(top, weight, bias), L)  # Eq. 1
        else:
            fused = F.conv2d(L, self.W_l.weight) + upsample(top, L)  # Eq. 1
            both = F.conv2d(fused, weight, bias)
        return both.chunk(2, dim=1)
