"""Writing any name in a picture: its letters find a font, and nothing is read as a formula."""

from __future__ import annotations

import functools
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fgplugins.errors import UserError

__all__ = ['lettering', 'need_matplotlib', 'shortened']

# if several fonts have a letter, one of these is taken: their letters fit the picture best
PREFERRED = ('Noto Sans', 'Source Han Sans', 'WenQuanYi', 'Microsoft YaHei', 'PingFang', 'Hiragino')


def need_matplotlib() -> None:
    """Refuse to draw without matplotlib.

    Raises:
        UserError: if it is not installed; the message says how to install it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("pictures need matplotlib: pip install 'fgplugins[pictures]'") from None


def shortened(name: object, letters: int = 60) -> str:
    """A name on one line; of a long one the middle is left out."""
    line = ' '.join(str(name).split())
    if len(line) <= letters:
        return line
    head = letters // 2
    return f'{line[:head]}…{line[len(line) - (letters - head - 1) :]}'


@contextmanager
def lettering(texts: Iterable[str]) -> Iterator[Callable[[str], str]]:
    """Inside, matplotlib has fonts for these texts and takes ``$``, ``^`` and ``_`` as letters.

    What no font of the machine has is a number in a picture, ``[1]``, and a warning says what it
    stands for.

    Args:
        texts: all that will be written.

    Yields:
        A function that prepares one of them.
    """
    need_matplotlib()
    import matplotlib
    from matplotlib import font_manager

    seen = [_seen(text) for text in texts]
    letters = set('').union(*seen)
    default = font_manager.findfont(font_manager.FontProperties())
    missing = letters - _letters_of(default) - {'\n'}
    families, missing = _find_fonts(missing) if missing else ([], missing)
    runs = re.compile(f'[{re.escape("".join(sorted(missing)))}]+' if missing else '(?!)')
    found = dict.fromkeys(run for text in seen for run in runs.findall(text))
    numbers = {run: f'[{i + 1}]' for i, run in enumerate(found)}
    if numbers:
        legend = ', '.join(f'{number} {run}' for run, number in numbers.items())
        _say_once(
            f'pictures: no font of this machine can write {legend}; install one, as Noto Sans CJK '
            '(in Debian fonts-noto-cjk) for Chinese, Japanese and Korean'
        )

    def write(text: str) -> str:
        return runs.sub(lambda run: numbers[run[0]], _seen(text))

    own = matplotlib.rcParams['font.family']
    settings = {
        'font.family': [*([own] if isinstance(own, str) else own), *families],
        'text.parse_math': False,
        'text.usetex': False,
    }
    with matplotlib.rc_context(settings):
        yield write


def _seen(text: str) -> str:
    """A text without what cannot be seen; bytes of file names that are no letters by their code."""
    text = text.encode('utf-8', 'backslashreplace').decode()
    return ''.join(letter for letter in text if letter == '\n' or _has_shape(letter))


def _has_shape(letter: str) -> bool:
    """Whether a character is seen, and is no mark that only steers the writing."""
    steering = '\ufe00' <= letter <= '\ufe0f'  # chooses one of the shapes of the letter before
    return unicodedata.category(letter) not in ('Cc', 'Cf') and not steering


@functools.cache
def _letters_of(path: str) -> frozenset[str]:
    """The characters that a font file can draw at any size."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
    except (OSError, RuntimeError, ValueError):
        return frozenset()
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


def _find_fonts(missing: set[str]) -> tuple[list[str], set[str]]:
    """The families of fonts of the machine that have these letters; the letters that none has."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {font.fname for font in fontManager.ttflist}
    for path in set(findSystemFonts()) - known:  # matplotlib keeps its list from its first use
        try:
            fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):
            continue
    # not matplotlib's font of last resort, which has a box for every letter
    fonts = [f for f in fontManager.ttflist if 'lastresort' not in f.name.lower().replace(' ', '')]
    upright = [f for f in fonts if f.style == 'normal']
    regular = [f for f in upright if f.weight in (400, 'normal')]
    families = []
    for font in sorted(regular, key=lambda f: (not f.name.startswith(PREFERRED), f.name)):
        found = missing & _letters_of(font.fname) if Path(font.fname).is_file() else set()
        if found:
            families.append(font.name)
            missing = missing - found
        if not missing:
            break
    return families, missing


@functools.cache
def _say_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)
