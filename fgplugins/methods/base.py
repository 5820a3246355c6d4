"""The contract every attention method meets: what adapters may ask of one, and nothing else.

One alphabet of shapes serves every file of this package:

    N  images in the batch          S  feature maps (levels) a method reads
    C  channels of a map            H, W  height and width of a map
    K  attention heads of a level   Y  classes to tell apart

    D  channels of the embedding

``features`` is always a sequence of S maps (N, C_s, H_s, W_s), shallow to deep; ``target`` is (N,)
class indices or (N, Y) class probabilities; scores are (N, Y) and their argmax is the prediction.

The *embedding* (N, D) is the vector that the network's own classifier reads: what its pooling, its
class token, its last normalisation and layers make of the last map. Where a network has no more
than average pooling there, it is the mean of the last map, and nobody has to hand it over.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ['Given', 'Method', 'Network', 'NoClassMap', 'Regularizer']

# what a network gives: the S maps that the method reads; the maps and the embedding, as a pair, for
# a method that was built with ``embedding_channels``
Given = Sequence[Tensor] | tuple[Sequence[Tensor], Tensor]
# images (N, channels, H, W) -> what the network gives
Network = Callable[[Tensor], Given]


class NoClassMap(ValueError):
    """The scores do not depend on positions of the last map, so no map shows what they rest on."""


class Regularizer(nn.Module):
    """What a method has in training only: it looks at the images again, through a second network.

    The zoo's adapter owns the second network, of the backbone's architecture, and registers both
    beside the model; neither is part of the model that is deployed.

    Attributes:
        optional_terms: names of the terms that a schedule may leave out for a while.
        left_out: those that are left out now.
    """

    optional_terms: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__()
        self.left_out: frozenset[str] = frozenset()

    def forward(
        self, images: Tensor, features: Sequence[Tensor], target: Tensor, second: Network
    ) -> dict[str, Tensor]:
        """Named scalar terms, added to those of `Method.loss`.

        That of a method which was built with ``embedding_channels`` is given ``embedding=`` too.

        Args:
            images: (N, channels, H, W), as the backbone got them.
            features: the S maps it gave.
            target: (N,) or (N, Y).
            second: the second network, which gives what the first one does.
        """
        raise NotImplementedError

    def leave_out(self, *terms: str) -> None:
        """Leave these terms out from now on, and no others.

        Raises:
            ValueError: for a term that is not among `optional_terms`.
        """
        wrong = sorted(set(terms) - set(self.optional_terms))
        if wrong:
            raise ValueError(
                f'{type(self).__name__} cannot leave out {", ".join(wrong)}, only: '
                f'{", ".join(self.optional_terms) or "nothing"}'
            )
        self.left_out = frozenset(terms)

    def show(self, images: Tensor, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Named views of the images that it trains on, each (N, channels, h, w), for pictures.

        None, for most. ``embedding=`` is given as to `forward`.

        Args:
            images: (N, channels, H, W), as the backbone got them.
            features: the S maps it gave.
        """
        return {}


