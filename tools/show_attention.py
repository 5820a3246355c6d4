r"""Draw where a trained model looks: every attention map laid over each image, as a PNG.

    python tools/show_attention.py configs/warn_r50_cub.py epoch_100.pth a.jpg b.jpg
    python tools/show_attention.py warn last.pth.tar birds/ \
        --model-kwargs backbone=resnet18 num_classes=5
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import inspect
from pathlib import Path

import torch

from fgplugins.analysis.attention_maps import draw_attention, draw_images
from fgplugins.analysis.loading import LoadedModel, add_model_arguments, load_model
from fgplugins.cli import check_outputs, main_guard
from fgplugins.data.layouts import IMAGES
from fgplugins.errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser, checkpoint=True)
    parser.add_argument('images', nargs='+', help='image files, or folders of them')
    parser.add_argument('--out', default='attention_maps.png', help='the PNG (attention_maps.png)')
    parser.add_argument(
        '--query',
        metavar='IMAGE',
        help='look through the global feature of this image instead (att2, appendix A.5)',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='CLASS',
        help='show the attention of these classes, by name or number, instead of the predicted one '
        'and its rival (siou, Figs. 2 and 8)',
    )
    parser.add_argument(
        '--versus',
        metavar='CHECKPOINT',
        help='show other weights of the same model beside these, as those of gap, the control '
        '(CRA-CNN, Fig. 3)',
    )
    parser.add_argument(
        '--views',
        action='store_true',
        help='show the attention and redundancy views that the second network sees instead (art, '
        'Fig. 4); needs a checkpoint of training',
    )
    parser.add_argument('--max-images', type=int, default=16, help='draw at most this many (16)')
    parser.add_argument('--max-heads', type=int, default=8, help='heads drawn of each level (8)')
    return parser.parse_args()


def find_images(names: list[str], limit: int) -> list[str]:
    """The image files among names and folders."""
    found = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            found += sorted(str(f) for f in path.rglob('*') if f.suffix.lower() in IMAGES)
        elif path.is_file():
            found.append(name)
        else:
            raise UserError(f'image {name!r} is not there')
    if not found:
        raise UserError(f'no images in {", ".join(names)} ({", ".join(IMAGES)})')
    return found[:limit]


def class_name(loaded: LoadedModel, label: int) -> str:
    return loaded.classes[label] if loaded.classes else f'class {label}'


def find_asked(loaded: LoadedModel, args: argparse.Namespace) -> dict[str, object]:
    """What the user wants to look through or at, for methods that can be asked."""
    asked: dict[str, object] = {}
    takes = inspect.signature(loaded.method.attention).parameters
    for name, what in (('query', 'a query'), ('classes', 'classes')):
        if getattr(args, name) and name not in takes:
            raise UserError(f'--{name}: {type(loaded.method).__name__} does not take {what}')
    if args.query:
        with torch.no_grad():
            image = loaded.read_image(find_images([args.query], 1)[0])[1]
            asked['query'] = loaded.features(image)
    if args.classes:
        names, count = loaded.classes or [], loaded.method.num_classes
        asked['classes'] = []
        for text in args.classes:
            label = names.index(text) if text in names else int(text) if text.isdigit() else -1
            if not 0 <= label < count:
                raise UserError(
                    f'--classes {text!r}: neither the name of a class nor a number below {count}'
                )
            asked['classes'].append(label)
    return asked


def main() -> None:
    args = parse_args()
    if not args.out.lower().endswith('.png'):
        raise UserError(f'--out {args.out}: must end in .png')
    check_outputs(args, 'out')
    if args.views and (args.versus or args.query or args.classes):
        raise UserError('--views is shown alone: leave out --versus, --query and --classes')
    paths = find_images(args.images, args.max_images)

    def load(checkpoint: str) -> LoadedModel:
        return load_model(
            args.model, checkpoint, args.model_kwargs, args.cfg_options, training_only=args.views
        )

    loaded = load(args.checkpoint)
    if loaded.method is None:
        raise UserError(f'{args.model} is a plain network; it has no attention to show')
    if args.views:
        out = draw_views(loaded, paths, args.out)
    else:
        models = [('', loaded)]
        if args.versus:
            files = [Path(args.versus), Path(args.checkpoint)]
            alike = files[0].stem == files[1].stem
            names = [f'{f.parent.name}/{f.stem}' if alike else f.stem for f in files]
            models = [(f'{names[0]}\n', load(args.versus)), (f'{names[1]}\n', loaded)]
        out = draw_maps(models, paths, args)
    print(f'{len(paths)} images: {out}')


def draw_maps(
    models: list[tuple[str, LoadedModel]], paths: list[str], args: argparse.Namespace
) -> Path:
    """Every model's maps of every image, one image a row."""
    images, maps, captions, titles = [], [], [], []
    for path in paths:
        row, labels, titles = [], [], []
        for prefix, loaded in models:
            image, inputs = loaded.read_image(path)
            scores, masks = loaded.look(inputs, **find_asked(loaded, args))
            row += [level[0].numpy() for level in masks]
            labels.append(class_name(loaded, int(scores.argmax(dim=1))))
            names = args.classes or loaded.method.head_names
            titles += [
                [
                    f'{prefix}level {level + 1}, '
                    + (names[head] if head < len(names) else f'head {head + 1}')
                    for head in range(masks[level].shape[1])
                ]
                for level in range(len(masks))
            ]
        images.append(image)
        maps.append(row)
        captions.append(f'{Path(path).name}: {" / ".join(labels)}')
    return draw_attention(
        images, maps, captions, args.out, args.max_heads, first_title='predicted', titles=titles
    )


def draw_views(loaded: LoadedModel, paths: list[str], out: str) -> Path:
    """The image, what it is proposed to attend to, and what is left over, one image a row."""
    if loaded.views is None:
        raise UserError(f'--views: {type(loaded.method).__name__} trains on no views of the image')
    rows = []
    for path in paths:
        image, inputs = loaded.read_image(path)
        low, high = float(inputs.min()), float(inputs.max())
        row = [image]
        for view in loaded.views(inputs):
            scaled = ((view[0] - low) / max(high - low, 1e-6)).clamp(0, 1) * 255
            row.append(scaled.byte().permute(1, 2, 0).numpy())
        rows.append(row)
    captions = [Path(path).name for path in paths]
    return draw_images(rows, captions, ['image', 'attention', 'redundancy'], out)


if __name__ == '__main__':
    main_guard(main)
