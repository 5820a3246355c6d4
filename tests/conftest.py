"""Shared by all tests: repeatable random numbers, the optional data folder, a browser."""

from __future__ import annotations

import logging
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parent.parent

# small tensors gain nothing from threads, and two that wait for a core cost many times as much
torch.set_num_threads(1)
os.environ['OMP_NUM_THREADS'] = '1'  # of the processes that tests start


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite, a file in one of them; none beside for a few files."""
    if all(Path(argument).is_dir() for argument in config.args):
        config.option.dist = 'loadfile'
        return 2
    return 0


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope='module')
def browser() -> Iterator[object]:
    """Chromium, as the system has it, driven by Playwright."""
    playwright = pytest.importorskip('playwright.sync_api', reason='of the extra test')
    path = shutil.which('chromium') or shutil.which('chromium-browser')
    if path is None:
        pytest.skip('no chromium on this machine: apt-get install chromium')
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield chromium
        chromium.close()


@pytest.fixture(scope='session')
def data_folder() -> Path:
    """The folder of real data sets, where there is one: $FGPLUGINS_DATA."""
    folder = os.environ.get('FGPLUGINS_DATA')
    if not folder or not Path(folder).is_dir():
        pytest.skip('set FGPLUGINS_DATA to the folder of real data to run this test')
    return Path(folder)


@pytest.fixture
def room() -> ModuleType:
    """The package's MMPretrain side; where MMPretrain is not installed, the test is skipped."""
    pytest.importorskip('mmpretrain', reason='of the MMPretrain side')
    import fgplugins.zoo_mmpretrain

    return fgplugins.zoo_mmpretrain


@pytest.fixture
def zoo(room: ModuleType) -> ModuleType:
    """MMPretrain's registries, with what is ours in them."""
    import mmpretrain.registry
    from mmengine.registry import init_default_scope

    init_default_scope('mmpretrain')
    return mmpretrain.registry


@pytest.fixture
def run_tool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> Callable[..., subprocess.CompletedProcess]:
    """Run a file of tools/ or scripts/ in this process, in an empty folder.

    It saves the seconds of a start.
    """
    # mmengine's logger keeps writing to the first captured stream it met
    monkeypatch.setattr(logging, 'raiseExceptions', False)

    def call(name: str, *arguments: str, folder: str = 'tools') -> subprocess.CompletedProcess:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, 'argv', [name, *arguments])
        code = 0
        try:
            runpy.run_path(str(ROOT / folder / f'{name}.py'), run_name='__main__')
        except SystemExit as exit_:
            code = exit_.code or 0
        return subprocess.CompletedProcess(name, code, *capsys.readouterr())

    return call
