r"""Times tools/predict.py's loop beside timm's own inference loop, in turn, in one process.

    python scripts/time_predict.py --json docs/results/cost/predict.json

Both read the same JPEGs, made of noise that compresses as photographs do, with as many workers and
images a batch. timm's is ``timm.data.create_loader`` with its transform, its prefetcher, the model,
softmax and top-k. Ours is `fgplugins.serving`: files to rows of a CSV.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from fgplugins.serving.files import default_workers, find_files
from fgplugins.serving.models import load_trained
from fgplugins.serving.predicting import predict
from fgplugins.serving.rows import PredictionFile
from fgplugins.utils.command_line import main_guard

TOP_K = 5


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--network', default='tf_efficientnet_lite0')
    parser.add_argument('--method', help='one of ours on the network; the network itself if none')
    parser.add_argument('--images', type=int, default=2000)
    parser.add_argument('--size', type=int, nargs=2, default=(500, 375), metavar=('W', 'H'))
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--workers', type=int, default=default_workers())
    parser.add_argument('--rounds', type=int, default=3, help='of each, in turn')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--json')
    return parser.parse_args()


def make_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """JPEGs of smooth noise, all different."""
    generator = np.random.default_rng(0)
    for i in range(count):
        coarse = generator.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(tuple(size), Image.Resampling.BICUBIC)
        image.save(folder / f'class_{i % 4}' / f'{i:05}.jpg', quality=90)


def time_ours(checkpoint: Path, folder: Path, args: argparse.Namespace) -> float:
    """Images a second from the files' names to the rows."""
    loaded = load_trained(str(checkpoint))
    loaded.model.to(args.device)
    paths = [path for path, _ in find_files([str(folder)])]
    classes = [str(label) for label in range(loaded.model.num_classes)]
    start, place = time.perf_counter(), 0
    with PredictionFile(folder.parent / 'out.csv', classes, TOP_K) as table:
        for rows in predict(loaded, paths, args.batch_size, args.workers, TOP_K):
            table.add(paths[place : place + len(rows)], rows)
            place += len(rows)
    return len(paths) / (time.perf_counter() - start)


def time_timm(checkpoint: Path, folder: Path, args: argparse.Namespace) -> float:
    """Images a second of timm's loader and loop, as its inference script has it."""
    loaded = load_trained(str(checkpoint))
    model, device = loaded.model.to(args.device), torch.device(args.device)
    data = loaded.data
    start = time.perf_counter()
    dataset = timm.data.create_dataset('', root=str(folder), split='none', search_split=False)
    loader = timm.data.create_loader(
        dataset, data['input_size'], args.batch_size, num_workers=args.workers, device=device,
        use_prefetcher=True, interpolation=data['interpolation'], mean=data['mean'],
        std=data['std'], crop_pct=data['crop_pct'], crop_mode=data['crop_mode'],
    )  # fmt: skip
    found = []
    with torch.inference_mode():
        for images, _ in loader:
            found.append(model(images).softmax(dim=-1).topk(TOP_K)[0].cpu())
    return len(torch.cat(found)) / (time.perf_counter() - start)


def main() -> None:
    args = parse_args()
    rates: dict[str, list[float]] = {'ours': [], 'timm': []}
    with tempfile.TemporaryDirectory() as name:
        folder, checkpoint = Path(name) / 'images', Path(name) / 'model.pth'
        for i in range(4):
            (folder / f'class_{i}').mkdir(parents=True)
        make_images(folder, args.images, args.size)
        arguments = {'backbone': args.network} if args.method else {}
        model = timm.create_model(args.method or args.network, **arguments)
        content = {'arch': args.method or args.network, 'model_args': arguments}
        torch.save({**content, 'state_dict': model.state_dict()}, checkpoint)
        for turn in range(args.rounds):
            pair = [('ours', time_ours), ('timm', time_timm)]
            for who, measure in pair if turn % 2 == 0 else pair[::-1]:
                rates[who].append(measure(checkpoint, folder, args))
                print(f'{who}: {rates[who][-1]:.1f} images per second')
    ratios = [a / b for a, b in zip(rates['ours'], rates['timm'], strict=True)]
    result = {
        **{key: value for key, value in vars(args).items() if key != 'json'},
        'torch_threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'timm': timm.__version__,
        'images_per_second': rates,
        'ratios': ratios,
        'ratio': statistics.median(ratios),
    }
    print(f'ours / timm: {result["ratio"]:.3f}')
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main_guard(main)
