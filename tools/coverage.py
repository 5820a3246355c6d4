"""Run every backbone of both zoos under every method, and write down how each fared.

    python tools/coverage.py --out coverage.json --markdown docs/coverage.md
    python tools/coverage.py --zoo timm --modules resnet vit --methods warn --again failed

The rows are the smallest model of each timm module, and each backbone of MMPretrain. All of them
take hours on a CPU. An interrupted run goes on where it was; --again runs cells once more.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import gc
import logging
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from fgplugins.errors import UserError
from fgplugins.utils.command_line import check_outputs, command_parser, main_guard, require_module

if TYPE_CHECKING:
    from fgplugins.analysis.coverage import Cell, CoveredBackbone

# Of each of MMPretrain's backbones: the settings with which it is small and gives its last maps,
# and the size of its images if (64, 96) will not do.
FEATMAP, MAPS = {'out_type': 'featmap'}, {'gap_before_final_norm': False}
LAST_3, DEPTHS = {'out_indices': (1, 2, 3)}, {'out_indices': (3, 7, 11)}
SQUARE = (224, 224)
MMPRETRAIN = {
    'AlexNet': ({}, SQUARE),
    'BEiTViT': ({'arch': 'deit-tiny', **FEATMAP, **DEPTHS}, SQUARE),
    'CSPDarkNet': ({'depth': 53, 'out_indices': (2, 3, 4)}, None),
    'CSPResNeXt': ({'depth': 50, **LAST_3}, None),
    'CSPResNet': ({'depth': 50, **LAST_3}, None),
    'Conformer': ({'arch': 'tiny', 'out_indices': (3, 7, 11)}, SQUARE),
    'ConvMixer': ({'arch': '768/32', 'out_indices': (15, 23, 31)}, None),
    'ConvNeXt': ({'arch': 'atto', **LAST_3, **MAPS}, None),
    'DaViT': ({'arch': 'tiny', **LAST_3}, SQUARE),
    'DeiT3': ({'arch': 's', **FEATMAP, **DEPTHS}, SQUARE),
    'DenseNet': ({'arch': '121', **LAST_3}, None),
    'DistilledVisionTransformer': ({'arch': 'deit-tiny', **FEATMAP, **DEPTHS}, SQUARE),
    'EdgeNeXt': ({'arch': 'xxsmall', **LAST_3, **MAPS}, None),
    'EfficientFormer': ({'arch': 'l1', 'reshape_last_feat': True, **LAST_3}, SQUARE),
    'EfficientNet': ({'arch': 'b0', 'out_indices': (4, 5, 6)}, None),
    'EfficientNetV2': ({'arch': 'b0', 'out_indices': (4, 6, 7)}, None),
    'HRNet': ({'arch': 'w18'}, (64, 128)),
    'HiViT': ({'arch': 'tiny'}, SQUARE),
    'HorNet': ({'arch': 'tiny', **LAST_3, **MAPS}, None),
    'InceptionV3': ({}, (299, 299)),
    'LeNet5': ({}, (64, 64)),
    'LeViT': ({'arch': '128s', 'out_indices': (0, 1, 2)}, SQUARE),
    'MViT': ({'arch': 'tiny', 'out_scales': (1, 2, 3)}, SQUARE),
    'MixMIMTransformer': ({'arch': 'base'}, SQUARE),
    'MlpMixer': ({'arch': 'small'}, SQUARE),
    'MobileNetV2': ({'out_indices': (4, 6, 7)}, None),
    'MobileNetV3': ({'arch': 'small_075', 'out_indices': (3, 8, 12)}, None),
    'MobileOne': ({'arch': 's0', **LAST_3}, None),
    'MobileViT': ({'arch': 'xx_small', 'out_indices': (2, 3, 4)}, None),
    'PCPVT': ({'arch': 'small', **LAST_3}, None),
    'PoolFormer': ({'arch': 's12', 'out_indices': (2, 4, 6)}, None),
    'PyramidVig': ({'arch': 'tiny', **LAST_3}, SQUARE),
    'RIFormer': ({'arch': 's12', 'out_indices': (2, 4, 6)}, None),
    'RegNet': ({'arch': 'regnetx_400mf', **LAST_3}, None),
    'RepLKNet': ({'arch': '31B', **LAST_3}, None),
    'RepMLPNet': ({'arch': 'B', **LAST_3}, SQUARE),
    'RepVGG': ({'arch': 'A0', **LAST_3}, None),
    'Res2Net': ({'depth': 50, **LAST_3}, None),
    'ResNeSt': ({'depth': 50, **LAST_3}, None),
    'ResNeXt': ({'depth': 50, **LAST_3}, None),
    'ResNet': ({'depth': 18, **LAST_3}, None),
    'ResNetV1c': ({'depth': 50, **LAST_3}, None),
    'ResNetV1d': ({'depth': 50, **LAST_3}, None),
    'ResNet_CIFAR': ({'depth': 18, **LAST_3}, None),
    'RevVisionTransformer': ({'arch': 'deit-tiny', **FEATMAP}, SQUARE),
    'SEResNeXt': ({'depth': 50, **LAST_3}, None),
    'SEResNet': ({'depth': 50, **LAST_3}, None),
    'SVT': ({'arch': 'small', **LAST_3}, None),
    'ShuffleNetV1': ({'out_indices': (0, 1, 2)}, None),
    'ShuffleNetV2': ({'out_indices': (1, 2, 3)}, None),
    'SparseConvNeXt': ({'arch': 'tiny', **LAST_3}, None),
    'SparseResNet': (
        {'depth': 50, 'norm_cfg': {'type': 'SparseBatchNorm2d'}, **LAST_3},
        None,
    ),
    'SwinTransformer': ({'arch': 'tiny', **LAST_3}, SQUARE),
    'SwinTransformerV2': ({'arch': 'tiny', **LAST_3}, (256, 256)),
    'T2T_ViT': (
        {
            't2t_cfg': {'token_dims': 64, 'use_performer': False},
            'num_layers': 12,
            **FEATMAP,
            **DEPTHS,
        },
        SQUARE,
    ),
    'TIMMBackbone': (
        {'model_name': 'resnet10t', 'features_only': True, 'out_indices': (2, 3, 4)},
        None,
    ),
    'TNT': ({}, SQUARE),
    'TinyViT': ({'arch': '5m', **LAST_3, **MAPS}, SQUARE),
    'VAN': ({'arch': 'tiny', **LAST_3}, None),
    'VGG': ({'depth': 11, 'out_indices': (2, 3, 4)}, None),
    'ViTEVA02': ({'arch': 'tiny', **FEATMAP, **DEPTHS}, SQUARE),
    'ViTSAM': ({'arch': 'base', 'img_size': 224, **DEPTHS}, SQUARE),
    'Vig': ({'arch': 'tiny', 'out_indices': (5, 8, 11)}, SQUARE),
    'VisionTransformer': ({'arch': 'deit-tiny', **FEATMAP, **DEPTHS}, SQUARE),
    'XCiT': ({'embed_dims': 192, 'depth': 12, 'num_heads': 4, **FEATMAP, **DEPTHS}, SQUARE),
}


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        '--zoo', nargs='+', choices=['timm', 'mmpretrain'], default=['timm', 'mmpretrain']
    )
    parser.add_argument(
        '--modules', nargs='+', metavar='NAME', help='only these timm modules or MMPretrain types'
    )
    parser.add_argument(
        '--methods',
        nargs='+',
        metavar='NAME',
        help="only these methods; 'control' compares gap with the network",
    )
    parser.add_argument(
        '--side', type=int, default=128, help='of images for networks that take any size (128)'
    )
    parser.add_argument(
        '--again',
        nargs='+',
        choices=['ok', 'refused', 'failed'],
        default=[],
        help='run cells of this outcome again',
    )
    parser.add_argument('--out', default='coverage.json', help='what was run (coverage.json)')
    parser.add_argument('--markdown', metavar='FILE', help='write the page too')
    return parser.parse_args()


def mmpretrain_types() -> list[str]:
    """MMPretrain's registered backbones.

    Raises:
        UserError: if there is one that the table lacks.
    """
    import mmpretrain.models.backbones as room
    from mmpretrain.registry import MODELS

    types = [n for n, cls in MODELS.module_dict.items() if cls.__module__.startswith(room.__name__)]
    missing = sorted(set(types) - set(MMPRETRAIN))
    if missing:
        raise UserError(f'MMPretrain has backbones that the table lacks: {", ".join(missing)}')
    return sorted(types)


def mmpretrain_backbone(name: str) -> CoveredBackbone:
    """The row of a backbone of MMPretrain with the settings above."""
    from mmpretrain.registry import MODELS

    from fgplugins.analysis.coverage import CoveredBackbone
    from fgplugins.zoo_mmpretrain.backbone_maps import probe_network

    settings = MMPRETRAIN[name][0]
    shown = ', '.join(f'{key}={value!r}' for key, value in settings.items())
    count, levels = 0, 1
    try:
        model = MODELS.build({'type': name, **settings})
        count = sum(p.numel() for p in model.parameters())
        levels = len(probe_network(model)[0])
    except Exception as error:  # the row is kept: its cells say what is wrong, too
        print(f'{name}: {type(error).__name__}: {error}', flush=True)
    return CoveredBackbone(name, f'{name}({shown})', count, levels)


def find_backbones(zoo: str, wanted: list[str] | None, report: dict) -> list[CoveredBackbone]:
    """The rows of a zoo; the report keeps them for the next run."""
    from fgplugins.analysis import coverage

    known = report.setdefault('subjects', {}).setdefault(zoo, {})
    names = coverage.timm_modules() if zoo == 'timm' else mmpretrain_types()
    find = coverage.smallest_model if zoo == 'timm' else mmpretrain_backbone
    for name in names:
        if name not in known and (wanted is None or name in wanted):
            known[name] = vars(find(name))
            print(f'{zoo} {name}: {known[name]["model"]}', flush=True)
    chosen = [n for n in names if n in known and (not wanted or n in wanted)]
    return [coverage.CoveredBackbone(**known[name]) for name in chosen]


def run_cell(zoo: str, covered: CoveredBackbone, method: str, side: int) -> Cell:
    from fgplugins.analysis import coverage

    if zoo == 'timm':
        if method == coverage.CONTROL:
            return coverage.try_timm_control(covered)
        return coverage.try_timm(covered, method, side)
    settings, size = MMPRETRAIN[covered.group]
    backbone = {'type': covered.group, **settings}
    if method == coverage.CONTROL:
        return coverage.try_mmpretrain_control(backbone, size or (64, 96))
    return coverage.try_mmpretrain(backbone, method, covered.levels, size or (64, 96))


def main() -> None:
    args = parse_args()
    check_outputs(args, 'markdown')
    require_module('fgplugins.analysis.coverage')

    from fgplugins.analysis import coverage
    from fgplugins.methods import list_methods

    known = [*list_methods(), coverage.CONTROL]
    unknown = sorted(set(args.methods or []) - set(known))
    if unknown:
        raise UserError(f'--methods {unknown[0]}: there are {", ".join(known)}')
    out, methods = Path(args.out), args.methods or known
    report = coverage.load(out)
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    rows = []
    for zoo in args.zoo:
        if zoo == 'mmpretrain':
            require_module('fgplugins.zoo_mmpretrain')
            from mmengine.registry import init_default_scope

            init_default_scope('mmpretrain')
        rows += [(zoo, covered) for covered in find_backbones(zoo, args.modules, report)]
        coverage.save(report, out)
    lost = sorted(set(args.modules or []) - {covered.group for _, covered in rows})
    if lost:
        raise UserError(f'--modules {lost[0]}: not in {" or ".join(args.zoo)}')
    rows.sort(key=lambda row: row[1].parameters)  # what is quick comes first
    for i, (zoo, covered) in enumerate(rows, 1):
        done = report.get(zoo, {}).get(covered.group, {}).get('cells', {})
        for method in methods:
            if method in done and done[method]['outcome'] not in args.again:
                continue
            cell = run_cell(zoo, covered, method, args.side)
            coverage.record(report, zoo, covered, method, cell)
            coverage.save(report, out)
            gc.collect()
            print(
                f'[{i}/{len(rows)}] {zoo} {covered.group} {method}: {cell.outcome} {cell.reason} '
                f'({cell.seconds} s)',
                flush=True,
            )
    zoos = {zoo: report[zoo] for zoo in ('timm', 'mmpretrain') if zoo in report}
    if args.markdown:
        command = shlex.join(['python', 'tools/coverage.py', *sys.argv[1:]])
        page = coverage.markdown(zoos, list_methods(), command)
        Path(args.markdown).write_text(page, encoding='utf-8')
    for zoo, found in zoos.items():
        cells = [cell['outcome'] for row in found.values() for cell in row['cells'].values()]
        counts = ', '.join(f'{cells.count(o)} {o}' for o in ('ok', 'refused', 'failed'))
        print(f'{zoo}: {len(found)} rows: {counts}')


if __name__ == '__main__':
    main_guard(main)
