r"""Draw where a trained model looks: every attention map laid over each image, as a PNG.

    python tools/show_attention.py configs/warn_r50_cub.py epoch_100.pth a.jpg b.jpg
    python tools/show_attention.py warn last.pth.tar birds/ \
        --model-kwargs backbone=resnet18 num_classes=5
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fgplugins.errors import UserError, one_line
from fgplugins.utils.arguments import add_model_arguments
from fgplugins.utils.command_line import check_outputs, command_parser, main_guard, require_module
from fgplugins.utils.lettering import shortened

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fgplugins.utils.loaded import LoadedModel


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_model_arguments(parser, checkpoint=True)
    parser.add_argument('images', nargs='+', help='image files, or folders of them')
    parser.add_argument(
        '--out',
        default='attention_maps.png',
        help='the PNG (attention_maps.png); further pages are numbered, as attention_maps_2.png',
    )
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
    parser.add_argument(
        '--max-images',
        type=int,
        default=16,
        help='draw at most this many (16): of more, a sample spread over their folders, as classes',
    )
    parser.add_argument('--seed', type=int, default=0, help='of that sample (0)')
    parser.add_argument('--max-heads', type=int, default=8, help='heads drawn of each level (8)')
    return parser.parse_args()


def find_images(names: list[str]) -> list[str]:
    """The image files among names and folders; of a folder with a split file, its test images."""
    from fgplugins.data import images
    from fgplugins.data.split_files import find_split_file, read_split_file

    found = []
    for name in names:
        path = Path(name)
        if (path.is_dir() or path.suffix == '.json') and find_split_file(path):
            found += read_split_file(path, 'test').images
        elif path.is_dir():
            inside = images.find_images(path)
            if not inside:
                raise UserError(f'no images in {name}')
            found += map(str, inside)
        elif path.is_file():
            found.append(name)
        else:
            raise UserError(f'image {name!r} is not there')
    return list(dict.fromkeys(found))


def read_image(loaded: LoadedModel, path: str) -> tuple[np.ndarray, Tensor]:
    """The image as the model sees it in bytes, and the network's input."""
    try:
        return loaded.read_image(path)
    except UserError:
        raise
    except Exception as error:  # any step of a config's pipeline
        raise UserError(f'image {path} cannot be read: {one_line(error)}') from error


def class_name(loaded: LoadedModel, label: int) -> str:
    return shortened(loaded.classes[label]) if loaded.classes else f'class {label}'


def find_asked(loaded: LoadedModel, args: argparse.Namespace) -> dict[str, object]:
    """The query and the classes that the user asked for, as arguments of the method's attention."""
    import torch

    asked: dict[str, object] = {}
    for name, what in (('query', 'a query'), ('classes', 'classes')):
        if getattr(args, name) and name not in loaded.method.questions:
            raise UserError(f'--{name}: {type(loaded.method).__name__} does not take {what}')
    if args.query:
        with torch.no_grad():
            image = read_image(loaded, find_images([args.query])[0])[1]
            asked['query'], _ = loaded.method.split(loaded.features(image))
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
    for option, value in (('max-images', args.max_images), ('max-heads', args.max_heads)):
        if value < 1:
            raise UserError(f'--{option} {value}: must be at least 1')
    if args.views and (args.versus or args.query or args.classes):
        raise UserError('--views is shown alone: leave out --versus, --query and --classes')
    require_module('fgplugins.analysis.loading')

    from fgplugins.analysis.loading import load_model
    from fgplugins.data.classes import check_same_classes
    from fgplugins.data.sampling import spread_over_folders

    found = find_images(args.images)
    paths = spread_over_folders(found, args.max_images, args.seed)

    def load(checkpoint: str, any_method: bool = False) -> LoadedModel:
        settings = args.model_kwargs, args.cfg_options
        return load_model(args.model, checkpoint, *settings, args.views, any_method)

    loaded = load(args.checkpoint)
    if loaded.method is None:
        head = getattr(loaded.model, 'head', None)
        kind = '' if head is None else f' with a {type(head).__name__}'
        raise UserError(f'{args.model} is a plain network{kind}; it has no attention to show')
    if args.views:
        pages = draw_views(loaded, paths, args.out)
    else:
        models = [('', loaded)]
        if args.versus:
            files = [Path(args.versus), Path(args.checkpoint)]
            alike = files[0].stem == files[1].stem
            names = [f'{f.parent.name}/{f.stem}' if alike else f.stem for f in files]
            other = load(args.versus, any_method=True)  # the control is of another method
            if loaded.classes and other.classes:
                owners = f'checkpoint {args.checkpoint}', f'--versus {args.versus}'
                check_same_classes(loaded.classes, other.classes, *owners)
            pairs = zip(names, (other, loaded), strict=True)
            models = [(shortened(name), model) for name, model in pairs]
        pages = draw_maps(with_maps(models, paths[0]), paths, args)
    if len(paths) < len(found):
        print(f'note: {len(paths)} of {len(found)} images, spread over their folders: --max-images')
    print(f'{len(paths)} images: {", ".join(map(str, pages))}')


