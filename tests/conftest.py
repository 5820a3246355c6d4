"""Shared by all tests: repeatable random numbers and the optional data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def data_folder() -> Path:
    """The folder of real data sets, where there is one: $FGPLUGINS_DATA."""
    folder = os.environ.get('FGPLUGINS_DATA')
    if not folder or not Path(folder).is_dir():
        pytest.skip('set FGPLUGINS_DATA to the folder of real data to run this test')
    return Path(folder)
