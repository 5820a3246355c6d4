"""Arguments that several command lines take; nothing heavy is imported to say what they are."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from contextlib import suppress

from fgplugins.errors import UserError

__all__ = [
    'Overrides',
    'add_config_arguments',
    'add_launcher_arguments',
    'add_model_arguments',
    'add_timing_arguments',
    'add_versus_arguments',
    'parse_setting',
]


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every command over a config takes."""
    parser.add_argument('config', help='config file, or the name of a shipped one')
    parser.add_argument('--work-dir', help='where logs and checkpoints go (work_dirs/<config>)')
    parser.add_argument(
        '--data-root', help='folder of the data; its classes are counted and used for the model'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Overrides,
        metavar='KEY=VALUE',
        help='override settings of the config, as train_cfg.max_epochs=2',
    )


def add_launcher_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command that several processes may run together."""
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='see README'
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by launchers'
    )


def add_model_arguments(parser: argparse.ArgumentParser, checkpoint: bool = False) -> None:
    """How a command line names a model of either zoo."""
    parser.add_argument('model', help='config file (or the name of a shipped one), or a timm model')
    if checkpoint:
        parser.add_argument('checkpoint', help='trained weights')
    parser.add_argument(
        '--model-kwargs',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help='arguments of a timm model, as backbone=resnet18 num_classes=200',
    )
    parser.add_argument(
        '--img-size',
        dest='model_kwargs',
        action='append',
        type=_img_size,
        metavar='N',
        help="side of a timm model's images (what its checkpoint or its settings say)",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='override settings of a config, as model.head.num_classes=200',
    )


def _img_size(text: str) -> str:
    """``'96'`` as one of the arguments of a timm model."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive number')
    return f'img_size={int(text)}'


def add_versus_arguments(parser: argparse.ArgumentParser) -> None:
    """How a command line names a second model, and its settings."""
    parser.add_argument(
        '--versus',
        metavar='MODEL',
        help='a second model to compare with: a config, a timm name, NAME:paper or NAME:backbone; '
        'a form alone, as :backbone, is the first model in that form',
    )
    parser.add_argument(
        '--versus-kwargs',
        nargs='+',
        metavar='KEY=VALUE',
        help="--model-kwargs of the second model (the first's num_classes and in_chans)",
    )
    parser.add_argument(
        '--versus-cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='--cfg-options of the second model',
    )


def add_timing_arguments(parser: argparse.ArgumentParser, seconds: float) -> None:
    """The arguments of every command that times by pairs.

    Args:
        parser: of the command.
        seconds: how long the calls of a round take, if nobody says.
    """
    parser.add_argument('--rounds', type=int, default=7, help='pairs of timings, at least 5 (7)')
    parser.add_argument(
        '--seconds',
        type=float,
        default=seconds,
        help=f'how long the calls of a round take ({seconds})',
    )
    parser.add_argument(
        '--cpu-time',
        action='store_true',
        help="the process's time on the CPU instead of the clock's, where others share the machine",
    )


class Overrides(argparse.Action):
    """``KEY=VALUE ...``: a dict, over all times that the option is given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: list[str],
        option_string: str | None = None,
    ) -> None:
        wrong = next((value for value in values if '=' not in value), None)
        if wrong is not None:
            raise UserError(f'{option_string} {wrong!r}: must read KEY=VALUE')
        options = dict(getattr(namespace, self.dest, None) or {})
        options |= {key: parse_setting(text) for key, text in (v.split('=', 1) for v in values)}
        setattr(namespace, self.dest, options)


def parse_setting(text: str) -> object:
    """The value of a setting: a Python literal, or what mmengine's ``DictAction`` reads, or text.

    ``1e-3`` is a number, ``true`` is True, ``1,2`` is a list, as ``[a,b]`` is, and ``(a,b)`` a
    tuple.
    """
    if text[:1] in ('{', '[', '(', '"', "'"):
        with suppress(ValueError, SyntaxError):
            return ast.literal_eval(text)
    try:
        return _parse_items(text)
    except ValueError:
        return text


def _parse_items(text: str) -> object:
    """One value, or several between commas; brackets say that they belong together.

    Raises:
        ValueError: if the brackets do not fit.
    """
    text = text.strip('\'"').replace(' ', '')
    ends = text[:1] + text[-1:] if len(text) > 1 else ''
    if ends not in ('()', '[]') and ',' not in text:
        return _parse_scalar(text)
    inner = text[1:-1] if ends in ('()', '[]') else text
    parts = list(_split(inner))
    if parts == [text]:
        raise ValueError(f'{text!r}: the brackets do not fit')
    values = [_parse_items(part) for part in parts]
    return tuple(values) if ends == '()' else values


def _split(text: str) -> Iterator[str]:
    """The parts between commas outside all brackets."""
    start, open_ = 0, {'(': 0, '[': 0}
    for i, sign in enumerate(text):
        if sign in '()':
            open_['('] += 1 if sign == '(' else -1
        elif sign in '[]':
            open_['['] += 1 if sign == '[' else -1
        elif sign == ',' and not any(open_.values()):
            yield text[start:i]
            start = i + 1
    if any(open_.values()):
        raise ValueError(f'{text!r}: the brackets do not fit')
    if start < len(text):
        yield text[start:]


def _parse_scalar(text: str) -> object:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    words = {'true': True, 'false': False}
    return None if text == 'None' else words.get(text.lower(), text)
