r"""Time two models side by side, and measure their memory.

    python tools/benchmark.py warn_wrn28_10 --model-kwargs num_classes=100 --versus wrn28_10
    python tools/benchmark.py warn_wrn28_10 --model-kwargs num_classes=100 --paper --mode train
    python tools/benchmark.py clan_resnet50 --versus :backbone --sizes 224 448 --plot clan.png

The second model is another one, or the first in another form: NAME:paper computes in the paper's
order of operations, NAME:backbone has average pooling and a linear layer in the method's place.
Every round times calls of both in turn; the median of the rounds' ratios is reported.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import contextlib
import json
import shlex
import sys
from typing import TYPE_CHECKING

from fgplugins.analysis.modes import MODES
from fgplugins.analysis.tables import Table, write_text
from fgplugins.errors import UserError
from fgplugins.utils.arguments import (
    add_model_arguments,
    add_timing_arguments,
    add_versus_arguments,
)
from fgplugins.utils.command_line import check_outputs, command_parser, main_guard, require_module

if TYPE_CHECKING:
    from fgplugins.analysis.forms import ModelForm

SWEEPS = {'size': 'sizes', 'batch': 'batches', 'classes': 'classes', 'heads': 'heads'}


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_model_arguments(parser)
    parser.add_argument('--checkpoint', metavar='FILE', help='trained weights of the first model')
    add_versus_arguments(parser)
    parser.add_argument(
        '--paper', action='store_true', help='short for --versus :paper, which is the default'
    )
    parser.add_argument(
        '--mode',
        choices=list(MODES),
        default='forward',
        help='; '.join(f'{name}: {text}' for name, text in MODES.items()) + ' (forward)',
    )
    parser.add_argument(
        '--sizes', type=int, nargs='+', metavar='SIZE', help="sides of the images (the model's own)"
    )
    parser.add_argument(
        '--batches', type=int, nargs='+', default=[1], metavar='N', help='images in a batch (1)'
    )
    parser.add_argument('--classes', type=int, nargs='+', metavar='Y', help='numbers of classes')
    parser.add_argument(
        '--heads', type=int, nargs='+', metavar='K', help='attention heads, where a method has them'
    )
    parser.add_argument('--device', help='cpu or cuda (cuda if there is one)')
    parser.add_argument('--dtype', choices=['float32', 'bfloat16'], default='float32')
    parser.add_argument('--channels-last', action='store_true', help='memory format of the images')
    parser.add_argument(
        '--compile', action='store_true', help='through torch.compile, in one graph'
    )
    parser.add_argument('--threads', type=int, help="of the CPU (torch's choice)")
    add_timing_arguments(parser, 0.3)
    parser.add_argument(
        '--json', metavar='FILE', help='write times, counts and machine to this file'
    )
    parser.add_argument('--plot', metavar='FILE', help='draw them into this PNG')
    parser.add_argument(
        '--accuracy',
        nargs='+',
        default=[],
        metavar='NAME=VALUE',
        help="also plot accuracies in %% against multiply-adds, as WARN's Figure 5",
    )
    args = parser.parse_args()
    for option in ('sizes', 'batches', 'classes', 'heads'):
        values = getattr(args, option)
        if values and min(values) < 1:
            parser.error(f'--{option} {values}: must be positive')
    if args.rounds < 5:
        parser.error(f'--rounds {args.rounds}: a median needs at least 5')
    if args.threads is not None and args.threads < 1:
        parser.error(f'--threads {args.threads}: needs at least 1')
    if args.paper and args.versus:
        parser.error(f'--paper --versus {args.versus}: give one of them')
    if args.seconds <= 0:
        parser.error(f'--seconds {args.seconds}: must be positive')
    return args


def check_device(name: str | None) -> str:
    """The device to run on.

    Raises:
        UserError: if there is no such device here.
    """
    import torch

    if name is None:
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = name
    if kind not in ('cpu', 'cuda'):
        raise UserError(f'--device {name!r}: must be cpu or cuda')
    if kind == 'cuda' and not torch.cuda.is_available():
        raise UserError(f'--device {name!r}: this machine has no CUDA device; use cpu')
    return name


class Pair:
    """The two models, built again for every number of classes and heads."""

    def __init__(self, args: argparse.Namespace) -> None:
        from fgplugins.analysis.forms import complete_second

        own = (args.versus_kwargs, args.versus_cfg_options)
        settings = (args.model_kwargs, args.cfg_options)
        second = complete_second(args.model, args.versus or ':paper', settings, own)
        self.specs = [(args.model, *settings, args.checkpoint), (*second, None)]
        self.built: tuple[object, list[ModelForm]] | None = None

    def build(self, classes: int | None, heads: int | None) -> list[ModelForm]:
        """Both models for these numbers; None leaves a number as it is."""
        if self.built is None or self.built[0] != (classes, heads):
            self.built = None  # frees the last two before the next are built
            forms = [self._one(*spec, classes, heads) for spec in self.specs]
            self.built = (classes, heads), forms
        return self.built[1]

    @staticmethod
    def _one(
        spec: str,
        kwargs: list[str],
        options: list[str],
        checkpoint: str | None,
        classes: int | None,
        heads: int | None,
    ) -> ModelForm:
        from fgplugins.analysis.forms import load_form, split_form
        from fgplugins.networks.names import is_timm_name

        def with_setting(key: str, value: int) -> tuple[list[str], list[str]]:
            if is_timm_name(split_form(spec)[0]):
                return [*kwargs, f'{key}={value}'], options
            return kwargs, [*options, f'model.head.{key}={value}']

        with contextlib.redirect_stdout(sys.stderr):  # what mmengine says while it builds
            if classes is not None:
                kwargs, options = with_setting('num_classes', classes)
            form = load_form(spec, kwargs, options, checkpoint)
            if heads is not None and 'heads' in form.arguments:
                form = load_form(spec, *with_setting('heads', heads), checkpoint)
        return form


def print_table(report: dict[str, object]) -> None:
    header = [report['swept'], f'{report["first"]} (ms)', f'{report["second"]} (ms)', 'ratio']
    header += ['quartiles', 'inverse', 'MACs (G): first', 'second', 'peak (MB): first', 'second']
    table = Table('', header)
    for point in report['points']:
        first, second, ratio = point['first'], point['second'], point['ratio']
        peaks = [side['peak_bytes'] for side in (first, second)]
        table.rows.append(
            [
                point[report['swept']],
                f'{first["median"] * 1e3:.2f}',
                f'{second["median"] * 1e3:.2f}',
                f'{ratio["median"]:.3f}',
                f'{ratio["low"]:.3f}-{ratio["high"]:.3f}',
                f'{1 / ratio["median"]:.2f}x',
                *(f'{side["macs"] / 1e9:.3f}' for side in (first, second)),
                *('' if peak is None else f'{peak / 1e6:.1f}' for peak in peaks),
            ]
        )
    print(f'{report["title"]}\n\n{table.text()}')


def accuracies(args: argparse.Namespace) -> list[dict[str, object]]:
    """The named models' multiply-adds beside their accuracies.

    Raises:
        UserError: if an entry is not NAME=NUMBER.
    """
    from fgplugins.analysis.complexity import count_complexity
    from fgplugins.analysis.forms import complete_second, load_form

    rows = []
    for entry in args.accuracy:
        name, _, value = entry.rpartition('=')
        try:
            accuracy = float(value)
        except ValueError:
            accuracy = -1.0
        if not name or not 0 <= accuracy <= 100:
            raise UserError(f'--accuracy {entry!r}: must read NAME=VALUE, a percentage')
        spec = complete_second(
            args.model, name, (args.model_kwargs, args.cfg_options), (None, None)
        )
        with contextlib.redirect_stdout(sys.stderr):
            form = load_form(*spec)
        cost = count_complexity(form.model, form.loaded.input_size)
        rows.append({'name': form.label, 'accuracy': accuracy, 'macs': cost.macs})
    return rows


def main() -> None:
    args = parse_args()
    check_outputs(args, 'json', 'plot')
    require_module('fgplugins.analysis.benchmark')

    import torch

    from fgplugins.analysis import benchmark
    from fgplugins.analysis.benchmark_plot import draw_plot
    from fgplugins.analysis.timing import machine_record, median_ratio

    setup = benchmark.Setup(
        mode=args.mode,
        device=check_device(args.device),
        dtype=args.dtype,
        channels_last=args.channels_last,
        compile=args.compile,
        rounds=args.rounds,
        seconds=args.seconds,
        cpu_time=args.cpu_time,
    )
    if args.cpu_time and setup.device != 'cpu':
        raise UserError(
            f'--cpu-time --device {setup.device}: a GPU has its own clock; leave it out'
        )
    if args.threads:
        torch.set_num_threads(args.threads)
    chosen = {key: getattr(args, option) or [None] for key, option in SWEEPS.items()}
    several = [key for key, values in chosen.items() if len(values) > 1]
    if len(several) > 1:
        options = ' and '.join(f'--{SWEEPS[key]}' for key in several)
        raise UserError(f'{options}: one of them can have several values at a time')
    swept = several[0] if several else 'size'

    torch.manual_seed(0)
    pair = Pair(args)
    forms = pair.build(chosen['classes'][0], chosen['heads'][0])
    if args.heads and not any('heads' in form.arguments for form in forms):
        raise UserError(f'--heads {args.heads}: neither {forms[0].label} nor the other has heads')
    settings = [args.dtype] + ['channels_last'] * args.channels_last + ['compile'] * args.compile
    settings += ['CPU time'] * args.cpu_time
    labels = [form.label for form in forms]
    machine = machine_record(setup.device)
    place = machine.get('gpu') or f'{machine["cpu"]}, {machine["threads"]} threads'
    report: dict[str, object] = {
        'title': f'{labels[0]} and {labels[1]}: {args.mode}, {", ".join(settings)}, {place}',
        'command': shlex.join(['python', 'tools/benchmark.py', *sys.argv[1:]]),
        'machine': machine,
        'setup': vars(setup),
        'first': labels[0],
        'second': labels[1],
        'swept': swept,
        'points': [],
    }
    for i, value in enumerate(chosen[swept]):
        point = {key: values[0] for key, values in chosen.items()} | {swept: value}
        forms = pair.build(point['classes'], point['heads'])
        point['size'] = point['size'] or forms[0].loaded.input_size[1]
        where = f'[{i + 1}/{len(chosen[swept])}] {swept} {point[swept]}'
        sides = benchmark.measure_point(
            forms,
            setup,
            point['size'],
            point['batch'],
            lambda line, where=where: print(f'{where}: {line}', file=sys.stderr, flush=True),
        )
        for key, side in zip(('first', 'second'), sides, strict=True):
            point[key] = benchmark.as_dict(side)
        point['ratio'] = median_ratio(*(side.seconds for side in sides))
        report['points'].append(point)
    report['accuracy'] = accuracies(args)
    print_table(report)
    if args.json:
        write_text('--json', args.json, json.dumps(report, indent=2) + '\n')
    if args.plot:
        draw_plot(report, args.plot)


if __name__ == '__main__':
    main_guard(main)
