"""The processes of a comparison, with small programs in place of its cells."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fgplugins.compare import display, local
from fgplugins.compare.jobs import (
    Job,
    JobProcess,
    Progress,
    only_comparison_in,
    only_process_in,
    write_json,
)
from fgplugins.compare.local import run_local
from fgplugins.errors import UserError
from fgplugins.utils.whole_file import whole_file

MOST = 20.0  # seconds to wait for what takes a moment

# the beginning of every program: it runs in the folder of its cell
BEGIN = """
import fcntl, json, os, signal, subprocess, sys, time
from pathlib import Path
os.chdir(sys.argv[1])
def finish(**result):
    Path('result.json').write_text(json.dumps(result))
def wait_for(path):
    for _ in range(400):
        if Path(path).exists():
            return
        time.sleep(0.05)
    sys.exit(f'error: no {path}')
"""
# holds a lock as long as it lives
HANG = "globals().update(file=open('lock', 'w'))\nfcntl.flock(file, fcntl.LOCK_EX)\n"
HANG += "Path('held').touch()\ntime.sleep(600)\n"

# its child holds the lock, in a session of its own as the workers of torchrun
SESSION = f'child = {HANG!r}\ncommand = [sys.executable, "-c", {BEGIN!r} + child, "."]\n'
SESSION += "subprocess.Popen(command, start_new_session=True)\nwait_for('held')\n"

# a scheduler that is a process of its own: JSON of (name, folder, command) -> run_local
SCHEDULER = """
import json, sys
from pathlib import Path
from fgplugins.compare.jobs import Job
from fgplugins.compare.local import run_local
from fgplugins.utils.command_line import main_guard
jobs = [Job(name, Path(folder), command) for name, folder, command in json.loads(sys.argv[1])]
main_guard(lambda: run_local(jobs, ['cpu', 'cpu']))
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Job]:
    """Make a job of a program."""

    def job(name: str, program: str = 'finish()', **cell: object) -> Job:
        folder = tmp_path / 'cells' / name
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / 'cell.json', cell)
        command = [sys.executable, '-I', '-S', '-c', BEGIN + program, str(folder)]
        return Job(name, folder, command)

    return job


def wait_until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + MOST
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def is_free(lock: Path) -> bool:
    """Whether no process holds a lock any more."""
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def start_scheduler(jobs: list[Job]) -> subprocess.Popen:
    content = json.dumps([(job.name, str(job.folder), job.command) for job in jobs])
    command = [sys.executable, '-c', SCHEDULER, content]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_device_runs_jobs_in_their_order(make: Callable[..., Job], tmp_path: Path) -> None:
    program = "open('../../order', 'a').write(Path.cwd().name)\nfinish()"
    run_local([make(name, program) for name in 'bca'], ['cpu'])
    assert (tmp_path / 'order').read_text() == 'bca'


def test_two_devices_are_two_processes_at_a_time(make: Callable[..., Job]) -> None:
    """Two meet, which one at a time cannot; a third starts when one has ended."""
    meet = "Path('here').touch()\nwait_for('../{}/here')\nfinish(others={})"
    others = "sorted(p.parent.name for p in Path('..').glob('*/here'))"
    jobs = [make('a', meet.format('b', others)), make('b', meet.format('a', others)), make('c')]
    run_local(jobs, ['cpu', 'cpu'])
    assert [job.finished for job in jobs] == [True, True, True]
    assert json.loads((jobs[0].folder / 'result.json').read_text())['others'] == ['a', 'b']


def test_devices_divide_the_cores(
    make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, '_cores', lambda: 7)
    told = (
        'finish(**{k: os.environ[k] for k in os.environ if k.startswith(("OMP", "MKL", "CUDA"))})'
    )
    job = make('a', told)
    run_local([job], ['cpu', 'cpu'])
    assert json.loads((job.folder / 'result.json').read_text()) == {
        'OMP_NUM_THREADS': '3',
        'MKL_NUM_THREADS': '3',
        'CUDA_VISIBLE_DEVICES': '',
    }
    monkeypatch.setattr(local, '_gpus', lambda: 2)
    assert (
        local.default_devices() == local.check_devices(['cuda', 'cuda:1']) == ['cuda:0', 'cuda:1']
    )
    seen = [e['CUDA_VISIBLE_DEVICES'] for e in local.device_environments(['cuda:0', 'cuda:1'])]
    assert seen == ['0', '1']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6')
    assert local.device_environments(['cuda:1'])[0]['CUDA_VISIBLE_DEVICES'] == '6'
    both = local.check_devices(['cuda+cuda:1'])
    assert both == ['cuda:0+cuda:1']
    (told,) = local.device_environments(both)
    assert (told['CUDA_VISIBLE_DEVICES'], told['OMP_NUM_THREADS']) == ('4,6', '3')
    monkeypatch.setattr(local, '_gpus', lambda: 0)
    assert local.default_devices() == ['cpu'] * 7
    for device, said in (('cuda:1', 'no cuda:1; it has cpu cpu'), ('tpu', 'must be cpu')):
        with pytest.raises(UserError, match=f"--devices '{device}': .*{said}"):
            local.check_devices(['cpu', device])


