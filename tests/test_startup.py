"""What a start brings in: the package and the tools' help are light, timm's models are there."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from fgplugins.utils.arguments import parse_setting

ROOT = Path(__file__).parent.parent
TOOLS = sorted(path.stem for path in (ROOT / 'tools').glob('*.py'))
HEAVY = ('torch', 'timm', 'mmengine', 'mmcv', 'mmpretrain', 'numpy', 'PIL', 'matplotlib')

# runs the command lines that it is given one after the other, and says what they ended with and
# which modules they have brought in
COMMANDS = f"""
import json, sys
from fgplugins.__main__ import command

codes = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ['fgplugins', *arguments]
    try:
        codes.append(command() or 0)
    except SystemExit as end:
        codes.append(end.code)
print(json.dumps([codes, [name for name in {HEAVY} if name in sys.modules]]))
"""


def python(code: str, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess:
    """A new process of Python, with a folder before the others that it imports from."""
    folders = [str(folder) for folder in (path, ROOT) if folder]
    return subprocess.run(
        [sys.executable, '-c', code, *arguments],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
    )


def run_commands(*lines: list[str]) -> tuple[list[int], str, str]:
    """Exit codes of command lines, and what they print; none of them brings in what is heavy."""
    done = python(COMMANDS, json.dumps(lines))
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    codes, heavy = json.loads(last)
    assert heavy == []
    return codes, '\n'.join(printed), done.stderr


@pytest.mark.parametrize('name', TOOLS)
def test_help_and_wrong_options_are_light(name: str) -> None:
    codes, out, err = run_commands(
        [name, '--help'], [name, '--no-such-option'], [name, *'abc', '--no-such-option']
    )
    assert codes == [0, 2, 2]
    assert out.startswith(f'usage: fgplugins {name} [-h]') and 'options:' in out
    assert f'fgplugins {name} ' in out.split('\n\n', 1)[1], 'the examples'
    assert 'python tools' not in out
    assert err.count(f'fgplugins {name}: error: ') == 2 and 'Traceback' not in err


def test_the_command_itself() -> None:
    codes, out, err = run_commands(
        [], ['--help'], ['--version'], ['trian'], ['zzz'], ['--no-such-option']
    )
    assert codes == [0, 0, 0, 2, 2, 2]
    first, second = out.split('usage: ')[1:]
    assert second == first.rstrip() + '\n\n'.rstrip() + '\nfgplugins 0.1.0'
    for name in TOOLS:
        line = next(line for line in first.splitlines() if line.split()[:1] == [name])
        assert line.endswith('.') and len(line.split()) > 3
    assert err.splitlines() == [
        "error: 'trian' is not a tool; did you mean train?",
        f"error: 'zzz' is not a tool; there are: {', '.join(TOOLS)}",
        'error: --no-such-option is not an option; there are --help and --version, and the tools',
    ]


def test_the_console_script_is_declared() -> None:
    assert "'fgplugins=fgplugins.__main__:command'" in (ROOT / 'setup.py').read_text()


def test_a_tool_runs_as_the_main_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Processes that load data look for its functions by the file of the main module."""
    from fgplugins.__main__ import run_tool

    path = tmp_path / 'mine.py'
    path.write_text(
        'import sys\nsys.seen = __name__, __file__, sys.argv, sys.modules[__name__].__dict__\n'
        'own = 1\n'
    )
    for owner, name in ((sys, 'argv'), (sys.modules, '__main__')):
        put = monkeypatch.setattr if owner is sys else monkeypatch.setitem
        put(owner, name, getattr(sys, name, None) or sys.modules[name])
    monkeypatch.setattr(sys, 'seen', None, raising=False)
    run_tool(path, ['a'])
    name, file, argv, names = sys.seen
    assert (name, file, argv) == ('__main__', str(path), ['fgplugins mine', 'a'])
    assert names['own'] == 1 and sys.modules['__main__'].__spec__ is None


# --------------------------------------------------------------------------------- import fgplugins


def test_the_package_alone_is_light() -> None:
    """It says all that it has; a name that it lacks is missed as ever."""
    done = python(
        f"""
import sys, fgplugins
assert not [name for name in {HEAVY} if name in sys.modules]
assert set(fgplugins.__all__) < set(dir(fgplugins)) and 'networks' in dir(fgplugins)
for wrong in ('fgplugins.WARN', 'exec("from fgplugins import WARN")'):
    try:
        eval(wrong)
    except (AttributeError, ImportError) as error:
        print(type(error).__name__, error)
assert not [name for name in {HEAVY} if name in sys.modules]
import fgplugins.methods
print(fgplugins.methods.list_methods())
assert 'timm' not in sys.modules
"""
    )
    assert done.returncode == 0, done.stderr
    attribute, name, methods = done.stdout.splitlines()
    assert attribute == "AttributeError module 'fgplugins' has no attribute 'WARN'"
    assert name.startswith("ImportError cannot import name 'WARN' from 'fgplugins'")
    assert methods == "['art', 'att2', 'clan', 'gap', 'siou', 'warn']"


