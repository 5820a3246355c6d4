"""Which room may import what: read from the files themselves."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

import pytest

import fgplugins

PACKAGE = Path(fgplugins.__file__).parent

# room -> the rooms below it, and the packages besides the standard library that it may import
RULES: dict[str, tuple[str, str]] = {
    'errors': ('', ''),
    'methods': ('errors', 'torch'),
    'utils': ('errors methods', 'torch numpy matplotlib rich'),
    'networks': ('errors methods utils', 'torch timm'),
    'data': ('errors utils', 'torch numpy scipy PIL pillow_heif sklearn imagehash'),
    'zoo_timm': ('errors methods utils networks data', 'torch timm numpy PIL'),
    'zoo_mmpretrain': (
        'errors methods utils networks data model_index',
        'torch numpy PIL sklearn timm mmengine mmcv mmpretrain filelock rich',
    ),
    'analysis': (
        'errors methods utils networks data zoo_timm zoo_mmpretrain',
        'torch numpy PIL timm fvcore matplotlib mmengine mmpretrain tabulate',
    ),
    'serving': (
        'errors methods utils networks data zoo_timm zoo_mmpretrain analysis',
        'torch timm rich onnx onnxruntime safetensors sklearn mmpretrain',
    ),
    'compare': (
        'errors methods utils networks data zoo_timm zoo_mmpretrain analysis serving',
        'torch numpy scipy statsmodels tabulate matplotlib PIL timm mmengine mmpretrain rich '
        'submitit optuna filelock',
    ),
    'page': (
        'errors methods utils networks data zoo_timm zoo_mmpretrain analysis serving compare '
        '__init__',
        'torch numpy scipy PIL jinja2',
    ),
    'demo': (
        'errors methods utils networks data serving',
        'torch numpy gradio',
    ),
    'model_index': ('', ''),
    'registry': ('zoo_mmpretrain', ''),  # where mmengine looks for the scope
    '__init__': ('after_timm methods', ''),
    'after_timm': ('zoo_timm', ''),
    '__main__': ('__init__ errors utils', ''),
}
# one file more than its room may
EXCEPTIONS = {'methods/registry.py': 'fvcore.common.registry'}

# lines without blank ones, docstrings and comments that a file may have, by the start of its path
LENGTHS = {'methods/fast/': 350, 'methods/': 250, '': 350}

FILES = sorted(PACKAGE.rglob('*.py'))


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def imports(file: Path) -> list[str]:
    """The modules that a file imports, anywhere in it, by their full names."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{name_of(file)}:{node.lineno}: imports are absolute'
            for alias in node.names:
                inner = PACKAGE.parent.joinpath(*node.module.split('.'), alias.name)
                is_module = inner.is_dir() or inner.with_suffix('.py').is_file()
                found.append(f'{node.module}.{alias.name}' if is_module else node.module)
    return found


def code_lines(file: Path) -> int:
    """How many lines of a file hold code: no blank ones, docstrings or comments."""
    text = file.read_text(encoding='utf-8')
    skipped = (
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENDMARKER,
    )  # fmt: skip
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            lines -= set(range(first.lineno, first.end_lineno + 1))
    return len(lines)


@pytest.mark.parametrize('file', FILES, ids=name_of)
def test_a_room_imports_what_lies_below_it(file: Path) -> None:
    name = name_of(file)
    room = name.split('/')[0].removesuffix('.py')
    rooms, packages = (words.split() for words in RULES[room])
    for module in imports(file):
        top, *rest = module.split('.')
        if top == 'fgplugins':
            other = rest[0] if rest else '__init__'
            assert other in (room, *rooms), f'{name} imports {module}, {room} may not'
        elif top not in sys.stdlib_module_names:
            known = top in packages or module == EXCEPTIONS.get(name)
            assert known, f'{name} imports {module}, {room} may not'


def test_nothing_runs_back() -> None:
    """No file imports, over whatever others, itself."""
    known = {name_of(f).removesuffix('.py').removesuffix('/__init__'): f for f in FILES}
    below = {
        name: {m.removeprefix('fgplugins').lstrip('.').replace('.', '/') for m in imports(file)}
        for name, file in known.items()
    }
    for start in known:
        reached, ahead = set(), [n for n in below[start] if n in known]
        while ahead:
            name = ahead.pop()
            if name not in reached:
                reached.add(name)
                ahead += [n for n in below[name] if n in known]
        assert start not in reached, f'{start} is imported by what it imports'


@pytest.mark.parametrize('file', FILES, ids=name_of)
def test_no_file_is_too_long(file: Path) -> None:
    name = name_of(file)
    limit = next(most for start, most in LENGTHS.items() if name.startswith(start))
    assert code_lines(file) <= limit, f'{name}: a second idea is in it'