class Method(nn.Module):
    """What is put on top of a backbone: the maps go in, the scores and the training loss come out.

    A subclass writes ``forward``, ``attention`` and ``loss``, sets ``default_taps`` and registers
    itself with `register_method`. Nothing is remembered between calls but parameters and buffers.

    A method that uses the network's own prediction sets ``reads_embedding``. It takes a keyword
    ``embedding_channels``, and where that was given, ``embedding=`` (N, D) in ``forward``,
    ``attention`` and ``loss``; where it was not, the mean of the last map is the embedding
    (`embed`). Other methods take neither.

    Adapters train by `features_for_loss` and `loss`, and draw by `show`.

    Args:
        in_channels: channels of each map it will be given, shallow to deep.
        num_classes: number of classes to tell apart.
        embedding_channels: D, if it will be given the embedding.

    Attributes:
        reads_embedding: the method uses the network's own prediction.
        embedding_classifier: name of the submodule that classifies the embedding; adapters put the
            network's own classifier into its place.
        is_network: the scores are `network_scores` and nothing else: in testing the method is the
            network that it stands on, and it is deployed as that.
        head_drop: dropout in front of that classifier, where there is one; adapters set its rate.
        default_taps: how many of the backbone's last maps the method reads when nobody says.
        taps: how many this instance reads.
        needs_gradient_path: the method differentiates scores with respect to the maps below the
            last, so each must be the very tensor that the backbone continues from.
        multi_label: an image can have several classes: scores are independent logits, targets
            (N, Y) of zeros and ones.
        head_names: what the heads of `attention` show, where they are not alike.
        questions: what `attention` can be asked besides, by keyword: 'query', the maps of images
            that are to be looked for; 'classes', the numbers of those to show.

    Raises:
        ValueError: if there are no maps, or ``num_classes`` is not positive.
    """

    default_taps: int = 1
    reads_embedding: bool = False
    embedding_classifier: str = ''
    is_network: bool = False
    needs_gradient_path: bool = False
    multi_label: bool = False
    head_names: Sequence[str] = ()
    questions: Sequence[str] = ()

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if 'forward' in own and 'is_network' not in own:
            cls.is_network = False
        # whoever changes a method that reads the embedding may do so without it
        added = {'__init__': 'embedding_channels'}
        added |= dict.fromkeys(('forward', 'attention', 'loss'), 'embedding')
        lacks_it = 'regularizer' in own or any(
            name in own and argument not in inspect.signature(own[name]).parameters
            for name, argument in added.items()
        )
        if lacks_it and 'reads_embedding' not in own:
            cls.reads_embedding = False

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, embedding_channels: int | None = None
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if len(in_channels) == 0 or any(c < 1 for c in in_channels):
            raise ValueError(
                f'{name}: in_channels={list(in_channels)}: give the channels of at least one map'
            )
        if num_classes < 1:
            raise ValueError(f'{name}: num_classes={num_classes}: needs at least 1 class')
        if embedding_channels is not None and (embedding_channels < 1 or not self.reads_embedding):
            raise ValueError(
                f'{name}: embedding_channels={embedding_channels}: '
                + ('needs at least 1' if self.reads_embedding else 'it reads no embedding')
            )
        self.in_channels = tuple(int(c) for c in in_channels)
        self.num_classes = int(num_classes)
        self.embedding_channels = embedding_channels
        if self.embedding_classifier:
            self.head_drop = nn.Dropout(0.0)

    @property
    def taps(self) -> int:
        return len(self.in_channels)

    @property
    def head_channels(self) -> int:
        """Channels of the vector that `embed` gives."""
        return self.embedding_channels or self.in_channels[-1]

    @classmethod
    def hyperparameters(cls) -> list[inspect.Parameter]:
        """The method's own arguments, which nobody but the user can know."""
        own = list(inspect.signature(cls).parameters.values())[2:]
        return [p for p in own if p.name != 'embedding_channels']

    # ------------------------------------------------------------------ what every method writes

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Scores (N, Y) of S maps (N, C_s, H_s, W_s); the same function in training and testing."""
        raise NotImplementedError

    def attention(self, features: Sequence[Tensor]) -> list[Tensor]:
        """What a figure shows: one (N, K, H_s, W_s) stack of non-negative masks per level read."""
        raise NotImplementedError

    def loss(self, features: Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
        """Named scalar terms; training minimises their sum."""
        raise NotImplementedError

    # ------------------------------------------------------------------------ what some methods do

    def name_heads(self) -> list[Sequence[str]]:
        """What the heads of each level of `attention` show; no names where they are alike."""
        return [self.head_names] * self.taps

    def forward_paper(self, features: Sequence[Tensor]) -> Tensor:
        """The scores in the paper's own order of operations: what reports compare ours with.

        The same function of the same parameters as `forward`. A method that already computes in
        the paper's order has nothing to add.
        """
        return self(features)

    def regularizer(self, view_size: tuple[int, int] | None = None) -> Regularizer | None:
        """A new training-only part, where the method has one.

        Args:
            view_size: the only (height, width) that the second network takes; None if it takes any.
        """
        return None

    @property
    def has_regularizer(self) -> bool:
        return type(self).regularizer is not Method.regularizer

    @property
    def attention_needs_gradient(self) -> bool:
        """Whether `attention` differentiates what it is given, so that this must have a graph."""
        return self.needs_gradient_path

    # ------------------------------------------------------------------------ what adapters call

    def features_for_loss(self, network: Network, images: Tensor) -> Given:
        """What `loss` takes: ``network(images)``, for most methods.

        Args:
            network: computes the maps, and the embedding.
            images: (N, channels, H, W).
        """
        return network(images)

    def split(self, given: Given) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        """What a network gives, as ``features`` and the keywords that go with them."""
        if self.embedding_channels is None:
            return given, {}
        features, embedding = given
        return features, {'embedding': embedding}

    def show(
        self, network: Network, images: Tensor, **asked: object
    ) -> tuple[Tensor, list[Tensor]]:
        """Scores (N, Y) of images and the masks (N, K, H_s, W_s) of `attention`, for pictures.

        Maps are computed with gradients where the method differentiates scores, whatever is frozen
        in the network, and without elsewhere.

        Args:
            network: computes the maps, and the embedding.
            images: (N, channels, H, W).
            **asked: of `questions`.
        """
        gradients = self.attention_needs_gradient
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            images = images.detach().clone().requires_grad_(gradients)
            features, given = self.split(network(images))
            masks = self.attention(features, **given, **asked)
            return self(features, **given).detach(), [mask.detach() for mask in masks]

    # ------------------------------------------------------------------------ what methods call

    def embed(self, features: Sequence[Tensor], embedding: Tensor | None = None) -> Tensor:
        """The embedding (N, D): the one that is given, or the mean of the last map.

        Raises:
            ValueError: if it is not what the instance was built for.
        """
        self.check_features(features)
        D, name = self.embedding_channels, type(self).__name__
        if D is None and embedding is None:
            return features[-1].mean(dim=(2, 3))
        if D is None:
            raise ValueError(f'{name} was built without embedding_channels, and given an embedding')
        # the number of images as exporters have it, which len() would fix
        right = embedding is not None and embedding.ndim == 2 and embedding.shape[1] == D
        if not right or embedding.shape[0] != features[-1].shape[0]:
            given = 'none' if embedding is None else f'one of shape {tuple(embedding.shape)}'
            raise ValueError(
                f'{name} was built for an embedding (N, {D}), it was given {given}: pass '
                'embedding=, or build it without embedding_channels'
            )
        return embedding

    def network_scores(self, embedding: Tensor) -> Tensor:
        """The network's own prediction: scores (N, Y) of embeddings (N, D)."""
        return self.get_submodule(self.embedding_classifier)(self.head_drop(embedding))

    def check_features(self, features: Sequence[Tensor]) -> None:
        """Refuse maps that are not the ones this instance was built for.

        Raises:
            ValueError: if the number of maps or the channels of one of them differ.
        """
        given = [tuple(f.shape) for f in features]
        if any(len(shape) != 4 for shape in given):
            raise ValueError(
                f'{type(self).__name__} reads maps of shape (N, C, H, W), it was given {given}'
            )
        if [shape[1] for shape in given] != list(self.in_channels):
            raise ValueError(
                f'{type(self).__name__} was built for {self.taps} map(s) of in_channels='
                f'{list(self.in_channels)}, the backbone gives {[shape[1] for shape in given]}: '
                'set in_channels to what the backbone gives, or choose other levels'
            )
