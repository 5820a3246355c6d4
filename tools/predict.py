r"""Predict the classes of image files with a trained model, into a CSV.

    python tools/predict.py work_dirs/warn_r50_cub/epoch_100.pth ~/photos --csv photos.csv
    python tools/predict.py last.pth.tar a.jpg b.jpg --top-k 3 --maps maps/

The checkpoint says what it is of: one of tools/train.py or of timm's script, a file of
tools/deploy.py, a folder of tools/publish.py. Images are files and folders, at any depth. A row is
a file, its likeliest class and that one's probability, the next classes and theirs, or the reason
why the file cannot be read; if there are such files, the exit code is 1.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import sys
import time

from fgplugins.errors import UserError
from fgplugins.utils.command_line import (
    check_output_folder,
    check_outputs,
    command_parser,
    main_guard,
)


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        'checkpoint',
        help='trained weights: a file, a folder of publish.py, or that of a comparison',
    )
    parser.add_argument('images', nargs='+', help='image files, or folders of them')
    parser.add_argument(
        '--csv', default='predictions.csv', metavar='FILE', help='to write (predictions.csv)'
    )
    parser.add_argument(
        '--top-k', type=int, default=5, metavar='K', help='classes named for each image (5)'
    )
    parser.add_argument('--maps', metavar='DIR', help='draw where the model looks, a PNG an image')
    parser.add_argument('--device', default='auto', help='auto (a GPU if there is one), cpu, cuda')
    parser.add_argument(
        '--batch-size', type=int, metavar='N', help='images at a time (8 on a CPU, else 64)'
    )
    parser.add_argument(
        '--workers',
        type=int,
        metavar='N',
        help='processes that read images (one a core)',
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


def check_args(args: argparse.Namespace) -> None:
    for option, value, least in (
        ('top-k', args.top_k, 1),
        ('batch-size', args.batch_size, 1),
        ('workers', args.workers, 0),
    ):
        if value is not None and value < least:
            raise UserError(f'--{option} {value}: must be at least {least}')
    if not args.csv.lower().endswith('.csv'):
        raise UserError(f'--csv {args.csv}: must end in .csv')
    check_outputs(args, 'csv')
    if args.maps:
        check_output_folder('--maps', args.maps)


def main() -> None:
    args = parse_args()
    check_args(args)
    from fgplugins.serving.files import default_batch_size, default_workers, find_files
    from fgplugins.serving.maps import MapFolder
    from fgplugins.serving.models import choose_device, class_names, load_trained
    from fgplugins.serving.predicting import predict
    from fgplugins.serving.progress import progress_bar
    from fgplugins.serving.rows import PredictionFile

    files, device = find_files(args.images), choose_device(args.device)
    loaded = load_trained(args.checkpoint, args.model, args.model_kwargs)
    loaded.model.to(device)
    classes = class_names(loaded)
    top_k = min(args.top_k, len(classes))
    maps = MapFolder(args.maps, loaded, classes) if args.maps else None
    paths, place = [path for path, _ in files], 0
    workers = default_workers() if args.workers is None else args.workers
    batch_size = args.batch_size or default_batch_size(device.type)
    start = time.perf_counter()
    table = PredictionFile(args.csv, classes, top_k)
    try:
        with table, progress_bar('predicting', len(paths)) as bar:
            for predictions in predict(loaded, paths, batch_size, workers, top_k):
                batch = files[place : place + len(predictions)]
                table.add([path for path, _ in batch], predictions)
                place += len(predictions)
                for (path, inside), one in zip(batch, predictions, strict=True):
                    if maps is not None and not one.error:
                        maps.draw(path, inside, one)
                bar.advance(len(predictions))
    except BaseException:
        if table.rows:
            done = f'{table.rows} of {len(paths)} images'
            print(f'note: {done} are done: {table.partial}', file=sys.stderr)
        raise
    seconds = time.perf_counter() - start
    if maps is not None:
        print(f'pictures of where it looks: {args.maps}')
    noun = 'image' if len(paths) == 1 else 'images'
    if table.errors:
        print(f'{table.errors} of {len(paths)} {noun} cannot be read; the column error says why')
    print(f'{args.csv}: {len(paths)} {noun}, {len(paths) / seconds:.1f} images per second')
    if table.errors:
        sys.exit(1)


if __name__ == '__main__':
    main_guard(main)
