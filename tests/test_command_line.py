"""What a command line is to write is tried before any work is done."""

from __future__ import annotations

import errno
import os
import tempfile
from argparse import Namespace
from pathlib import Path

import pytest

from fgplugins.errors import UserError
from fgplugins.utils.command_line import check_output_folder, check_outputs, main_guard


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that nothing can be written in, whoever runs the tests."""

    def refuse(dir: Path) -> None:
        assert dir == tmp_path
        raise OSError(30, 'Read-only file system')

    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
    return tmp_path


def test_files_that_cannot_be_written(read_only: Path) -> None:
    (read_only / 'old.png').touch()
    for name, message in (
        ('new.png', f'cannot write in {read_only}: Read-only file system'),
        ('old.png', 'no permission to write it'),
    ):
        with pytest.raises(UserError, match=f'--out .*{name}: {message}$'):
            check_outputs(Namespace(out=str(read_only / name)), 'out')


def test_folders_that_cannot_be_written(read_only: Path) -> None:
    for name in ('.', 'new', 'new/in/it'):
        with pytest.raises(UserError, match=f'^DIR .*: cannot write in {read_only}: Read-only'):
            check_output_folder('DIR', read_only / name)


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    for path, is_file in (('file', 'is a file'), ('file/in', f'{tmp_path}/file is a file')):
        with pytest.raises(UserError, match=f'--out .*: {is_file}, not a folder'):
            check_output_folder('--out', tmp_path / path)
    assert check_output_folder('--out', tmp_path / 'new' / 'folder') == tmp_path / 'new' / 'folder'
    assert list(tmp_path.iterdir()) == [tmp_path / 'file'], 'nothing is left by the trial'


def test_what_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / 'old.json').write_text('{}')
    check_outputs(Namespace(json=str(tmp_path / 'old.json'), out=None), 'json', 'out')
    check_outputs(Namespace(json=str(tmp_path / 'new.json')), 'json')
    assert [p.name for p in tmp_path.iterdir()] == ['old.json']
    assert (tmp_path / 'old.json').read_text() == '{}'


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture) -> None:
    def fills() -> None:
        raise OSError(errno.ENOSPC, 'No space left on device', 'results.json')

    def loses() -> None:
        raise OSError(errno.EIO, 'Input/output error')

    with pytest.raises(SystemExit, match='2'):
        main_guard(fills)
    assert capsys.readouterr().err == 'error: No space left on device: results.json\n'
    with pytest.raises(OSError, match='Input'):
        main_guard(loses)