def with_maps(models: list[tuple[str, LoadedModel]], path: str) -> list[tuple[str, LoadedModel]]:
    """The models that have maps to show; a class token's network can have none.

    Raises:
        UserError: if none of them has.
    """
    from fgplugins.methods import NoClassMap

    shown, reasons = [], []
    for prefix, loaded in models:
        try:
            loaded.look(read_image(loaded, path)[1])
            shown.append((prefix, loaded))
        except NoClassMap as error:
            reasons.append(f'{prefix or loaded.name}: no map: {error}')
        except ValueError:  # said with the picture
            shown.append((prefix, loaded))
    if not shown:
        raise UserError(reasons[0])
    for reason in reasons:
        print(f'note: {reason}')
    return shown


def draw_maps(
    models: list[tuple[str, LoadedModel]], paths: list[str], args: argparse.Namespace
) -> list[Path]:
    """Draw every model's maps of every image, one image a row, on as many pages as that takes."""
    from fgplugins.utils.drawing import attention_titles, describe, draw_attention

    pictures, maps, captions = [], [], []
    asked = [find_asked(loaded, args) for _, loaded in models]
    for path in paths:
        row, predicted, titles = [], [], []
        for (prefix, loaded), question in zip(models, asked, strict=True):
            image, inputs = read_image(loaded, path)
            try:
                scores, masks = loaded.look(inputs, **question)
            except ValueError as error:
                raise UserError(one_line(error)) from error
            label = int(scores.argmax(dim=1))
            share = scores.sigmoid() if loaded.method.multi_label else scores.softmax(dim=1)
            predicted.append((prefix, class_name(loaded, label), float(share[0, label])))
            names = [class_name(loaded, label) for label in question.get('classes', ())]
            heads = [level[0].numpy() for level in masks]
            row += heads
            known = [names] * len(heads) if names else loaded.method.name_heads()
            before = f'{prefix}\n' if prefix else ''
            titles += attention_titles(heads, loaded.gates, known, before)
        pictures.append(image)
        maps.append(row)
        captions.append(describe(predicted, truth_of(models[0][1], path), file_name(path)))
    return draw_attention(pictures, maps, captions, args.out, args.max_heads, titles=titles)


def truth_of(loaded: LoadedModel, path: str) -> str:
    from fgplugins.data.sampling import true_class

    return shortened(true_class(path, loaded.classes or ()) or '')


def file_name(path: str) -> str:
    return shortened(Path(path).name)


def draw_views(loaded: LoadedModel, paths: list[str], out: str) -> list[Path]:
    """Draw every image and the views of it that the method trains on, one image a row."""
    from fgplugins.utils.drawing import describe, draw_images

    nothing = f'--views: {type(loaded.method).__name__} trains on no views of the image'
    if loaded.views is None:
        raise UserError(nothing)
    rows = []
    for path in paths:
        image, inputs = read_image(loaded, path)
        low, high = float(inputs.min()), float(inputs.max())
        row, views = [image], loaded.views(inputs)
        if not views:
            raise UserError(nothing)
        for view in views.values():
            scaled = ((view[0] - low) / max(high - low, 1e-6)).clamp(0, 1) * 255
            row.append(scaled.byte().permute(1, 2, 0).numpy())
        rows.append(row)
    captions = [describe([], truth_of(loaded, path), file_name(path)) for path in paths]
    return draw_images(rows, captions, ['image', *views], out)


if __name__ == '__main__':
    main_guard(main)
