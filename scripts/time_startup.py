"""Time what a user waits for before anything runs: the import, and building each preset.

    python scripts/time_startup.py --json startup.json

Every import is timed in a new process. A preset and its backbone are built in turn, with random
weights; the ratio is the median over rounds.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import gc
import json
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import timm
import torch

from fgplugins.analysis.tables import Table, write_text
from fgplugins.analysis.timing import machine_record, median_ratio
from fgplugins.errors import UserError
from fgplugins.utils.command_line import check_outputs, command_parser, main_guard

IMPORTS = """
import time
start = time.perf_counter()
import timm
middle = time.perf_counter()
import fgplugins
print(middle - start, time.perf_counter() - middle)
"""


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('--presets', nargs='+', metavar='NAME', help='only these (all)')
    parser.add_argument('--num-classes', type=int, default=200, metavar='Y', help='(200)')
    parser.add_argument('--rounds', type=int, default=7, help='pairs of builds, at least 5 (7)')
    parser.add_argument('--json', metavar='FILE', help='write the times and the machine there')
    args = parser.parse_args()
    if args.rounds < 5:
        parser.error(f'--rounds {args.rounds}: a median needs at least 5')
    return args


def time_imports(rounds: int) -> dict[str, float]:
    """Median seconds of importing timm, and of fgplugins after it."""
    rows = []
    for _ in range(rounds + 1):  # the first one may write bytecode
        done = subprocess.run(
            [sys.executable, '-c', IMPORTS], check=True, capture_output=True, text=True
        )
        rows.append([float(number) for number in done.stdout.split()])
    first, second = zip(*rows[1:], strict=True)
    return {'timm': statistics.median(first), 'fgplugins': statistics.median(second)}


def seconds(build: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    build()
    return time.perf_counter() - start


def time_builds(preset: str, num_classes: int, rounds: int) -> dict[str, object]:
    """Seconds it takes to build a preset and its backbone, in turn."""
    model = timm.create_model(preset, num_classes=num_classes)
    name, arguments = model.backbone_name, model.backbone_args
    del model
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        times[0].append(seconds(lambda: timm.create_model(preset, num_classes=num_classes)))
        times[1].append(
            seconds(lambda: timm.create_model(name, num_classes=num_classes, **arguments))
        )
    return {'preset': preset, 'backbone': name, 'seconds': times, 'ratio': median_ratio(*times)}


def main() -> None:
    args = parse_args()
    check_outputs(args, 'json')
    known = [m for m in timm.list_models(module='fg_models') if '_' in m]  # not the generic ones
    unknown = sorted(set(args.presets or []) - set(known))
    if unknown:
        raise UserError(f'--presets {unknown[0]}: there are {", ".join(known)}')
    report: dict[str, object] = {
        'command': shlex.join(['python', 'scripts/time_startup.py', *sys.argv[1:]]),
        'machine': machine_record('cpu'),
        'python': platform.python_version(),
        'imports': time_imports(args.rounds),
        'builds': [],
    }
    imports = report['imports']
    print(f'import timm: {imports["timm"]:.2f} s, fgplugins: {imports["fgplugins"]:.3f} s more\n')
    table = Table('', ['preset', 'backbone', 'ratio', 'quartiles'])
    with torch.no_grad():
        for preset in args.presets or known:
            print(f'{preset} ...', file=sys.stderr, flush=True)
            row = time_builds(preset, args.num_classes, args.rounds)
            ratio = row['ratio']
            spread = f'{ratio["low"]:.2f}-{ratio["high"]:.2f}'
            table.rows.append([preset, row['backbone'], f'{ratio["median"]:.2f}', spread])
            report['builds'].append(row)
    print(table.text())
    if args.json:
        write_text('--json', args.json, json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main_guard(main)
