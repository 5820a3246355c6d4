"""ICASC: the attention of an image's class and of the class it is confused with are kept apart.

Wang, Wu, Karanam, Peng, Singh, Liu and Metaxas, *Sharpen Focus: Learning with Attention
Separability and Consistency*, ICCV 2019, https://arxiv.org/abs/1811.07484. F is a feature map, Y^c
the score of class c, Z = HW, K the channels of F. Where the network looks for class c:

    A_gradcam = ReLU(sum_k (1/Z sum_ij dY^c/dF^k_ij) F^k)                  (1, 2)
    A_ch = 1/Z ReLU(sum_k (sum_ij ReLU(dY^c/dF^k_ij)) F^k)                 (3, 4)
    A_px = ReLU(1/K sum_k dY^c/dF^k * F^k)                                 (5)

A^T is that of the target, A^Conf that of the most confusing class, A^last and A^in those of the
target at the last and at an inner level:

    sIoU = 2 sum_ij min(A^T, A^Conf) Mask / sum_ij (A^T + A^Conf)          (6)
    Mask = 1 / (1 + exp(-omega (A^last - sigma))),  sigma = 0.55 max A^last   (7)
    L_ac = alpha - sum_ij A^in Mask / sum_ij A^in                          (8)
    L = L_cls + sIoU_inner + sIoU_last + L_ac                              (9)

Training differs, the network does not: tested and deployed it is the network with its classifier.

What is computed differently, all of it exact:
  * Behind average pooling and a linear layer dY^c/dF^k is the classifier's weight W_ck / Z, so the
    last level needs no backward pass: A_ch = ReLU(sum_k ReLU(W_ck) F^k) / Z,
    A_px = ReLU(sum_k W_ck F^k) / (Z K).
  * A convolution's second derivative is computed as a weight gradient is
    (`fgplugins.methods.fast.second_order`).
  * The inner level's gradients start from the last map, at W_ck / Z; in a network with more than
    pooling there, from its embedding, and the same product gives both levels': one vector-Jacobian
    product a class through the layers above the inner level, and no others.

Deviations and decisions where the paper is silent:
  * Every A is divided by its largest value in the image; omega = 100 has no meaning otherwise. An
    empty map stays empty, and adds nothing to any term.
  * The confusing class is the highest-scoring one that is not the target's.
  * The mask is made at the last level and resized bilinearly to the inner one. It is
    differentiated like all else, so that L_ac and sIoU also train A^last through it;
    ``detach_mask=True`` takes it as constant.
  * alpha is 1: L_ac is then the share of the inner attention that lies outside the mask.
  * Several labels (section 4.3): dY^c becomes the derivative of the sum of the labels' scores, and
    L_cls the multi-label soft margin. Soft labels (Mixup) weight their scores.
  * Under batch normalisation an image's gradient has a share of the others'; it is left in.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fgplugins.methods.base import Given, Network
from fgplugins.methods.fast.second_order import input_gradients_only, second_order_convolutions
from fgplugins.methods.gap import GAP
from fgplugins.methods.layers import score_gradient
from fgplugins.methods.registry import register_method

__all__ = [
    'KINDS',
    'SIoU',
    'attention_consistency',
    'class_attention',
    'last_class_attention',
    'normalized',
    'resize_mask',
    'soft_iou',
    'target_region',
]

KINDS = ('channel', 'pixel', 'gradcam')
EPS = 1e-10


def class_attention(feature: Tensor, gradient: Tensor, kind: str) -> Tensor:
    """A (N, H, W) of a map F (N, C, H, W) and the gradient dY/dF of a score, alike in shape."""
    if kind == 'pixel':
        return (gradient * feature).mean(dim=1).relu()  # Eq. 5
    alpha = (gradient.relu() if kind == 'channel' else gradient).mean(dim=(2, 3))  # Eqs. 3, 2
    return torch.einsum('nc,nchw->nhw', alpha, feature).relu()  # Eqs. 4, 1


def last_class_attention(feature: Tensor, weight: Tensor, kind: str) -> Tensor:
    """`class_attention` of the map under average pooling and a linear layer.

    Args:
        feature: F (N, C, H, W).
        weight: the linear layer's weights (N, C) of each image's class.
        kind: 'channel' | 'pixel' | 'gradcam'.
    """
    _, C, H, W = feature.shape
    w = weight.relu() if kind == 'channel' else weight
    A = torch.einsum('nc,nchw->nhw', w, feature).relu() / (H * W)  # Eqs. 4, 1
    return A / C if kind == 'pixel' else A  # Eq. 5


def normalized(A: Tensor) -> Tensor:
    """A (N, H, W) divided by its largest value in each image; an empty map stays empty."""
    return A / A.amax(dim=(1, 2), keepdim=True).clamp_min(EPS)


def target_region(A_last: Tensor, omega: float = 100.0, sigma: float = 0.55) -> Tensor:
    """Mask (N, H, W) of the target's attention at the last level (Eq. 7).

    Args:
        A_last: (N, H, W), its largest value in each image about 1.
        omega: how steep the threshold is.
        sigma: the threshold, as a share of the largest value.
    """
    threshold = sigma * A_last.amax(dim=(1, 2), keepdim=True)
    return torch.sigmoid(omega * (A_last - threshold))  # Eq. 7


def soft_iou(A_T: Tensor, A_Conf: Tensor, mask: Tensor) -> Tensor:
    """Soft IoU (N,) of two stacks of maps inside a mask, each (N, H, W) (Eq. 6)."""
    shared = (torch.minimum(A_T, A_Conf) * mask).sum(dim=(1, 2))
    return 2 * shared / (A_T + A_Conf).sum(dim=(1, 2)).clamp_min(EPS)  # Eq. 6


def attention_consistency(A_in: Tensor, mask: Tensor, alpha: float = 1.0) -> Tensor:
    """L_ac (N,) of inner maps (N, H, W) and masks alike; 0 for an empty map (Eq. 8)."""
    total = A_in.sum(dim=(1, 2)).clamp_min(EPS)
    return (A_in * (alpha - mask)).sum(dim=(1, 2)) / total  # Eq. 8


def resize_mask(mask: Tensor, like: Tensor) -> Tensor:
    """A mask (N, H, W), resized bilinearly to the maps (N, h, w)."""
    size = like.shape[1:]
    return F.interpolate(mask[:, None], size, mode='bilinear', align_corners=False).squeeze(1)


def full_precision(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


@register_method('siou')
class SIoU(GAP):
    """The network itself, trained to look elsewhere for the class that it confuses.

    Args:
        in_channels: channels of the inner and of the last map; the last one is classified.
        num_classes: Y.
        kind: of the attention: 'channel' (Eq. 4) | 'pixel' (Eq. 5) | 'gradcam' (Eqs. 1, 2).
        omega: steepness of the mask.
        sigma: threshold of the mask, as a share of the largest attention.
        alpha: of Eq. 8.
        inner_weight: of sIoU at the inner level; all three are 1 in the paper, 0 leaves a term out.
        last_weight: of sIoU at the last level.
        consistency_weight: of L_ac.
        multi_label: an image can have several classes (section 4.3).
        detach_mask: no term is differentiated through the mask of Eq. 7.
        embedding_channels: see `GAP`.

    Raises:
        ValueError: unless there are two maps, or for a value outside the documented ones.
    """

    default_taps = 2
    needs_gradient_path = True
    head_names = ('predicted', 'rival')
    questions = ('classes',)

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        kind: str = 'channel',
        omega: float = 100.0,
        sigma: float = 0.55,
        alpha: float = 1.0,
        inner_weight: float = 1.0,
        last_weight: float = 1.0,
        consistency_weight: float = 1.0,
        multi_label: bool = False,
        detach_mask: bool = False,
        *,
        embedding_channels: int | None = None,
    ) -> None:
        super().__init__(in_channels, num_classes, embedding_channels, multi_label=multi_label)
        if kind not in KINDS:
            raise ValueError(f'SIoU: kind={kind!r}: must be one of {", ".join(KINDS)}')
        if self.taps != 2:
            raise ValueError(
                f'SIoU: in_channels={list(in_channels)}: reads 2 maps, an inner one and the last'
            )
        self.kind, self.omega, self.sigma, self.alpha = kind, omega, sigma, alpha
        self.weights = {
            'siou_inner': inner_weight,
            'siou_last': last_weight,
            'consistency': consistency_weight,
        }
        self.detach_mask = detach_mask

    def loss(
        self, features: Sequence[Tensor], target: Tensor, embedding: Tensor | None = None
    ) -> dict[str, Tensor]:
        """L_cls as ``ce`` (or ``soft_margin``), ``siou_inner``, ``siou_last``, ``consistency``."""
        z = self.embed(features, embedding)
        scores = self.network_scores(z)
        terms = self.classification_loss(scores, target)
        with torch.autocast(scores.device.type, enabled=False):
            separation = self.separation(features, full_precision(scores.detach()), target, z)
        terms |= {name: self.weights[name] * value for name, value in separation.items()}
        return terms

    def separation(
        self, features: Sequence[Tensor], scores: Tensor, target: Tensor, z: Tensor
    ) -> dict[str, Tensor]:
        """The unweighted terms of Eqs. 6 and 8 that have a weight."""
        wanted = [name for name, weight in self.weights.items() if weight]
        if not wanted:
            return {}
        of_T = {'last'} if wanted == ['siou_last'] else {'inner', 'last'}
        of_Conf = {name.removeprefix('siou_') for name in wanted if name != 'consistency'}
        d_T, d_Conf = self.directions(scores, target)
        graph = torch.is_grad_enabled()
        A_T, A_Conf = (
            {level: normalized(A) for level, A in found.items()}
            for found in self.class_attentions(features, [(d_T, of_T), (d_Conf, of_Conf)], z, graph)
        )
        mask = target_region(A_T['last'], self.omega, self.sigma)  # Eq. 7
        if self.detach_mask:
            mask = mask.detach()
        terms = {}
        if 'siou_last' in wanted:
            terms['siou_last'] = soft_iou(A_T['last'], A_Conf['last'], mask).mean()
        if 'inner' not in of_T:
            return terms
        mask = resize_mask(mask, A_T['inner'])
        if 'siou_inner' in wanted:
            terms['siou_inner'] = soft_iou(A_T['inner'], A_Conf['inner'], mask).mean()
        if 'consistency' in wanted:
            terms['consistency'] = attention_consistency(A_T['inner'], mask, self.alpha).mean()
        return terms

    def directions(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Which scores A^T and A^Conf are derivatives of: weights (N, Y) of each.

        A row of zeros where an image has no such class.
        """
        if target.ndim == 1:
            target = F.one_hot(target, self.num_classes)
        target = target.to(scores.dtype)
        # smoothed labels raise every class by the same amount
        floor = 0.5 if self.multi_label else target.amin(dim=1, keepdim=True)
        own = target > floor
        wrong = scores.masked_fill(own, float('-inf')).argmax(dim=1)
        confusing = F.one_hot(wrong, self.num_classes).to(scores.dtype) * ~own
        return target * own, confusing

    def class_attentions(
        self,
        features: Sequence[Tensor],
        asked: Sequence[tuple[Tensor, Collection[str]]],
        z: Tensor,
        create_graph: bool = False,
    ) -> list[dict[str, Tensor]]:
        """A of the scores that directions weigh.

        Args:
            features: the inner and the last map, computed with gradients on.
            asked: directions (N, Y), as `directions` gives them, and of each the levels.
            z: the embedding (N, D) of the last map.
            create_graph: A is differentiated in turn.

        Returns:
            Of each direction A 'inner' (N, h, w) and 'last' (N, H, W), as far as it is asked.

        Raises:
            ValueError: if what is differentiated was not computed from the maps, with gradients on.
        """
        L, last = features
        Z = last.shape[2] * last.shape[3]
        found: list[dict[str, Tensor]] = [{} for _ in asked]
        if self.embedding_channels is None:
            for A, (direction, levels) in zip(found, asked, strict=True):
                if 'last' in levels:
                    w = score_gradient(self.classifier, z, direction)
                    A['last'] = last_class_attention(full_precision(last), w, self.kind)
        for A, (direction, levels) in zip(found, asked, strict=True):
            maps = {'inner': L, 'last': last}
            maps = {level: maps[level] for level in maps if level in levels and level not in A}
            if not maps:
                continue
            w = score_gradient(self.classifier, z, direction)  # dY/dz
            # 1/Z of the pooling comes last: a product of small numbers is too small for float16
            if self.embedding_channels is None:
                start, output = w[:, :, None, None].to(last.dtype).expand_as(last), last
            else:
                start, output = Z * w.to(z.dtype), z
            products = self._gradients(output, list(maps.values()), start, create_graph)
            for (level, F_l), dF in zip(maps.items(), products, strict=True):
                A[level] = class_attention(full_precision(F_l), full_precision(dF) / Z, self.kind)
        return found

    @staticmethod
    def _gradients(
        output: Tensor, maps: list[Tensor], start: Tensor, create_graph: bool
    ) -> list[Tensor]:
        """One vector-Jacobian product: d<start, output> with respect to each map."""
        found = [None]
        if output.requires_grad and all(m.requires_grad for m in maps):
            with input_gradients_only(output, maps[0]):
                found = torch.autograd.grad(
                    output, maps, start, retain_graph=True, create_graph=create_graph,
                    allow_unused=True,
                )  # fmt: skip
        if any(gradient is None for gradient in found):
            raise ValueError(
                'SIoU differentiates scores with respect to the inner map, and the last map has no '
                'gradient there: compute the maps with gradients on, by a backbone that returns '
                'the tensors it continues from and is not frozen above the inner level'
            )
        return list(found)

    def attention(
        self,
        features: Sequence[Tensor],
        classes: Sequence[int] | None = None,
        embedding: Tensor | None = None,
    ) -> list[Tensor]:
        """A of the predicted class and of the one it is most confused with (Figs. 2, 8).

        Args:
            features: the inner and the last map, computed with gradients on.
            classes: the classes to show instead, the same for every image.
            embedding: of the last map, where the method was built for it.

        Returns:
            (N, K, h, w) at the inner and (N, K, H, W) at the last level.
        """
        z = self.embed(features, embedding)
        scores = full_precision(self.classifier(z).detach())
        if classes is None:
            shown = scores.topk(min(2, self.num_classes), dim=1).indices
        else:
            shown = torch.tensor([list(classes)] * len(scores), device=scores.device)
        with torch.autocast(scores.device.type, enabled=False):
            onehot = F.one_hot(shown, self.num_classes).to(scores.dtype).unbind(dim=1)
            levels = ('inner', 'last')
            maps = self.class_attentions(features, [(d, levels) for d in onehot], z)
        return [torch.stack([A[level] for A in maps], dim=1).detach() for level in levels]

    def features_for_loss(self, network: Network, images: Tensor) -> Given:
        """The maps, by convolutions that are cheap to differentiate twice."""
        with second_order_convolutions():
            return network(images)
