"""The job array of a comparison: on submitit's local executor, and on a Slurm made of scripts."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fgplugins.compare import cluster, display
from fgplugins.compare.cluster import Cluster, dry_run_text, run_slurm, sbatch_options
from fgplugins.compare.jobs import Job, read_json, write_json
from fgplugins.compare.local import run_local
from fgplugins.errors import UserError

pytest.importorskip('submitit', reason='of clusters')

# What submitit calls, as far as it calls it. Tasks run one after another; what becomes of them is
# in $SLURM_FAKE, where a task that asks to be requeued runs again.
SBATCH = r"""
if [ -e $SLURM_FAKE/refuses ]; then echo 'sbatch: error: invalid partition' >&2; exit 1; fi
cp "$1" $SLURM_FAKE/script.sh
last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\)%.*/\1/p' "$1")
tasks=$(if [ $last ]; then seq -f 7_%g 0 $last; else echo 7; fi)
echo "Submitted batch job 7"
echo x >> $SLURM_FAKE/submissions
for task in $tasks; do echo PENDING > $SLURM_FAKE/$task; done
run() {
  export SLURM_JOB_ID=7 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0
  export SLURM_LOCALID=0
  if [ $last ]; then export SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=${1#7_}; fi
  while true; do
    echo RUNNING > $SLURM_FAKE/$1
    if bash $SLURM_FAKE/script.sh; then state=COMPLETED; else state=FAILED; fi
    rm $SLURM_FAKE/requeued_$1 2>/dev/null || break
  done
  echo $state > $SLURM_FAKE/$1
}
(for task in $tasks; do run $task; done) </dev/null >/dev/null 2>&1 &
"""
SRUN = """
while [ "${1#--}" != "$1" ]; do
  case $1 in
    --output) out=$2; shift 2;;
    --error) err=$2; shift 2;;
    *) shift;;
  esac
done
name() { echo $1 | sed "s/%A/7/; s/%a/$SLURM_ARRAY_TASK_ID/; s/%j/7/; s/%t/0/"; }
exec "$@" >> $(name $out) 2>> $(name $err)
"""
SACCT = """
if [ -e $SLURM_FAKE/knows_nothing ]; then exit 0; fi
echo 'JobID|State|NodeList'
for task in $(ls -d $SLURM_FAKE/7*); do echo "$(basename $task)|$(cat $task)|node"; done
"""
SCONTROL = 'touch $SLURM_FAKE/requeued_$2'


def forget() -> None:
    """Forget what submitit knows of the tasks, as another process would not know it."""
    import submitit

    submitit.SlurmJob.watcher.clear()
    submitit.SlurmJob.watcher._registered.clear()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm of scripts; the folder that holds what became of its tasks."""
    commands, state = tmp_path / 'bin', tmp_path / 'slurm_state'
    commands.mkdir()
    state.mkdir()
    for name, script in (('sbatch', SBATCH), ('srun', SRUN), ('sacct', SACCT)):
        (commands / name).write_text(f'#!/bin/bash\n{script}')
    (commands / 'scontrol').write_text(f'#!/bin/bash\n{SCONTROL}')
    for file in commands.iterdir():
        file.chmod(0o755)
    monkeypatch.setenv('PATH', f'{commands}:/usr/bin:/bin')
    monkeypatch.setenv('SLURM_FAKE', str(state))
    forget()
    return state


BEGIN = """
import os, signal, sys, time
from pathlib import Path
os.chdir(sys.argv[1])
def task():
    return int(Path(f'/proc/{os.getppid()}/stat').read_text().split()[3])  # the keeper's parent
finish = lambda: Path('result.json').write_text('{}')
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """Make a job of a program; the waiting is shortened."""
    monkeypatch.setattr(cluster, 'POLL', 0.1)
    monkeypatch.setattr(cluster, 'GRACE', 0.5)

    def job(name: str, program: str = 'finish()') -> Job:
        folder = tmp_path / 'cells' / name
        folder.mkdir(parents=True)
        command = [sys.executable, '-I', '-S', '-c', BEGIN + program, str(folder)]
        return Job(name, folder, command)

    return job


def test_the_local_executor_runs_jobs(
    make: Callable[..., Job], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    jobs = [make('a'), make('b', "sys.exit('error: no')")]
    run_slurm(jobs, tmp_path / 'submitit', Cluster(gpus=0), executor='local')
    assert jobs[0].finished
    assert jobs[1].failure == 'error: no'
    out = capsys.readouterr().out
    assert 'a: finished in 0:00:0' in out
    assert f'b: failed: error: no ({jobs[1].log}); ' in out
    assert '; 1 of 2 cells finished, 1 failed' in out.splitlines()[-1]
    assert not (jobs[1].folder / 'slurm.json').exists()


def test_a_job_array(make: Callable[..., Job], tmp_path: Path, slurm: Path) -> None:
    """One finishes, one fails, one is preempted and runs again, one is killed with its task."""
    preempted = """
