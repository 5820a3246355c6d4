"""Parameters and multiply-adds (MACs) of a model: a config's, a timm model or a checkpoint's.

    python tools/get_flops.py configs/warn_wrn28_10_cifar100.py
    python tools/get_flops.py warn_wrn28_10 --model-kwargs num_classes=100 --depth 2
    python tools/get_flops.py clan_resnet50 --versus resnet50 --shape 448 --out cost.md

For a method, the paper's own order of operations is counted beside ours, branch by branch.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import contextlib
import sys

from fgplugins.analysis.tables import FORMATS, format_of, write_text
from fgplugins.utils.arguments import add_model_arguments, add_versus_arguments
from fgplugins.utils.command_line import check_outputs, command_parser, main_guard, require_module


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_model_arguments(parser)
    parser.add_argument('--checkpoint', metavar='FILE', help='trained weights to load')
    parser.add_argument(
        '--shape', type=int, nargs='+', metavar='SIZE', help='image height and width, or one side'
    )
    parser.add_argument(
        '--convention',
        choices=['paper', 'all'],
        default='paper',
        help='paper: MACs of convolutions, linear layers and matrix products; all: elementary '
        'operations (normalisations, softmax, pooling, additions) by name too, apart (paper)',
    )
    parser.add_argument(
        '--layers',
        action='store_true',
        help='also count as module counters do (ptflops; CLAN, Table 5): layers with biases, '
        'normalisations, ReLU and pooling, without matrix products',
    )
    parser.add_argument('--depth', type=int, default=1, help='how deep to list modules (1)')
    add_versus_arguments(parser)
    parser.add_argument(
        '--format',
        choices=list(FORMATS.values()),
        default='text',
        help='what to print (text)',
    )
    parser.add_argument(
        '--out', metavar='FILE', help=f'write the report; the ending says how: {", ".join(FORMATS)}'
    )
    parser.add_argument('--json', metavar='FILE', help='write the counts to this file as JSON')
    args = parser.parse_args()
    if args.shape and (len(args.shape) > 2 or min(args.shape) < 1):
        parser.error(f'--shape {args.shape}: one or two positive numbers')
    if args.depth < 0:
        parser.error(f'--depth {args.depth}: must not be negative')
    return args


def main() -> None:
    args = parse_args()
    check_outputs(args, 'out', 'json')
    out_format = format_of(args.out) if args.out else None
    require_module('fgplugins.analysis.flops_report')

    from fgplugins.analysis.flops_report import compare_text, make_report
    from fgplugins.analysis.forms import complete_second, load_form

    settings = (args.model_kwargs, args.cfg_options)
    with contextlib.redirect_stdout(sys.stderr):  # what mmengine says while it builds
        models = [load_form(args.model, *settings, args.checkpoint)]
        if args.versus:
            own = (args.versus_kwargs, args.versus_cfg_options)
            models.append(load_form(*complete_second(args.model, args.versus, settings, own)))
    reports = []
    for model in models:
        size = model.loaded.input_size
        if args.shape:
            size = (size[0], args.shape[0], args.shape[-1])
        reports.append(make_report(model, size, args.layers))
    everything = args.convention == 'all'
    print(compare_text(reports, args.format, args.depth, everything), end='')
    if args.out:
        text = compare_text(reports, out_format, args.depth, everything)
        write_text('--out', args.out, text)
    if args.json:
        write_text('--json', args.json, compare_text(reports, 'json', args.depth, everything))


if __name__ == '__main__':
    main_guard(main)
