"""A model as one ONNX file that says what its scores and images are, checked in onnxruntime."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgplugins.errors import UserError, one_line
from fgplugins.serving.models import method_of, network_of
from fgplugins.serving.preprocessing import describe_preprocessing
from fgplugins.utils.loaded import LoadedModel

__all__ = ['check_installed', 'export_onnx', 'metadata']

TOLERANCE = 1e-4
LARGEST = 2**31 - 2**24  # bytes of weights that fit into one file of protobuf's


def check_installed() -> None:
    """Refuse to start without the packages of the extra.

    Raises:
        UserError: naming those that are missing.
    """
    wanted = ('onnx', 'onnxruntime', 'onnxscript')
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"exporting needs {' and '.join(missing)}: pip install 'fgplugins[export]'")


def metadata(loaded: LoadedModel) -> dict[str, str]:
    """What the file says of itself: each value is JSON, or a plain name."""
    multi_label = loaded.method is not None and loaded.method.multi_label
    found: dict[str, Any] = {
        'class_names': loaded.classes,
        'preprocessing': describe_preprocessing(loaded),
    }
    return {
        **{key: json.dumps(value, ensure_ascii=False) for key, value in found.items()},
        'activation': 'sigmoid' if multi_label else 'softmax',
        'method': method_of(loaded) or 'none',
        'network': network_of(loaded),
        'producer': f'fgplugins {importlib.metadata.version("fgplugins")}',
    }


def _sample_images(loaded: LoadedModel) -> Tensor | None:
    """scikit-learn's photographs, prepared for the model; None if they do not come in its size."""
    import sklearn.datasets

    if loaded.input_size[0] not in (1, 3):
        return None
    folder, prepared = Path(sklearn.datasets.__file__).parent / 'images', loaded.prepare()
    photos = [prepared.read(str(path)) for path in sorted(folder.glob('*.jpg'))]
    if not photos or any(photo.shape[1:] != loaded.input_size[1:] for photo in photos):
        return None
    return prepared.finish(torch.stack(photos))


class _Scores(nn.Module):
    """A model as a function of images alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


def export_onnx(
    loaded: LoadedModel, path: str | Path, opset: int = 18, dynamic_batch: bool = False
) -> float:
    """Write a model as ONNX, if onnxruntime gives the scores that PyTorch does.

    Args:
        loaded: the model, on the CPU.
        path: of the file.
        opset: ONNX's version of operators.
        dynamic_batch: for any number of images; else for one.

    Returns:
        The largest difference of a score, as a share of 1 or of the largest score.

    Raises:
        UserError: if it cannot be exported, or the scores differ by more than `TOLERANCE`.
    """
    model, path = _Scores(loaded.model).eval(), Path(path)
    example = torch.randn(2 if dynamic_batch else 1, *loaded.input_size)
    sizes = {'images': {0: torch.export.Dim('N', min=1)}} if dynamic_batch else None
    level = logging.getLogger('torch.onnx').level
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    partial = path.with_name(f'{path.name}.partial')
    large = sum(t.nbytes for t in model.state_dict().values()) > LARGEST
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=['images'],
                output_names=['scores'],
                dynamic_shapes=sizes,
                verbose=False,
            )
        program.model.metadata_props.update(metadata(loaded))
        program.save(str(path if large else partial), external_data=large)
    except UserError:
        raise
    except Exception as error:  # of the exporter, which raises many types
        reason = one_line(error.__cause__ or error, 300)
        raise UserError(f'{loaded.name} cannot be exported to opset {opset}: {reason}') from error
    finally:
        logging.getLogger('torch.onnx').setLevel(level)
    written = path if large else partial
    try:
        difference = _difference(loaded, model, written, dynamic_batch)
        if not difference <= TOLERANCE:
            raise UserError(
                f'{path} is not written: onnxruntime gives scores that differ from those of '
                f'PyTorch by {difference:.1e}, more than {TOLERANCE:.0e}: another --opset may help'
            )
        if not large:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def _difference(loaded: LoadedModel, model: nn.Module, path: Path, dynamic_batch: bool) -> float:
    """The largest difference between onnxruntime and PyTorch, on noise and on photographs."""
    import onnxruntime

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, *loaded.input_size, generator=generator)
    photos = _sample_images(loaded)
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    worst = 0.0
    for images in (noise,) if photos is None else (noise, photos):
        batches = [images] if dynamic_batch else images.split(1)
        for batch in batches:
            with torch.inference_mode():
                expected = model(batch)
            (scores,) = session.run(None, {'images': batch.numpy()})
            scale = max(1.0, float(expected.abs().max()))
            worst = max(worst, float((torch.from_numpy(scores) - expected).abs().max()) / scale)
            if not torch.from_numpy(scores).isfinite().all():
                return float('nan')
    return worst