@pytest.mark.parametrize(
    ('program', 'reason'),
    [
        ("raise ValueError('two\\n  lines')", 'ValueError: two'),
        ("sys.exit('error: --lr -1: must be positive')", 'error: --lr -1: must be positive'),
        ("print('half a word', end='')\nsys.exit(3)", 'exit code 3 and no result, after: half'),
        ('', 'ended with exit code 0 and no result'),
        ('os.kill(os.getpid(), signal.SIGKILL)', r'killed \(signal 9\): out of memory\?'),
        ('os.kill(os.getpid(), signal.SIGSEGV)', r'killed \(signal 11\): SIGSEGV'),
        # the keeper, which is what the scheduler sees
        ('os.kill(os.getppid(), signal.SIGKILL)\n' + HANG, r'killed \(signal 9\)'),
        ("print('\\x1b[31mRuntimeError: red\\x1b[0m\\r')", 'RuntimeError: red$'),
        ("print('2026/01/01 - mmengine - ERROR - /a.py - run - 1 - bad')", '.*ERROR.*bad'),
        ("print('x' * 100_000)\nprint('KeyError: 1')\nprint('y')", 'KeyError: 1$'),
    ],
)
def test_a_failure_has_a_reason(make: Callable[..., Job], program: str, reason: str) -> None:
    job = make('a', program)
    run_local([job], ['cpu'], 'quiet')
    assert re.search(reason, job.failure)
    assert job.failure.isprintable()
    lock = job.folder / 'lock'
    wait_until(lambda: not lock.exists() or is_free(lock), 'the command outlives its keeper')


def test_a_command_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    job = Job('a', tmp_path, [str(tmp_path / 'nothing')])
    run_local([job], ['cpu'], 'quiet')
    assert job.failure.startswith('FileNotFoundError')


def test_a_failure_stops_nothing_and_is_tried_again(
    make: Callable[..., Job], tmp_path: Path
) -> None:
    count = "open('../../order', 'a').write(Path.cwd().name)\nfinish()"
    fail = "open('../../order', 'a').write(Path.cwd().name)\nassert Path('../../mended').exists()\n"
    jobs = [make('a', count), make('b', fail + 'finish()'), make('c', count)]
    run_local(jobs, ['cpu'], 'quiet')
    assert [job.finished for job in jobs] == [True, False, True]
    assert jobs[1].failure == 'ended with exit code 1 and no result, after: AssertionError'
    (tmp_path / 'mended').touch()
    jobs.append(make('d', count))
    run_local(jobs, ['cpu'], 'quiet')
    assert all(job.finished for job in jobs)
    assert jobs[1].failure is None
    assert (tmp_path / 'order').read_text() == 'abcbd'


@pytest.mark.parametrize('session', [False, True])
def test_what_a_command_leaves_behind_is_ended(make: Callable[..., Job], session: bool) -> None:
    job = make('a', SESSION.replace('=True)', f'={session})') + 'finish()')
    run_local([job], ['cpu'], 'quiet')
    assert job.finished
    wait_until(lambda: is_free(job.folder / 'lock'), 'a process is left')


def test_a_command_that_hears_no_sigterm_is_ended(make: Callable[..., Job]) -> None:
    deaf = SESSION.replace('child = ', 'child = "signal.signal(15, signal.SIG_IGN)\\n" + ')
    job = make('a', deaf + 'finish()')
    run_local([job], ['cpu'], 'quiet')
    assert job.finished
    assert is_free(job.folder / 'lock')


