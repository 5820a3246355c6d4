"""Any network of timm's as a backbone of MMPretrain's: its maps, its own head, its classifier."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmpretrain.models.backbones.base_backbone import BaseBackbone
from timm.models import get_model_input_config
from torch import Tensor, nn

from fgplugins.methods.base import Given
from fgplugins.networks.adapter import adapt_network
from fgplugins.networks.gates import gates_of
from fgplugins.networks.names import look_up_network
from fgplugins.zoo_mmpretrain.registry import MODELS, register

__all__ = ['TimmNetwork']


class TimmNetwork(BaseBackbone):
    """A network of timm's, which keeps its head.

    In `FineGrainedClassifier` it needs a name only: what the method reads is asked of the method,
    and the network's own classifier goes into it. In MMPretrain's ``ImageClassifier`` it gives the
    maps and, last, the vector that the network's own classifier reads, which ``LinearClsHead``
    classifies: leave the neck out.

    Args:
        model_name: of any kind that ``timm.create_model`` takes.
        levels: which of the network's maps are read, by number.
        taps: how many of the last ones; 1 if neither is given.
        head: 'network' (its own) | 'mean' (no more than the mean of its last map); if None its own
            where it has one that gives all scores from one vector, else 'mean', and a warning.
        num_classes: of the classifier that `take_classifier` gives; `FineGrainedClassifier` says
            it. None is kept with 0.
        embedding: give the embedding too; `FineGrainedClassifier` asks the method.
        pretrained: load the published weights.
        checkpoint_path: load the weights of this file, of the whole network or without classifier.
        in_channels: of the images.
        drop_rate: of dropout in front of the classifier; the network's own if None.
        init_cfg: mmengine's initialisation.
        **kwargs: what else ``timm.create_model`` takes.

    Attributes:
        timm_model: the network.
        channels: of each map.
        embedding_channels: of the embedding, where it is more than the mean of the last map.
        img_size: the only (height, width) that the network takes; None if it takes any.

    Raises:
        ValueError: for an unknown network, a level that it lacks, or a head that it has not.
        OSError: if a file is not there, or the published weights cannot be downloaded.
    """

    def __init__(
        self,
        model_name: str,
        levels: Sequence[int] | None = None,
        taps: int | None = None,
        head: str | None = None,
        num_classes: int = 0,
        embedding: bool = True,
        pretrained: bool = False,
        checkpoint_path: str = '',
        in_channels: int = 3,
        drop_rate: float | None = None,
        init_cfg: dict | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(init_cfg)
        try:
            look_up_network(model_name)
        except ValueError as error:
            raise ValueError(f'model_name={error}') from None
        if 'out_indices' in kwargs:
            raise ValueError(
                f'out_indices={kwargs["out_indices"]}: TimmNetwork takes levels, of all maps that '
                f'{model_name} has, or taps, how many of the last ones'
            )
        try:
            adapted = adapt_network(
                model_name, 'TimmNetwork', num_classes, in_channels, head, taps, levels,
                reads_embedding=embedding, pretrained=pretrained, checkpoint=checkpoint_path,
                classes_without=None,  # as TIMMBackbone builds it
                **kwargs,
            )  # fmt: skip
        except (OSError, ValueError) as error:  # by the name of the argument here
            text = str(error).replace('backbone_checkpoint=', 'checkpoint_path=')
            raise type(error)(text) from None
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if not unknown:
                raise
            raise TypeError(f'neither TimmNetwork nor {model_name} takes {unknown[1]!r}') from error
        self.timm_model, self.reading = adapted.network, adapted.reading
        self.channels, self.img_size = adapted.channels, adapted.fixed_size
        self.embedding_channels, self.place = adapted.embedding_channels, adapted.place
        self.drop_rate = adapted.drop_rate if drop_rate is None else drop_rate
        self.model_name = model_name
        self.in_channels, self.num_classes = in_channels, num_classes
        self.gives_embedding = embedding and adapted.head == 'network'
        self.classifier = adapted.classifier if num_classes else None
        self._is_init = bool(pretrained or checkpoint_path)  # mmengine leaves it as it is
        self._register_load_state_dict_pre_hook(self._rename)

    def _rename(self, state_dict: dict, prefix: str, *_: object) -> None:
        """Take weights under the names that MMPretrain's ``TIMMBackbone`` gives them."""
        theirs = f'{prefix}timm_model.model.'
        for key in [key for key in state_dict if key.startswith(theirs)]:
            state_dict[f'{prefix}timm_model.{key.removeprefix(theirs)}'] = state_dict.pop(key)

    def take_classifier(self) -> nn.Module | None:
        """The network's own classifier, which belongs to whoever takes it."""
        classifier, self.classifier = self.classifier, None
        return classifier

    @property
    def attention_gates(self) -> tuple[str, ...]:
        """Names of the submodules whose output is a gate (N, 1, H, W), shallow to deep."""
        return tuple(f'timm_model.{name}' for name in gates_of(self.timm_model))

    def read(self, x: Tensor) -> Given:
        """The maps, and as a pair with them the embedding where it is more than their mean."""
        return self.reading(self.timm_model, x)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps (N, C_s, H_s, W_s), shallow to deep, and last the embedding (N, D) if there is one.

        Args:
            x: images (N, in_channels, H, W).
        """
        given = self.read(x)
        if self.reading.embedding:
            return *given[0], given[1]
        if self.gives_embedding:
            return *given, given[-1].mean(dim=(2, 3))
        return tuple(given)

    @property
    def preprocessing(self) -> dict[str, object]:
        """Mean and standard deviation of the images that the network takes, for a config."""
        settings = {**getattr(self.timm_model, 'pretrained_cfg', {})}
        settings |= get_model_input_config(self.timm_model)
        return {key: [255 * v for v in settings[key]] for key in ('mean', 'std') if key in settings}


register(MODELS, TimmNetwork)
