"""A picture of where a model looks, for each file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fgplugins.errors import UserError, one_line
from fgplugins.methods import NoClassMap
from fgplugins.serving.predicting import Prediction
from fgplugins.utils.drawing import attention_titles, describe, draw_attention
from fgplugins.utils.lettering import need_matplotlib, shortened
from fgplugins.utils.loaded import LoadedModel

__all__ = ['MapFolder']


class MapFolder:
    """A folder of pictures: each file's attention maps, at its place inside the folder named.

    Args:
        folder: to write to.
        loaded: the model.
        classes: names of its classes.

    Raises:
        UserError: if the model has no attention to show.
    """

    def __init__(self, folder: str | Path, loaded: LoadedModel, classes: Sequence[str]) -> None:
        if loaded.method is None:
            raise UserError(
                f'--maps: {loaded.name} is a plain network, which has no attention to show: leave '
                '--maps out, or give the checkpoint of training'
            )
        need_matplotlib()
        self.folder, self.loaded, self.classes = Path(folder), loaded, classes
        self.taken: set[Path] = set()
        self.folder.mkdir(parents=True, exist_ok=True)

    def _place(self, inside: str) -> Path:
        """Where a file's picture goes; of two files of one name the second gets a number."""
        path, count = self.folder / f'{inside}.png', 2
        while path in self.taken:
            path, count = self.folder / f'{inside}_{count}.png', count + 1
        self.taken.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def draw(self, path: str, inside: str, prediction: Prediction) -> None:
        """Draw one file's maps.

        Raises:
            UserError: if the network has no map that shows what its scores rest on.
        """
        picture, inputs = self.loaded.read_image(path)
        try:
            _, masks = self.loaded.look(inputs)
        except (NoClassMap, ValueError) as error:
            raise UserError(f'--maps: {self.loaded.name}: {one_line(error)}') from error
        heads = [level[0].cpu().numpy() for level in masks]
        label, score = prediction.labels[0], prediction.scores[0]
        predicted = ('', shortened(self.classes[label]), score)
        draw_attention(
            [picture],
            [heads],
            [describe([predicted], file=shortened(Path(path).name))],
            self._place(inside),
            titles=attention_titles(heads, self.loaded.gates, self.loaded.method.name_heads()),
        )
