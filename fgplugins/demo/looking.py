"""What a trained model makes of one image: its likeliest classes, and where it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fgplugins.errors import one_line
from fgplugins.methods import NoClassMap
from fgplugins.serving.models import class_names, load_trained, method_of, network_of
from fgplugins.serving.predicting import predict
from fgplugins.utils.drawing import attention_titles, lay_over
from fgplugins.utils.lettering import shortened
from fgplugins.utils.loaded import LoadedModel

__all__ = ['Look', 'Trained', 'look', 'open_trained']

HEADS = 8  # of a level that are shown


@dataclass
class Trained:
    """A model of the demo.

    Attributes:
        file: the checkpoint, as the user named it.
        loaded: the model, on its device.
        classes: names of its classes.
    """

    file: str
    loaded: LoadedModel
    classes: list[str]

    @property
    def name(self) -> str:
        """What the model is, as 'warn on resnet50'."""
        method, network = method_of(self.loaded), network_of(self.loaded)
        return f'{method} on {network}' if method else f'{network}, a plain network'

    @property
    def takes_classes(self) -> bool:
        """Whether it can be asked for the maps of a class."""
        method = self.loaded.method
        return method is not None and 'classes' in method.questions


@dataclass
class Look:
    """What a model makes of an image.

    Attributes:
        probabilities: of the likeliest classes, likeliest first.
        pictures: bytes (H, W, 3), or (H, W) of a grey image, and their titles: the image as the
            model sees it, then every map laid over it.
        message: why something of these is missing.
    """

    probabilities: dict[str, float] = field(default_factory=dict)
    pictures: list[tuple[np.ndarray, str]] = field(default_factory=list)
    message: str = ''


def open_trained(checkpoint: str, device: torch.device) -> Trained:
    """The model of a checkpoint, which is read as data: see `load_trained`.

    Raises:
        UserError: if it cannot be read, or does not say what it is of.
    """
    loaded = load_trained(checkpoint)
    loaded.model.to(device)
    return Trained(checkpoint, loaded, class_names(loaded))


def look(trained: Trained, path: str, top_k: int, asked: Sequence[int] = ()) -> Look:
    """Run a model on an image file; whatever is wrong with the file is said in words.

    Args:
        trained: the model.
        path: of the file.
        top_k: how many classes are named.
        asked: classes whose maps are shown, of a model that takes them; else what it shows itself.
    """
    file = Path(path).name
    try:
        ((prediction,),) = predict(trained.loaded, [path], 1, 0, min(top_k, len(trained.classes)))
        if prediction.error:
            return Look(message=f'{file} cannot be read: {prediction.error}')
        names = [trained.classes[label] for label in prediction.labels]
        found = Look(dict(zip(names, prediction.scores, strict=True)))
        found.pictures, found.message = _pictures(trained, path, asked)
    except Exception as error:  # of any step of a pipeline or layer of a network; the page goes on
        reason = one_line(error, 300).replace(str(path), file)
        return Look(message=f'{file}: {reason}')
    return found


def _pictures(
    trained: Trained, path: str, asked: Sequence[int]
) -> tuple[list[tuple[np.ndarray, str]], str]:
    """The pictures of `Look`, and why there are no maps."""
    loaded = trained.loaded
    image, inputs = loaded.read_image(path)
    seen = [(image.squeeze(2) if image.shape[2] == 1 else image, 'what it sees')]
    if loaded.method is None:
        return seen, 'no map: a plain network has no attention to show'
    question = {'classes': list(asked)} if asked else {}
    try:
        _, masks = loaded.look(inputs, **question)
    except NoClassMap as error:
        return seen, f'no map: {error}'
    levels = [level[0].float().cpu().numpy() for level in masks]
    shown = [shortened(trained.classes[label]) for label in asked]
    names = [shown] * len(levels) if shown else loaded.method.name_heads()
    titles = attention_titles(levels, loaded.gates, names)
    maps = [
        (lay_over(image, mask), title)
        for level, above in zip(levels, titles, strict=True)
        for mask, title in list(zip(level, above, strict=True))[:HEADS]
    ]
    more = max(len(level) for level in levels) - HEADS
    return seen + maps, f'{HEADS} heads of each level are shown' if more > 0 else ''
