"""Time ours against the paper's order of operations, at every size of the papers' tables.

    python scripts/time_orders.py --threads 1 --json orders.json
    python scripts/time_orders.py --only 'ResNet-50' --rounds 15

Each method stands alone, on random maps of the sizes that the papers' networks give: a forward pass
in inference mode, and a training step down to the maps. Both forms read the same weights, and their
calls alternate; the ratio is the median over rounds.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from fgplugins.analysis.benchmark import method_step, share_weights
from fgplugins.analysis.complexity import set_paper_order
from fgplugins.analysis.tables import Table, write_text
from fgplugins.analysis.timing import machine_record, median_ratio, paired_seconds
from fgplugins.errors import UserError
from fgplugins.methods import get_method
from fgplugins.utils.arguments import add_timing_arguments
from fgplugins.utils.command_line import check_outputs, command_parser, main_guard

BATCHES = (1, 8)


@dataclass(frozen=True)
class Case:
    """A method on maps of some sizes.

    Attributes:
        label: the paper's network and what is set of the method.
        method: its name.
        maps: (channels, side) of each level that it reads.
        num_classes: Y.
        settings: hyper-parameters that are not the defaults.
    """

    label: str
    method: str
    maps: tuple[tuple[int, int], ...]
    num_classes: int
    settings: dict[str, object] = field(default_factory=dict)


CONV4_3, CONV5_2, POOL5 = (512, 56), (512, 28), (512, 14)  # of VGG-16 at 448 pixels
CLAN_MAPS = {
    'ResNet-50/101, 2 scales': ((1024, 28), (2048, 14)),
    'VGG-16, 2 scales': (CONV5_2, POOL5),
    'VGG-16, 3 scales': (CONV4_3, CONV5_2, POOL5),
}
CLAN_SETTINGS = (
    {},
    {'relation': 'embedded_gaussian'},
    {'relation': 'gaussian'},
    {'context': 'non_local'},
    {'context': 'non_local', 'relation': 'embedded_gaussian'},
    {'context': 'gap'},
)
WRN = ((160, 32), (320, 16), (640, 8))  # WRN-28-10 and WRN-40-10 on CIFAR
WIDE = ((512, 28), (1024, 14), (2048, 7))  # WRN-50-4 at 224 pixels
CNN = ((16, 20), (32, 10), (64, 5), (128, 5))  # on cluttered digits of 40 pixels


def cases() -> Iterator[Case]:
    """CLAN's Tables 1, 2, 5 and 6; WARN's Tables 1 to 4 and Figure 4."""
    for name, maps in CLAN_MAPS.items():
        for settings in CLAN_SETTINGS:
            values = ''.join(f', {value}' for value in settings.values())
            yield Case(f'CLAN, {name}{values}', 'clan', maps, 200, settings)
    yield Case('CLAN, VGG-16, conv4_3 alone', 'clan', (CONV4_3, POOL5), 200)
    for classes in (10, 100):
        for depth in (1, 2, 3):
            for heads in (1, 2, 3, 4):
                label = f'WARN, WRN, {classes} classes, AD {depth}, AW {heads}'
                yield Case(label, 'warn', WRN[-depth:], classes, {'heads': heads})
    for zoom in (1, 2):
        maps = tuple((C, side * zoom) for C, side in WIDE)
        for classes in (2, 200):
            for depth in (1, 2, 3):
                for heads in (1, 4):
                    label = f'WARN, WRN-50-4 at {224 * zoom}, {classes} classes'
                    label = f'{label}, AD {depth}, AW {heads}'
                    yield Case(label, 'warn', maps[-depth:], classes, {'heads': heads})
    for depth, heads in ((1, 1), (2, 1), (3, 1), (4, 1), (4, 2), (4, 3), (4, 4)):
        label = f'WARN, CNN on digits, AD {depth}, AW {heads}'
        yield Case(label, 'warn', CNN[-depth:], 10, {'heads': heads})


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('--only', metavar='TEXT', help='only cases whose names contain this')
    parser.add_argument('--batches', type=int, nargs='+', default=BATCHES, metavar='N')
    add_timing_arguments(parser, 0.1)
    parser.add_argument('--threads', type=int, default=1, help='of the CPU (1)')
    parser.add_argument('--json', metavar='FILE', help='write the times and the machine there')
    args = parser.parse_args()
    if args.rounds < 5:
        parser.error(f'--rounds {args.rounds}: a median needs at least 5')
    for option in ('batches', 'threads', 'seconds'):
        value = getattr(args, option)
        if (min(value) if option == 'batches' else value) <= 0:
            parser.error(f'--{option} {value}: must be positive')
    return args


def time_case(
    case: Case, batch: int, training: bool, rounds: int, seconds: float, cpu_time: bool = False
) -> dict[str, object]:
    """Seconds of ours and of the paper's order, one number a round, and their ratio."""
    torch.manual_seed(0)
    channels = [C for C, _ in case.maps]
    forms = [get_method(case.method)(channels, case.num_classes, **case.settings) for _ in range(2)]
    share_weights(*forms)
    set_paper_order(forms[1])
    # small, so that no exponential of a relation underflows
    maps = [0.1 * torch.randn(batch, C, side, side) for C, side in case.maps]
    target = torch.randint(case.num_classes, (batch,))
    steps = [method_step(form, maps, target, training) for form in forms]
    times = paired_seconds(steps, rounds, seconds, torch.device('cpu'), cpu_time)
    return {
        'case': case.label,
        'batch': batch,
        'mode': 'method-train' if training else 'method',
        'ours': times[0],
        'paper': times[1],
        'ratio': median_ratio(*times),
    }


def main() -> None:
    args = parse_args()
    check_outputs(args, 'json')
    torch.set_num_threads(args.threads)
    chosen = [case for case in cases() if args.only is None or args.only in case.label]
    if not chosen:
        raise UserError(f'--only {args.only!r}: no case has that in its name')
    report: dict[str, object] = {
        'command': shlex.join(['python', 'scripts/time_orders.py', *sys.argv[1:]]),
        'machine': machine_record('cpu'),
        'setup': {'rounds': args.rounds, 'seconds': args.seconds, 'cpu_time': args.cpu_time},
        'rows': [],
    }
    settings = [(batch, training) for training in (False, True) for batch in args.batches]
    columns = [f'{("forward", "step")[training]}, batch {batch}' for batch, training in settings]
    table = Table("Time of ours, times that of the paper's order", ['', *columns])
    for case in chosen:
        measured = (args.rounds, args.seconds, args.cpu_time)
        rows = [time_case(case, *setting, *measured) for setting in settings]
        report['rows'] += rows
        table.rows.append([case.label, *(f'{row["ratio"]["median"]:.2f}' for row in rows)])
        print(*table.rows[-1], sep='  ', file=sys.stderr, flush=True)
    machine = report['machine']
    print(f'{machine["maker"]}, {machine["cpu"]}, {machine["threads"]} threads\n\n{table.text()}')
    worst = max(report['rows'], key=lambda row: row['ratio']['median'])
    print(f'\nworst: {worst["ratio"]["median"]:.2f}, {worst["case"]}, batch {worst["batch"]}')
    if args.json:
        write_text('--json', args.json, json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    main_guard(main)
