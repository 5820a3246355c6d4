"""Parameters and multiply-adds (MACs) of a config's model or a timm model.

    python tools/get_flops.py configs/warn_wrn28_10_cifar100.py
    python tools/get_flops.py warn_wrn28_10 --model-kwargs num_classes=100 --depth 2

For a method, the paper's own order of operations is counted beside ours.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fgplugins.analysis.complexity import (
    Complexity,
    count_complexity,
    count_layers,
    paper_form,
)
from fgplugins.analysis.loading import add_model_arguments, load_model
from fgplugins.cli import main_guard
from fgplugins.errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    parser.add_argument(
        '--shape', type=int, nargs='+', metavar='SIZE', help='image height and width, or one side'
    )
    parser.add_argument(
        '--layers',
        action='store_true',
        help='also count as module counters do (ptflops; CLAN, Table 5): layers with biases, '
        'normalisations, ReLU and pooling, without matrix products',
    )
    parser.add_argument('--depth', type=int, default=1, help='how deep to list modules (1)')
    parser.add_argument('--json', metavar='FILE', help='write the counts to this file')
    args = parser.parse_args()
    if args.shape and (len(args.shape) > 2 or min(args.shape) < 1):
        parser.error(f'--shape {args.shape}: one or two positive numbers')
    if args.depth < 0:
        parser.error(f'--depth {args.depth}: must not be negative')
    return args


def print_report(name: str, size: tuple[int, int, int], report: dict[str, Complexity]) -> None:
    ours = report['ours']
    print(f'{name}, input {" x ".join(map(str, size))}\n')
    for form, cost in report.items():
        label = {'ours': 'MACs', 'paper': "MACs in the paper's order"}[form]
        print(f'{label}: {cost.macs / 1e9:.3f} G ({cost.macs:,})')
    print(f'parameters: {ours.parameters / 1e6:.3f} M ({ours.parameters:,})')
    if ours.other:
        print(
            'other operations: ' + ', '.join(f'{k} {v / 1e6:.2f} M' for k, v in ours.other.items())
        )
    if ours.uncounted:
        counted = ', '.join(f'{k.removeprefix("aten::")} x{v}' for k, v in ours.uncounted.items())
        print(f'not counted: {counted}')


def print_modules(modules: dict[str, tuple[int, int]]) -> None:
    width = max(len(name or '(model)') for name in modules)
    print(f'\n{"module":<{width}}  {"parameters":>14}  {"MACs":>18}')
    for name, (parameters, macs) in modules.items():
        print(f'{name or "(model)":<{width}}  {parameters:>14,}  {macs:>18,}')


def main() -> None:
    args = parse_args()
    loaded = load_model(args.model, None, args.model_kwargs, args.cfg_options)
    size = loaded.input_size
    if args.shape:
        size = (size[0], args.shape[0], args.shape[-1])
    try:
        report = {'ours': count_complexity(loaded.model, size)}
        if loaded.method is not None:
            report['paper'] = count_complexity(loaded.model, size, paper_form(loaded))
    except (AssertionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f'{args.model} does not run on {" x ".join(map(str, size))}: {reason}'
        ) from error
    print_report(loaded.name, size, report)
    layers = {}
    if args.layers:
        forms = {'ours': None, 'paper': paper_form(loaded)} if loaded.method else {'ours': None}
        for form, forward in forms.items():
            alone, products = count_layers(loaded.model, size, forward)
            layers[form] = {'layers': alone, 'with_products': alone + products}
            label = "in the paper's order" if form == 'paper' else 'ours'
            print(
                f'by layers, {label}: {alone / 1e9:.2f} G without matrix products, '
                f'{(alone + products) / 1e9:.2f} G with them'
            )
    print_modules(report['ours'].at_depth(args.depth))
    if args.json:
        content = {
            'model': loaded.name,
            'input_size': size,
            **{
                form: {
                    **layers.get(form, {}),
                    'parameters': cost.parameters,
                    'macs': cost.macs,
                    'other': cost.other,
                    'uncounted': cost.uncounted,
                    'modules': {
                        k: {'parameters': p, 'macs': m}
                        for k, (p, m) in cost.at_depth(args.depth).items()
                    },
                }
                for form, cost in report.items()
            },
        }
        Path(args.json).write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main_guard(main)
