"""Digests of all that must not change when code moves: run before and after, then compare.

    python scripts/digests.py before.json
    python scripts/digests.py after.json --against before.json

Scores, masks, terms of the loss, gradients, names and shapes of weights and counts, of seeded
models on both sides, each as a hash of its exact bits. Nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import runpy
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import timm
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

import fgplugins.zoo_mmpretrain
from fgplugins.utils.command_line import command_parser
from fgplugins.zoo_timm.deploy import deploy
from fgplugins.zoo_timm.task import MethodTask

ROOT = Path(__file__).parent.parent
CLASSES = 5
# timm name, its arguments, side of the images
TIMM = [
    ('gap', {'backbone': 'resnet10t'}, 64),
    ('warn', {'backbone': 'resnet18'}, 64),
    ('warn', {'backbone': 'resnet18', 'mask': 'sigmoid', 'gates': False}, 64),
    ('warn', {'backbone': 'resnet18', 'mix': 'prob', 'gate_norm': True, 'kernel_size': 1}, 64),
    ('warn', {'backbone': 'resnet10t', 'base_grad': 0.1, 'heads': 2, 'taps': 2}, 64),
    ('warn', {'backbone': 'vit_tiny_patch16_224', 'img_size': 64}, 64),
    ('att2', {'backbone': 'resnet18'}, 64),
    ('att2', {'backbone': 'resnet18', 'compat': 'dp', 'classify': 'indep'}, 64),
    ('att2', {'backbone': 'resnet10t', 'mask': 'sigmoid', 'taps': 3}, 64),
    ('art', {'backbone': 'resnet18'}, 64),
    ('art', {'backbone': 'resnet10t', 'transform': 'stn', 'normalize': False}, 64),
    ('siou', {'backbone': 'resnet18'}, 64),
    ('siou', {'backbone': 'mobilenetv3_small_050', 'kind': 'pixel'}, 64),
    ('siou', {'backbone': 'resnet10t', 'kind': 'gradcam', 'multi_label': True}, 64),
    ('clan', {'backbone': 'resnet10t', 'taps': 3}, 256),
    ('clan', {'backbone': 'resnet18', 'inner_channels': 16, 'pooling': 'max'}, 128),
    ('clan', {'backbone': 'resnet18', 'relation': 'embedded_gaussian', 'mask': 'sigmoid'}, 64),
    ('clan', {'backbone': 'resnet10t', 'relation': 'gaussian', 'branches': ['top', 'clsa']}, 64),
    ('clan', {'backbone': 'resnet10t', 'context': 'non_local'}, 96),
    ('clan', {'backbone': 'resnet10t', 'context': 'gap', 'pooling': 'avg'}, 64),
    ('clan', {'backbone': 'swin_tiny_patch4_window7_224', 'img_size': 224}, 224),
    ('warn_wrn28_10', {}, 32),
    ('att2_vgg', {}, 32),
    ('pan_vgg', {}, 32),
    ('gap', {'backbone': 'cifar_vgg16'}, 32),
    ('warn', {'backbone': 'clutter_cnn_2fc', 'in_chans': 1}, 40),
    ('att2_resnet164', {}, 32),
    ('siou_resnet110', {}, 32),
    ('clan_vgg16_bn', {}, 64),
]
CONFIGS = [
    'gap_cnn_digits', 'warn_cnn_digits', 'att2_mobilenetv2_cub', 'art_mobilenetv2_cub',
    'siou_mobilenetv2_cub', 'siou_r18_voc2012', 'clan_mobilenetv2_cub', 'warn_mobilenetv2_cub',
    'clan_r50_cub', 'warn_r50_cub', 'art_r110_cifar10', 'att2_pan_vgg_cifar10',
]  # fmt: skip
COUNTED = [
    ['warn_wrn28_10', '--model-kwargs', 'num_classes=100'],
    ['warn', '--model-kwargs', 'backbone=resnet50', 'num_classes=200', '--img-size', '448'],
    ['att2_wrn28_10', '--model-kwargs', 'num_classes=100'],
    ['clan_vgg16_bn', '--model-kwargs', 'num_classes=200', '--img-size', '448'],
    ['clan3_vgg16_bn', '--model-kwargs', 'num_classes=200', '--img-size', '448'],
    ['clan_resnet50', '--model-kwargs', 'num_classes=200', '--img-size', '448'],
    ['configs/siou_r50_cub.py'],
    ['configs/art_mobilenetv2_cub.py'],
    ['configs/warn_cnn_digits.py'],
]


def digest(value: object) -> str:
    """A hash of the exact bits of tensors, in whatever lists and dictionaries, and of the rest."""
    total = hashlib.sha256()

    def add(part: object) -> None:
        if isinstance(part, Tensor):
            part = part.detach().float().contiguous()
            total.update(str(tuple(part.shape)).encode() + part.numpy().tobytes())
        elif isinstance(part, dict):
            for key, inner in part.items():
                total.update(str(key).encode())
                add(inner)
        elif isinstance(part, (list, tuple)):
            for inner in part:
                add(inner)
        else:
            total.update(repr(part).encode())

    add(value)
    return total.hexdigest()[:16]


def weights(model: nn.Module) -> dict[str, str]:
    """What a checkpoint of the model has: names, shapes, and the values that a seed gives."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return {'names': digest(shapes), 'values': digest(model.state_dict())}


