"""Pictures of what a pipeline gives: whether red or blue is first, and what is no picture.

The order is tried out, not read off the settings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from mmengine.dataset import Compose
from PIL import Image
from torch import Tensor, uint8

__all__ = ['as_rgb', 'dataset_gives_bgr', 'gives_bgr', 'innermost', 'picture_pipeline']


def gives_bgr(pipeline: Callable[[dict], dict], otherwise: bool = False) -> bool:
    """Whether a pipeline puts blue first: it is tried with a red image.

    Args:
        pipeline: from ``img_path`` to ``inputs`` (C, H, W), as a data set's.
        otherwise: the answer where it reads no files, or makes other than three channels of them.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / 'red.png'
        Image.new('RGB', (512, 512), 'red').save(path)
        try:
            inputs = pipeline({'img_path': str(path)})['inputs']
        except Exception:  # it needs more than a file
            return otherwise
    inputs = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
    first, last = inputs[0].float().mean(), inputs[-1].float().mean()
    return bool(last > first) if len(inputs) == 3 and first != last else otherwise


def innermost(dataset: object) -> object:
    """A data set without those of mmengine that wrap it; the first of several."""
    while hasattr(dataset, 'dataset') or hasattr(dataset, 'datasets'):
        dataset = dataset.dataset if hasattr(dataset, 'dataset') else dataset.datasets[0]
    return dataset


def picture_pipeline(pipeline: Callable[[dict], dict]) -> Compose | None:
    """A pipeline for pictures, which leaves out the steps that make other things of colours.

    These have a true ``makes_no_picture``, take blue first, and keep the image's size. None if the
    pipeline has none of them, so that what it gives is the picture.
    """
    steps = getattr(pipeline, 'transforms', [])
    kept = [step for step in steps if not getattr(step, 'makes_no_picture', False)]
    return Compose(kept) if len(kept) < len(steps) else None


def dataset_gives_bgr(dataset: object, otherwise: bool) -> bool:
    """`gives_bgr` of a data set's pipeline; ``otherwise`` where its images are not files.

    Args:
        dataset: mmengine's, or one that wraps such ones.
        otherwise: what the settings suggest.
    """
    dataset = innermost(dataset)
    if not hasattr(dataset, 'pipeline') or 'img' in dataset.get_data_info(0):
        return otherwise
    return gives_bgr(dataset.pipeline, otherwise)


def as_rgb(inputs: Tensor, bgr: bool) -> np.ndarray:
    """A pipeline's image (C, H, W) as bytes (H, W, C), red first; floats are stretched to them."""
    if inputs.dtype != uint8:
        inputs = inputs.float() - inputs.min()
        inputs = (255 * inputs / inputs.max().clamp_min(1e-6)).to(uint8)
    image = inputs.permute(1, 2, 0).numpy()
    return image[..., ::-1] if bgr and image.shape[2] == 3 else image