@pytest.mark.parametrize('last', [HANG, SESSION + 'time.sleep(600)'], ids=['group', 'session'])
def test_children_end_with_a_killed_scheduler(make: Callable[..., Job], last: str) -> None:
    jobs = [make('done'), make('a', HANG), make('b', last), make('waiting')]
    scheduler = start_scheduler(jobs)
    for job in jobs[1:3]:
        wait_until((job.folder / 'held').exists, 'not started')
    assert not is_free(jobs[1].folder / 'lock')
    scheduler.kill()
    scheduler.communicate()
    for job in jobs[1:3]:
        wait_until(lambda job=job: is_free(job.folder / 'lock'), 'a child outlives its scheduler')
    assert [job.finished for job in jobs] == [True, False, False, False]
    assert [job.failure for job in jobs] == [None] * 4
    again = [jobs[0], make('a'), make('b'), jobs[3]]
    run_local(again, ['cpu'], 'quiet')
    assert all(job.finished for job in again)


@pytest.mark.parametrize('last', [HANG, SESSION + 'time.sleep(600)'], ids=['group', 'session'])
def test_ctrl_c_ends_the_children_and_says_how_to_go_on(
    make: Callable[..., Job], last: str
) -> None:
    jobs = [make('done'), make('a', HANG), make('b', last)]
    scheduler = start_scheduler(jobs)
    for job in jobs[1:]:
        wait_until((job.folder / 'held').exists, 'not started')
    scheduler.send_signal(signal.SIGINT)
    out, err = scheduler.communicate()
    assert scheduler.returncode == 130
    assert err == 'interrupted\n'
    last = out.splitlines()[-1]
    assert last == ('interrupted; 1 of 3 cells are finished and stay; go on with the same command')
    assert all(is_free(job.folder / 'lock') for job in jobs[1:])
    assert [job.failure for job in jobs] == [None] * 3