@pytest.mark.parametrize(
    'imports',  # timm comes first in most other test files
    ['import fgplugins, timm', 'import fgplugins.networks, timm'],  # here the networks import timm
)
def test_models_are_there_after_both_imports(imports: str) -> None:
    done = python(
        f"""
{imports}
print(timm.list_models('warn*'))
import importlib, sys, fgplugins
importlib.reload(fgplugins)
print(fgplugins.get_method('warn').__name__, timm.__loader__)
print([finder for finder in sys.meta_path if type(finder).__module__.startswith('fgplugins')])
"""
    )
    assert done.returncode == 0, done.stderr
    models, known, finders = done.stdout.splitlines()
    assert "'warn', 'warn_wide_resnet50_2'" in models and 'warn_wrn28_10' in models
    assert known.startswith('WARN <_frozen_importlib_external.SourceFileLoader')
    assert finders == '[]'


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder with a small ``timm``; what the package does with it is one line of text."""
    (tmp_path / 'timm').mkdir()
    (tmp_path / 'timm' / '__init__.py').write_text("VALUE = 1\nprint('timm')\n")
    (tmp_path / 'timm' / 'models.py').write_text('')
    (tmp_path / 'plain.py').write_text(
        """
import sys, types
import fgplugins

class Zoo:
    fail = False
    def find_spec(self, name, path=None, target=None):
        if name == 'fgplugins.zoo_timm':
            import importlib.machinery
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        import timm
        print('registered', timm.VALUE)
        if Zoo.fail:
            raise ValueError('no place for it')

sys.meta_path.insert(0, Zoo())
"""
    )
    return tmp_path


def test_who_only_looks_for_timm_registers_nothing(stand_in: Path) -> None:
    done = python(
        """
import importlib.util, plain
for _ in range(2):
    spec = importlib.util.find_spec('timm')
    assert spec.origin.endswith('__init__.py') and 'VALUE' in spec.loader.get_source('timm')
import timm.models
assert timm.__spec__.loader is timm.__loader__
assert type(timm.__loader__).__module__ == '_frozen_importlib_external'
import timm
""",
        path=stand_in,
    )
    assert done.stdout.splitlines() == ['timm', 'registered 1'], done.stderr


def test_what_goes_wrong_is_said_and_tried_again(stand_in: Path) -> None:
    done = python(
        """
import plain
plain.Zoo.fail = True
for line in ('import timm', 'import timm', 'plain.fgplugins.Method'):
    try:
        exec(line)
    except ValueError as error:
        print(error)
plain.Zoo.fail = False
from fgplugins import after_timm
after_timm.register()
after_timm.register()
""",
        path=stand_in,
    )
    attempt = ['timm', 'registered 1', 'no place for it']
    assert done.stdout.splitlines() == [*attempt * 3, 'registered 1'], done.stderr


def test_without_timm(stand_in: Path) -> None:
    (stand_in / 'timm' / '__init__.py').write_text('import no_such_module\n')
    done = python(
        """
import plain
for line in ('import timm', 'plain.fgplugins.Method'):
    try:
        exec(line)
    except ImportError as error:
        print(error)
""",
        path=stand_in,
    )
    assert done.stdout.splitlines() == ["No module named 'no_such_module'"] * 2, done.stderr


def test_many_threads(stand_in: Path) -> None:
    done = python(
        """
import plain, threading
wrong = []
def work():
    try:
        import timm
        import fgplugins.zoo_timm
    except BaseException as error:
        wrong.append(error)
threads = [threading.Thread(target=work) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(wrong)
""",
        path=stand_in,
    )
    assert done.stdout.splitlines() == ['timm', 'registered 1', '[]'], done.stderr


# ----------------------------------------------------------------------------------- the arguments


def test_settings_are_read_as_mmengine_reads_them() -> None:
    config = pytest.importorskip('mmengine.config')

    def theirs(text: str) -> object:
        try:
            return config.DictAction._parse_iterable(text)
        except (AssertionError, RecursionError):
            return text

    dice = random.Random(0)
    signs = ['(', ')', '[', ']', ',', ' ', '1', '2.5', 'a', 'true', 'None', 'e', '-', '_']
    for _ in range(3000):
        text = 'x' + ''.join(dice.choice(signs) for _ in range(dice.randrange(10)))
        for value in (text, f"'{text[1:]}", text[1:]):
            if value[:1] not in ('(', '[', "'"):  # these are Python's first
                assert repr(parse_setting(value)) == repr(theirs(value)), value
    for text in ('[a,(b,1)]', '(a,b)', '[(1,a),2', '(a)(b)', '(a),(b)', '[]', '()', "['a,b']"):
        try:
            expected = eval(text, {'__builtins__': {}})
        except (NameError, SyntaxError, TypeError):
            expected = theirs(text)
        assert parse_setting(text) == expected, text


def test_the_line_on_onedl_alone_is_kept_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip('mmpretrain')
    from fgplugins.zoo_mmpretrain import first_import

    def talk(name: str) -> None:
        print(f'a line\nCould not import OneDL\nanother of {name}')
        raise ImportError('and an error')

    monkeypatch.setattr(first_import.importlib, 'import_module', talk)
    with pytest.raises(ImportError, match='and an error'):
        first_import.import_mmpretrain()
    assert capsys.readouterr().out == 'a line\nanother of mmpretrain.datasets\n'
