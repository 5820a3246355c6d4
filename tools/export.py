r"""Export a trained model as ONNX, with its classes and the way its images are prepared inside.

    python tools/export.py work_dirs/warn_r50_cub/epoch_100.pth warn.onnx
    python tools/export.py last.pth.tar birds.onnx --dynamic-batch

The checkpoint is one that tools/predict.py takes. The file's metadata hold class_names and
preprocessing as JSON. It is written only if onnxruntime gives the scores that PyTorch does, to
1e-4. siou and art change the training alone, so theirs is the plain network.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
from pathlib import Path

from fgplugins.errors import UserError
from fgplugins.utils.command_line import check_outputs, command_parser, main_guard


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        'checkpoint',
        help='trained weights: a file, a folder of publish.py, or that of a comparison',
    )
    parser.add_argument('out', metavar='OUT.onnx', help='the file to write')
    parser.add_argument(
        '--size', type=int, metavar='N', help="side of a timm model's images (its own)"
    )
    parser.add_argument('--opset', type=int, default=18, metavar='N', help='of ONNX (18)')
    parser.add_argument(
        '--dynamic-batch', action='store_true', help='take any number of images (one)'
    )
    parser.add_argument(
        '--model',
        metavar='NAME',
        help='the config or timm model, for a file of weights that does not say what it is of',
    )
    parser.add_argument(
        '--model-kwargs',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help='arguments of a timm model, as backbone=resnet18 num_classes=200',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not args.out.lower().endswith('.onnx'):
        raise UserError(f'OUT {args.out}: must end in .onnx')
    if args.size is not None and args.size < 1:
        raise UserError(f'--size {args.size}: must be at least 1')
    check_outputs(args, 'out')
    from fgplugins.serving.models import load_trained
    from fgplugins.serving.onnx_file import check_installed, export_onnx

    check_installed()
    loaded = load_trained(args.checkpoint, args.model, args.model_kwargs, args.size)
    difference = export_onnx(loaded, args.out, args.opset, args.dynamic_batch)
    channels, height, width = loaded.input_size
    batch = 'N' if args.dynamic_batch else 1
    print(f'onnxruntime and PyTorch differ by {difference:.1e} at most')
    print(
        f'{args.out}: images ({batch}, {channels}, {height}, {width}) -> scores, '
        f'{Path(args.out).stat().st_size / 2**20:.1f} MiB'
    )


if __name__ == '__main__':
    main_guard(main)