if Path('tried').exists():
    finish()
else:
    Path('tried').touch()
    os.kill(task(), signal.SIGUSR2)
    time.sleep(600)
"""
    killed = "print('x')\nos.kill(task(), signal.SIGKILL)\ntime.sleep(600)"
    jobs = [make('done'), make('a'), make('b', "sys.exit('error: no')")]
    jobs += [make('c', preempted), make('d', killed)]
    (jobs[0].folder / 'result.json').write_text('{}')
    (jobs[1].folder / 'failed.json').write_text('{"reason": "earlier"}')
    run_slurm(jobs, tmp_path / 'submitit', Cluster(at_once=2, partition='gpu'), 'quiet')
    assert [job.failure for job in jobs[:4]] == [None, None, 'error: no', None]
    assert [job.finished for job in jobs] == [True, True, False, True, False]
    assert jobs[4].failure.startswith('the cluster ended it (FAILED)')
    script = (slurm / 'script.sh').read_text()
    assert '#SBATCH --array=0-3%2\n' in script
    assert '#SBATCH --requeue\n' in script
    assert (slurm / 'submissions').read_text() == 'x\n'


def test_one_job_is_no_array(make: Callable[..., Job], tmp_path: Path, slurm: Path) -> None:
    job = make('a')
    run_slurm([job], tmp_path / 'submitit', Cluster(), 'quiet')
    assert job.finished
    assert '#SBATCH --array' not in (slurm / 'script.sh').read_text()
    assert '#SBATCH --array' not in dry_run_text([make('b')], tmp_path / 'submitit', Cluster())


SLOW = "while not Path('../go').exists():\n    time.sleep(0.05)\nfinish()"


@pytest.fixture
def interrupted(
    make: Callable[..., Job], tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> Iterator[list[Job]]:  # fmt: skip
    """A job array of two tasks that nobody waits for: the first has ended, the second runs."""
    jobs = [make('a'), make('b', SLOW)]

    def interrupt(shown: display.Display) -> None:
        if 'b' in shown.running:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(display.Display, 'look', interrupt)
        run_slurm(jobs, tmp_path / 'submitit', Cluster(), 'quiet')
    said = capsys.readouterr().out
    assert said == (
        '\ninterrupted; 1 of 2 cells are finished, the others run on: '
        'wait for them with the same command, or scancel 7\n'
    )
    yield jobs
    (tmp_path / 'cells' / 'go').touch()  # so that nothing is left running


def test_submitted_jobs_are_waited_for_again(
    interrupted: list[Job], tmp_path: Path, slurm: Path
) -> None:
    (tmp_path / 'cells' / 'go').touch()
    run_slurm(interrupted, tmp_path / 'submitit', Cluster(), 'quiet')
    assert all(job.finished for job in interrupted)
    assert (slurm / 'submissions').read_text() == 'x\n'


def test_submitted_jobs_are_not_run_here(
    interrupted: list[Job], tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget()
    refusal = '^--jobs local: Slurm has 1 of the 1 that are left, as b: .* by scancel 7$'
    with pytest.raises(UserError, match=refusal):
        run_local(interrupted, ['cpu'], 'quiet')
    assert interrupted[1].failure is None
    (tmp_path / 'cells' / 'go').touch()
    run_slurm(interrupted, tmp_path / 'submitit', Cluster(), 'quiet')
    (interrupted[1].folder / 'result.json').unlink()
    for _ in range(200):
        if (slurm / '7_1').read_text() == 'COMPLETED\n':
            break
        time.sleep(0.05)
    forget()
    run_local(interrupted, ['cpu'], 'quiet')
    assert all(job.finished for job in interrupted)
    (interrupted[1].folder / 'result.json').unlink()
    (slurm / '7_1').write_text('RUNNING')
    forget()
    monkeypatch.setattr(cluster, 'find_spec', lambda name: None)  # nobody to ask
    run_local(interrupted, ['cpu'], 'quiet')
    assert all(job.finished for job in interrupted)


def test_a_task_that_sacct_does_not_know_yet_is_waited_for(
    interrupted: list[Job], tmp_path: Path, slurm: Path
) -> None:
    (slurm / 'knows_nothing').touch()
    job = interrupted[1]

    def alive() -> bool:
        forget()
        return 'b' in cluster._submitted_before(interrupted, tmp_path / 'submitit')

    assert alive()
    job.fail('error: no')
    assert not alive()
    job.clear()
    record = read_json(job.folder / 'slurm.json')
    write_json(job.folder / 'slurm.json', {**record, 'time': record['time'] - cluster.LATELY})
    assert not alive()
    (slurm / 'knows_nothing').unlink()
    assert alive()
    (tmp_path / 'cells' / 'go').touch()
    run_slurm(interrupted, tmp_path / 'submitit', Cluster(), 'quiet')
    assert job.finished
    assert (slurm / 'submissions').read_text() == 'x\n'


def test_a_task_leaves_a_finished_job_alone(make: Callable[..., Job]) -> None:
    job = make('a')
    write_json(job.folder / 'result.json', {'by': 'another process'})
    cluster.Task(job)()
    assert read_json(job.folder / 'result.json') == {'by': 'another process'}


def test_what_slurm_refuses_is_one_line(
    make: Callable[..., Job], tmp_path: Path, slurm: Path
) -> None:
    (slurm / 'refuses').touch()
    with pytest.raises(UserError, match=r'^--jobs slurm: .*invalid partition'):
        run_slurm([make('a')], tmp_path / 'submitit', Cluster(), 'quiet')


def test_a_machine_without_slurm(
    make: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match='--jobs slurm: this machine has no srun'):
        run_slurm([make('a')], tmp_path / 'submitit', Cluster(), 'quiet')
    monkeypatch.setitem(sys.modules, 'submitit', None)
    with pytest.raises(UserError, match=r"pip install 'fgplugins\[compare\]'"):
        run_slurm([make('b')], tmp_path / 'submitit', Cluster(), 'quiet')


def test_a_dry_run_is_a_job_array(make: Callable[..., Job], tmp_path: Path) -> None:
    jobs = [make('a'), make('b'), make('c'), make('d')]
    (jobs[0].folder / 'result.json').write_text('{}')
    before = sorted(tmp_path.rglob('*'))
    options = sbatch_options(['account=me', '--exclusive', 'cpus-per-task=8'])
    asked = Cluster('gpu', gpus=2, minutes=90, at_once=2, options=options)
    text = dry_run_text(jobs, tmp_path / 'submitit', asked)
    for line in ('array=0-2%2', 'partition=gpu', 'gpus-per-node=2', 'time=90', 'account=me'):
        assert f'#SBATCH --{line}\n' in text
    assert '#SBATCH --exclusive\n#SBATCH' in text
    assert re.search(r'^srun .* -m submitit\.core\._submit ', text, re.MULTILINE)
    assert text.endswith('# task 0: b\n# task 1: c\n# task 2: d\n')
    assert '#SBATCH --gpus' not in dry_run_text(jobs, tmp_path, Cluster(gpus=0))
    assert dry_run_text(jobs[:1], tmp_path, asked).startswith('nothing to submit')
    assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize(
    ('item', 'said'),
    [('=3', 'KEY=VALUE'), ('mem=', 'KEY=VALUE'), ('array=0-3', 'is set for the job array')],
)
def test_a_wrong_sbatch_option(item: str, said: str) -> None:
    with pytest.raises(UserError, match=f'sbatch option {item!r}: .*{said}'):
        sbatch_options([item])
