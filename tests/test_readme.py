"""What the README and the packaging promise."""

from __future__ import annotations

import itertools
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fgplugins.utils.shipped import shipped_configs

ROOT = Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```(\w+)\n(.*?)```', README, re.DOTALL)
SNIPPETS = [text for kind, text in BLOCKS if kind == 'python' and 'dict(' not in text]
COMMANDS = [line for kind, text in BLOCKS if kind == 'bash' for line in text.splitlines() if line]
FIRST_HOUR = (ROOT / 'docs/first_hour.md').read_text(encoding='utf-8')
FENCED = re.findall(r'```(\w*)\n(.*?)```', FIRST_HOUR, re.DOTALL)
TOOLS = [
    part.strip()
    for line in COMMANDS + [text.strip() for kind, text in FENCED if kind == 'bash']
    for part in line.split('&&')
    if re.match(r'python tools/|fgplugins \w', part.strip())
]


def test_the_two_commands() -> None:
    assert COMMANDS[0].endswith("'.[mm]' && python tools/train.py configs/warn_cnn_digits.py")
    assert COMMANDS[1].endswith("pip install -e '.[test]' && python -m pytest")
    assert README.index(COMMANDS[1]) < 1800, 'both on the first screen'
    ci = (ROOT / '.ci/run').read_text()
    assert 'command 2' in ci and 'README.md' in ci


@pytest.mark.parametrize('command', TOOLS)
def test_commands_are_understood(
    command: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tool line of the README names files that exist and arguments that the tool takes."""
    path, *arguments = shlex.split(command)[1:]
    path = path if path.startswith('tools/') else f'tools/{path}.py'
    if path in ('tools/train.py', 'tools/test.py'):
        request.getfixturevalue('room')
    tool = runpy.run_path(str(ROOT / path), run_name='tool')
    monkeypatch.setattr(sys, 'argv', [path, *arguments])
    tool['parse_args']()
    for argument in arguments:
        if argument.startswith('configs/'):
            assert (ROOT / argument).is_file()
    if command.startswith('fgplugins train '):
        assert arguments[0] in shipped_configs()


def test_the_first_hour_goes_on_with_what_it_made() -> None:
    """Each command takes what those before it wrote, and a training's last line is one of them."""
    commands = [text.strip() for kind, text in FENCED if kind == 'bash']
    assert [command.split()[1] for command in commands] == [
        'check_data', 'split_data', 'train', 'test', 'predict', 'train', 'test'
    ]  # fmt: skip
    written: list[str] = []
    for (kind, command), (_, output) in itertools.pairwise(FENCED):
        if kind == 'bash':
            hint = re.search(r'^test it: (.+)$', output, re.MULTILINE)
            assert (hint is not None) == command.startswith('fgplugins train ')
            assert hint is None or hint[1] in commands
            named = re.findall(r'work_dirs/\S+\.(?:pth|py)', command)
            assert set(named) <= set(written), 'of a training before'
            written += re.findall(r'work_dirs/\S+\.(?:pth|py)', output)


@pytest.mark.usefixtures('room')
def test_the_first_hour_trains_as_long_as_its_config_says() -> None:
    from helpers import load_config

    (name,) = re.findall(r'^fgplugins train (\S+) .*--pretrained$', FIRST_HOUR, re.MULTILINE)
    epochs = load_config(name).train_cfg.max_epochs
    assert f'work_dirs/{name}/epoch_{epochs}.pth photos' in FIRST_HOUR
    assert f'epoch {epochs}/{epochs}: ' in FIRST_HOUR


@pytest.mark.parametrize(('run', 'epoch'), re.findall(r'work_dirs/(\w+)/epoch_(\d+)\.pth', README))
def test_checkpoints_are_of_the_last_epoch_of_a_config(run: str, epoch: str) -> None:
    config = pytest.importorskip('mmengine.config')
    # a backbone can have been added to the name
    name = next(c for c in reversed(shipped_configs()) if run == c or run.startswith(f'{c}_'))
    assert config.Config.fromfile(ROOT / f'configs/{name}.py').train_cfg.max_epochs == int(epoch)


def test_the_python_lines_run() -> None:
    names: dict = {}
    for text in SNIPPETS:
        if 'mmpretrain' not in text:
            exec(text, names)
    assert names['scores'].shape == (1, 200) and len(names['masks']) == 3
    assert set(names['terms']) == {'nll', 'diversity'}


@pytest.mark.usefixtures('room')
def test_the_python_lines_of_mmpretrain_run() -> None:
    (text,) = (text for text in SNIPPETS if 'mmpretrain' in text)
    exec(text, {})


def test_the_config_lines_build(zoo: ModuleType) -> None:
    import torch

    names: dict = {}
    exec(next(text for kind, text in BLOCKS if 'custom_imports' in text), names)
    model = zoo.MODELS.build(names['model'])
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 200)


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r'\]\(([^)#]+)\)', README):
        if '://' not in target:
            assert (ROOT / target).is_file(), target


def test_every_table_entry_is_registered() -> None:
    import timm

    import fgplugins

    table = README[README.index('## timm') : README.index('## MMPretrain')]
    for name in re.findall(r'`([a-z0-9_]+)`', table.split('```')[0]):
        assert timm.is_model(name) or name == 'backbone', name
    for name in fgplugins.list_methods():
        row = next(line for line in README.splitlines() if line.startswith(f'| `{name}`'))
        assert row.endswith('yes |')


def test_importing_is_light() -> None:
    """With timm, `import fgplugins` brings in neither MMPretrain nor mmengine nor matplotlib.

    What it brings in alone is looked at in `test_startup`.
    """
    code = (
        'import sys, timm, fgplugins; '
        "print([m for m in ('mmengine', 'mmpretrain', 'mmcv', 'matplotlib', 'sklearn') "
        'if sys.modules.get(m)])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


@pytest.mark.usefixtures('room')
def test_the_wheel_carries_configs_and_tools(tmp_path: Path) -> None:
    """Built from a copy, so that no build folder is left in the checkout."""
    import shutil
    import zipfile

    copy = tmp_path / 'source'
    copy.mkdir()
    for name in ('fgplugins', 'configs', 'tools'):
        ignore = shutil.ignore_patterns('__pycache__', '.mim')
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, 'setup.py', '-q', 'bdist_wheel', '--dist-dir', str(tmp_path)]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    wheel = next(tmp_path.glob('*.whl'))
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder in ('configs', 'tools'):
        for file in (ROOT / folder).rglob('*.*'):
            if '__pycache__' not in file.parts:
                assert f'fgplugins/.mim/{file.relative_to(ROOT)}' in inside
    for file in (ROOT / 'fgplugins').rglob('*.py'):
        assert str(file.relative_to(ROOT)) in inside

    # and they run from there, outside the repository
    target = tmp_path / 'installed'
    zipfile.ZipFile(wheel).extractall(target)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r}); sys.argv = ['x', 'get_flops', "
        "'warn_cnn_digits']; import runpy; runpy.run_module('fgplugins', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and 'warn_cnn_digits, input 1 x 40 x 40' in done.stdout, done.stderr
