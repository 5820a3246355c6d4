r"""What a method adds to the memory of training, in our form and in the paper's order.

    python tools/get_memory.py clan3_vgg16_bn --model-kwargs num_classes=200 --sizes 224 448 672

It counts the bytes that autograd keeps of one image for the method's backward pass: exact numbers,
the same on every machine.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import contextlib
import json
import sys
from pathlib import Path

from fgplugins.errors import UserError
from fgplugins.utils.arguments import add_model_arguments
from fgplugins.utils.command_line import check_outputs, command_parser, main_guard, require_module


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_model_arguments(parser)
    parser.add_argument('--checkpoint', metavar='FILE', help='trained weights to load')
    parser.add_argument(
        '--sizes',
        type=int,
        nargs='+',
        metavar='SIZE',
        help='sides of the images (224 448, or the one size that the network takes)',
    )
    parser.add_argument('--json', metavar='FILE', help='write the numbers to this file')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_outputs(args, 'json')
    require_module('fgplugins.analysis.forms')

    import torch

    from fgplugins.analysis.forms import load_form
    from fgplugins.analysis.memory import saved_bytes

    with contextlib.redirect_stdout(sys.stderr):  # what mmengine says while it builds
        model = load_form(args.model, args.model_kwargs, args.cfg_options, args.checkpoint)
    loaded = model.loaded
    if loaded.method is None:
        raise UserError(f'{args.model} is a plain network; it has no method to measure')
    only = getattr(loaded.model, 'fixed_size', None)
    sizes = args.sizes or ([only[0]] if only else [224, 448])
    if min(sizes) < 1:
        raise UserError(f'--sizes {sizes}: must be positive')
    rows = []
    print(f'{loaded.name}: bytes kept for the backward pass of one image\n')
    print(f'{"size":>6}  {"positions":>24}  {"ours":>14}  {"paper order":>14}  paper / ours')
    for size in sizes:
        try:
            with torch.no_grad():
                image = torch.zeros(1, loaded.input_size[0], size, size)
                features, given = loaded.method.split(loaded.features(image))
        except (AssertionError, RuntimeError) as error:  # timm's networks assert their size
            reason = str(error).strip().splitlines()[0]
            raise UserError(f'{args.model} does not run on {size} x {size}: {reason}') from error
        features = [f.clone().requires_grad_() for f in features]
        given = {key: value.clone().requires_grad_() for key, value in given.items()}
        known = [*features, *given.values(), *loaded.method.parameters(), *loaded.method.buffers()]
        ours = saved_bytes(lambda f=features, g=given: loaded.method(f, **g), known)
        paper = saved_bytes(lambda f=features, g=given: loaded.method.forward_paper(f, **g), known)
        positions = [f.shape[2] * f.shape[3] for f in features]
        rows.append({'size': size, 'positions': positions, 'ours': ours, 'paper': paper})
        shown = ' + '.join(map(str, positions))
        print(f'{size:>6}  {shown:>24}  {ours:>14,}  {paper:>14,}  {paper / ours:.2f}')
    if args.json:
        content = {'model': loaded.name, 'rows': rows}
        Path(args.json).write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main_guard(main)