def gradients(module: nn.Module) -> str:
    """Of every parameter that has one."""
    return digest({name: p.grad for name, p in module.named_parameters() if p.grad is not None})


def of_timm(name: str, arguments: dict, side: int) -> dict[str, object]:
    """What a timm model gives in testing, training and deployed."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=CLASSES, **arguments).eval()
    found: dict[str, object] = weights(model)
    x = torch.randn(3, model.in_chans, side, side)
    with torch.no_grad():
        found['scores'] = digest(model(x))
    found['masks'] = digest(list(model.attention_maps(x)))
    torch.manual_seed(1)
    task = MethodTask(model, verbose=False)
    task.train()
    target = torch.tensor([0, 3, 4])
    if arguments.get('multi_label'):
        target = torch.eye(CLASSES)[target]
    terms = task(x, target)
    terms['loss'].backward()
    found['terms'] = digest(terms)
    found['gradients'] = gradients(task.trainable_module)
    found['trained'] = digest([n for n, p in task.trainable_module.named_parameters()])
    shipped, architecture, settings = deploy(model)
    with torch.no_grad():
        found['deployed'] = digest([architecture, settings, shipped.eval()(x)])
    return found


def of_config(name: str) -> dict[str, object]:
    """What a config's model gives in testing and training."""
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    settings = cfg.model.to_dict()
    settings['head']['num_classes'] = CLASSES
    model = MODELS.build(settings).eval()
    found: dict[str, object] = weights(model)
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    side = 40 if first.in_channels == 1 else 64
    x = torch.randn(2, first.in_channels, side, side)
    with torch.no_grad():
        found['scores'] = digest(model(x, mode='tensor'))
    found['masks'] = digest(list(model.attention_maps(x)))
    torch.manual_seed(1)
    samples = [DataSample().set_gt_label(label) for label in (1, 4)]
    terms = model.train()(x, samples, mode='loss')
    sum(terms.values()).backward()
    found['terms'], found['gradients'] = digest(terms), gradients(model)
    return found


def of_all_configs() -> Iterator[tuple[str, dict[str, object]]]:
    """Names and shapes of the weights of every shipped config."""
    for file in sorted((ROOT / 'configs').glob('*.py')):
        cfg = Config.fromfile(file)
        model = MODELS.build(cfg.model.to_dict())
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        yield file.stem, {'names': digest(shapes), 'config': digest(cfg.pretty_text)}


def of_report(arguments: list[str]) -> dict[str, object]:
    """The totals of ``tools/get_flops.py``; its rows follow the modules."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'report.json'
        sys.argv = ['get_flops.py', *arguments, '--json', str(file)]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(ROOT):
            runpy.run_path(str(ROOT / 'tools' / 'get_flops.py'), run_name='__main__')
        report = json.loads(file.read_text(encoding='utf-8'))
    for form in ('ours', 'paper'):
        for rows in ('branches', 'modules'):
            report.get(form, {}).pop(rows, None)
    return report


def collect() -> dict[str, dict[str, object]]:
    """Everything, by name."""
    found = {}
    for name, arguments, side in TIMM:
        key = f'timm: {name} {json.dumps(arguments)} {side}'
        found[key] = of_timm(name, arguments, side)
        print(key)
    for name in CONFIGS:
        found[f'config: {name}'] = of_config(name)
        print(f'config: {name}')
    for name, names in of_all_configs():
        found[f'weights: {name}'] = names
    for arguments in COUNTED:
        found[f'counts: {" ".join(arguments)}'] = of_report(arguments)
        print('counts:', *arguments)
    return found


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument('out', type=Path, help='the JSON to write')
    parser.add_argument('--against', type=Path, help='a JSON of before, to compare with')
    args = parser.parse_args()
    torch.set_num_threads(1)
    np.random.seed(0)
    fgplugins.zoo_mmpretrain.register_configs()
    found = json.loads(json.dumps(collect()))
    args.out.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    if args.against:
        before = json.loads(args.against.read_text(encoding='utf-8'))
        changed = [
            f'{name}: {key}'
            for name in sorted({*before, *found})
            for key in sorted({*before.get(name, {}), *found.get(name, {})})
            if before.get(name, {}).get(key) != found.get(name, {}).get(key)
        ]
        print(*changed, sep='\n')
        print(f'{len(found)} digested, {len(changed)} differ')
        sys.exit(bool(changed))


if __name__ == '__main__':
    main()