def test_an_interrupted_call_has_ended_its_children(
    make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make('a', HANG)

    def interrupt(shown: display.Display) -> None:
        if (job.folder / 'held').exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(display.Display, 'look', interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_local([job], ['cpu'], 'quiet')
    wait_until(lambda: is_free(job.folder / 'lock'), 'a child is left')


def test_lines_are_plain(make: Callable[..., Job], capsys: pytest.CaptureFixture) -> None:
    jobs = [make('a'), make('b', "sys.exit('error: \\x1b[31mred\\x07')"), make('c')]
    (jobs[2].folder / 'result.json').write_text('{}')
    run_local(jobs, ['cpu'])
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert [re.sub(r'\d+:\d\d:\d\d', 'T', line) for line in out.splitlines()] == [
        'a: started on cpu',
        'a: finished in T; 2 of 3 cells finished, about T left',
        'b: started on cpu',
        f'b: failed: error: red ({jobs[1].log}); 2 of 3 cells finished, 1 failed',
    ]
    run_local(jobs, ['cpu'], 'quiet')
    assert capsys.readouterr().out == ''
    run_local([make('d', "print('one')\nprint('two', end='')\nfinish()")], ['cpu'], 'verbose')
    assert 'd: one\nd: finished' in capsys.readouterr().out


def test_a_terminal_shows_epochs_and_failures(
    make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(display, 'on_terminal', lambda: True)
    jobs = [make('a[b]'), make('c'), make('d')]
    write_json(jobs[0].folder / 'progress.json', {'epoch': 3, 'epochs': 12, 'seconds': 30.0})
    jobs[1].fail('no [red] luck')
    with display.job_display('auto', jobs, 2) as shown:
        for job in jobs[:2]:
            shown.started(job, 'cpu')
        shown.ended(jobs[1])
        shown.look()
        console = Console(record=True, width=80)
        console.print(shown.picture())
    text = console.export_text()
    assert '0 of 3 cells finished, 1 failed\n' in text
    assert re.search(r'a\[b\] +cpu +epoch 3/12 +0:01:30 left', text)
    assert 'c: failed: no [red] luck' in text
    assert 'epoch 3/12' in capsys.readouterr().out


def test_the_time_left_is_estimated_from_jobs_alike(make: Callable[..., Job]) -> None:
    def cell(name: str, method: str, backbone: str, mode: str = 'quick') -> Job:
        return make(name, mode=mode, backbone=backbone, method=method)

    jobs = [cell('a', 'gap', 'r50'), cell('b', 'warn', 'r50'), cell('c', 'gap', 'vit')]
    jobs += [cell('d', 'gap', 'r50'), cell('e', 'att2', 'r50'), cell('f', 'siou', 'lite0')]
    assert display.Estimate(jobs, 2).left([], jobs) is None
    write_json(jobs[0].folder / 'result.json', {'seconds': {'train': 9.0, 'test': 1.0}})
    estimate = display.Estimate(jobs, 2)
    assert estimate.seconds(jobs[3]) == estimate.seconds(jobs[5]) == 10
    estimate.add(jobs[1], 30)
    estimate.add(jobs[2], 50)
    assert estimate.seconds(jobs[3]) == 10  # of its own kind
    assert estimate.seconds(jobs[4]) == 20  # of its backbone
    assert estimate.seconds(jobs[5]) == 30  # of all
    # places: d ends in 4 s, then e takes 20; f takes 30
    assert estimate.left([(jobs[3], 6)], [jobs[5], jobs[4]]) == 30
    assert estimate.left([(jobs[3], 60)], []) == 0


def test_progress_is_read_from_the_folder(make: Callable[..., Job]) -> None:
    job = make('a')
    assert job.progress is None
    write_json(job.folder / 'progress.json', {'epoch': 1, 'epochs': 3, 'seconds': 1.5})
    assert job.progress == Progress(1, 3, 1.5)
    for wrong in ('{"epoch": 1', '[]', '{"epoch": 1}'):
        (job.folder / 'progress.json').write_text(wrong)
        assert job.progress is None


def test_files_are_never_there_in_part(tmp_path: Path) -> None:
    write_json(tmp_path / 'a.json', {'a': 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / 'a.json', {'a': object()})
    assert json.loads((tmp_path / 'a.json').read_text()) == {'a': 1}
    assert [file.name for file in tmp_path.iterdir()] == ['a.json']


def test_scores_are_never_there_in_part(tmp_path: Path) -> None:
    path = tmp_path / 'scores.npz'
    path.write_bytes(b'before')
    with pytest.raises(OSError, match='full'), whole_file(path) as file:
        file.write(b'a part')
        raise OSError('the disk is full')
    assert path.read_bytes() == b'before'
    assert [file.name for file in tmp_path.iterdir()] == ['scores.npz']


def test_a_result_needs_the_scores_of_its_cell(make: Callable[..., Job]) -> None:
    job = make('a', "assert not Path('result.json').exists()\nfinish()")
    write_json(job.folder / 'result.json', {'cell': {'seed': 0}})
    assert not job.finished
    scores = job.folder / 'scores.npz'
    np.savez_compressed(scores, val_scores=np.random.default_rng(0).normal(size=(50, 3)))
    assert job.finished
    content = scores.read_bytes()
    half = len(content) // 2
    for spoilt in (content[:half], b'', bytes(len(content)),
                   content[:half] + bytes(9) + content[half + 9 :]):  # fmt: skip
        scores.write_bytes(spoilt)
        assert not job.finished
    run_local([job], ['cpu'], 'quiet')
    assert job.finished
    assert job.failure is None


def test_a_cell_that_another_process_trains_keeps_its_files(make: Callable[..., Job]) -> None:
    job = make('a', "sys.exit('error: another process')")
    job.log.write_text('epoch 1\n')
    write_json(job.folder / 'progress.json', {'epoch': 1, 'epochs': 3, 'seconds': 1.5})
    with only_process_in(job.folder):
        run_local([job], ['cpu'], 'quiet')
    assert job.failure == 'error: another process'
    assert job.log.read_text() == 'epoch 1\nerror: another process\n'
    assert job.progress == Progress(1, 3, 1.5)
    run_local([make('a')], ['cpu'], 'quiet')
    assert job.finished
    assert job.log.read_text() == ''


def test_a_folder_is_of_one_comparison_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / 'out'
    refused = pytest.raises(UserError, match=f'--out {out}: a comparison is running there')
    with only_comparison_in(out), refused, only_comparison_in(out):
        pass
    with only_comparison_in(out):
        pass


def test_a_job_that_is_ended_is_no_failure(make: Callable[..., Job]) -> None:
    process = JobProcess(make('a', HANG))
    wait_until((process.job.folder / 'held').exists, 'not started')
    process.end()
    wait_until(lambda: is_free(process.job.folder / 'lock'), 'a process is left')
    assert process.job.failure is None
