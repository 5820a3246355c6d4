"""Every complexity figure that the five papers print, next to what this package counts.

`make_complexity.py` writes it as a page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import timm
import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import nn
from torchvision.models import DenseNet

from fgplugins.analysis.complexity import count_complexity, paper_form
from fgplugins.analysis.loading import load_model
from fgplugins.analysis.module_counters import count_layers
from fgplugins.analysis.tables import Table

__all__ = ['FINE_TUNING', 'PAPERS', 'Counted', 'Row', 'count_row', 'make_page', 'rows_of']

COMMAND = 'python scripts/make_complexity.py'


@dataclass(frozen=True)
class Row:
    """A line of a paper's table.

    Attributes:
        label: the paper's name for the network.
        model: a timm name, or a function that builds a network for the count alone.
        kwargs: arguments of the timm model in the form that the paper counts.
        ours: the arguments that differ in the form that we build, if that is another.
        parameters: millions as printed; empty if the table has no such column.
        macs: billions as printed.
        size: side of the image.
        layers: count as module counters do, because this paper does.
        note: number of the explanation, if ours is not what is printed.
    """

    label: str
    model: str | Callable[[], nn.Module]
    kwargs: dict[str, object] = field(default_factory=dict)
    ours: dict[str, object] | None = None
    parameters: str = ''
    macs: str = ''
    size: int = 32
    layers: bool = False
    note: str = ''

    @property
    def name(self) -> str:
        if not isinstance(self.model, str):
            return ''
        settings = ', '.join(f'{k}={v}' for k, v in self.kwargs.items() if k != 'num_classes')
        return f'`{self.model}`' + (f' with {settings}' if settings else '')


@dataclass(frozen=True)
class Counted:
    """What we count for a row, in the paper's form and in ours.

    Each is (parameters, operations, multiply-adds of matrix products that the operations lack).
    """

    paper: tuple[int, int, int]
    ours: tuple[int, int, int]


# ------------------------------------------------- networks of other papers, for the count alone


def resnext29() -> nn.Module:
    """ResNeXt-29, 16 x 64d (Xie et al., CVPR 2017, section 5.4), for 10 classes."""
    model = ResNet(
        Bottleneck,
        (3, 3, 3),
        channels=(64, 128, 256),
        cardinality=16,
        base_width=64,
        num_classes=10,
    )
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = model.layer4 = nn.Identity()
    model.fc = nn.Linear(model.layer3[-1].conv3.out_channels, 10)
    return model


def densenet(depth: int, growth: int) -> nn.Module:
    """DenseNet-BC for 10 classes (Huang et al., CVPR 2017, section 3)."""
    layers = (depth - 4) // 6
    model = DenseNet(
        growth_rate=growth,
        block_config=(layers,) * 3,
        num_init_features=2 * growth,
        num_classes=10,
    )
    model.features.conv0 = nn.Conv2d(3, 2 * growth, 3, padding=1, bias=False)
    model.features.norm0 = model.features.relu0 = model.features.pool0 = nn.Identity()
    return model


def densenet250() -> nn.Module:
    return densenet(250, 24)


def densenet190() -> nn.Module:
    return densenet(190, 40)


# -------------------------------------------------------------------------------- what is printed

TEN, HUNDRED, BIRDS = {'num_classes': 10}, {'num_classes': 100}, {'num_classes': 200}
ATT2 = {**TEN, 'mask': 'sigmoid'}  # the global branch is alive, as the paper counts it
SOFTMAX = {'mask': 'softmax'}


def _warn(depth: int, levels: int, printed: str, note: str = '', **more: str) -> Row:
    label = f'WARN {depth}, AD {levels}, AW 4'
    kwargs = TEN if levels == 3 else {**TEN, 'taps': levels}
    return Row(label, f'warn_wrn{depth}_10', kwargs, macs=printed, note=note, **more)


PAPERS: dict[str, tuple[str, list[Row]]] = {
    'WARN, Table 1': (
        'GFlop of one 32 x 32 image; 10 classes where nothing else is said. The rows with dropout '
        'repeat the figures of those without.',
        [
            Row('ResNeXt 29', resnext29, macs='10.7'),
            Row('DenseNet 250', densenet250, macs='5.4'),
            Row('DenseNet 190', densenet190, macs='9.3'),
            Row('WRN 28', 'wrn28_10', TEN, macs='5.2'),
            Row('WRN 40', 'wrn40_10', TEN, macs='8.1'),
            Row('WRN-att2 28, AD 2', 'att2_wrn28_10', ATT2, SOFTMAX, macs='5.7'),
            Row('WRN-att2 40, AD 2', 'att2_wrn40_10', ATT2, SOFTMAX, macs='8.6', note='1'),
            _warn(28, 2, '5.2', note='2'),
            _warn(28, 3, '5.3', note='2'),
            _warn(40, 3, '8.2'),
            Row('WARN 28, AD 3, 100 classes', 'warn_wrn28_10', HUNDRED, macs='5.3', note='3'),
            Row('WARN 40, AD 3, 100 classes', 'warn_wrn40_10', HUNDRED, macs='8.2', note='3'),
        ],
    ),
    'WARN, Table 2': (
        'Parameters and GFlop of one 32 x 32 image; 10 classes where nothing else is said. '
        'Figure 5 plots accuracies over the same GFlop.',
        [
            Row('ResNeXt 29', resnext29, parameters='68', macs='10.7'),
            Row('DenseNet 190', densenet190, parameters='26', macs='9.3'),
            Row('WRN 40', 'wrn40_10', TEN, parameters='56', macs='8.1'),
            Row(
                'WRN-att2 40',
                'att2_wrn40_10',
                ATT2,
                SOFTMAX,
                parameters='64',
                macs='8.6',
                note='1',
            ),
            _warn(28, 3, '5.3', note='2', parameters='37'),
            _warn(40, 3, '8.2', parameters='56'),
            Row(
                'WARN 28, 100 classes',
                'warn_wrn28_10',
                HUNDRED,
                parameters='37',
                macs='5.3',
                note='3',
            ),
            Row(
                'WARN 40, 100 classes',
                'warn_wrn40_10',
                HUNDRED,
                parameters='56',
                macs='8.2',
                note='3',
            ),
        ],
    ),
    'CLAN, Table 5': (
        'Parameters and MACs of one 448 x 448 image, 200 classes. The paper counts as module '
        'counters do: convolutions and linear layers with biases, normalisations, ReLU, pooling '
        'and resampling. They leave matrix products out, which the last two columns have: '
        'compare ours there, where most of CLAN is matrix products. '
        '`tools/get_flops.py --layers` counts so.',
        [
            Row(
                'VGG-16',
                'clan_vgg16_bn',
                {**BIRDS, 'context': 'gap'},
                parameters='15.03',
                macs='61.63',
                size=448,
                layers=True,
                note='4',
            ),
            Row(
                '2-scale CLAN',
                'clan_vgg16_bn',
                BIRDS,
                parameters='16.08',
                macs='62.30',
                size=448,
                layers=True,
            ),
            Row(
                '3-scale CLAN',
                'clan3_vgg16_bn',
                BIRDS,
                parameters='17.34',
                macs='64.83',
                size=448,
                layers=True,
            ),
        ],
    ),
    'ICASC, Table 2': (
        'Parameters; MACs are ours, the paper prints none. One 32 x 32 image, 100 classes.',
        [
            Row('ResNet-110', 'resnet110', HUNDRED, parameters='1.7'),
            Row('ResNet with Stochastic Depth', 'resnet110', HUNDRED, parameters='1.7'),
            Row('ResNet (pre-activation)', 'preact_resnet164', HUNDRED, parameters='1.7'),
            Row(
                'ResNet-110 + A_px',
                'siou_resnet110',
                {**HUNDRED, 'kind': 'pixel'},
                parameters='1.7',
            ),
            Row(
                'ResNet-110 + A_ch',
                'siou_resnet110',
                {**HUNDRED, 'kind': 'channel'},
                parameters='1.7',
            ),
        ],
    ),
    'CRA-CNN, sections 1 and 4': (
        'The paper prints no figure: it "requires no heavier overhead than basic models such as '
        'the ResNets". One 448 x 448 image, 200 classes.',
        [
            Row('ResNet-50', 'resnet50', BIRDS, size=448),
            Row('CRA-CNN, ResNet-50', 'art_resnet50', BIRDS, size=448),
            Row('ResNet-101', 'resnet101', BIRDS, size=448),
            Row('CRA-CNN, ResNet-101', 'art_resnet101', BIRDS, size=448),
        ],
    ),
}

NOTES = {
    '1': "Paper's form: the global branch built, as under a sigmoid or the dot product. Its 0.47 G "
    'bring 8.07 G to 8.55 G; the paper adds 0.5 to its rounded 8.1. Ours: under a softmax the '
    'branch has no effect ([methods.md](methods.md)) and is not built.',
    '2': 'The entries of depth 28 are these values cut after one digit, those of depth 40 rounded.',
    '3': 'The paper prints one figure for CIFAR-10 and CIFAR-100; it is that of 10 classes. The '
    'output heads of 100 classes are ten times as wide.',
    '4': 'The baseline has the three classifiers of 2-scale CLAN (15.03 M; VGG-16 with one has '
    '14.83 M); of CLAN it still has the 19 weights of the spatial attention.',
}

# WARN, Tables 3 and 4: classes, accuracy of WRN and WARN, accuracy per million parameters of both
FINE_TUNING = {
    'Dogs': (120, '89.6', '92.9', '1.3', '6.9'),
    'Food': (100, '84.3', '85.5', '1.2', '2.5'),
    'Cars': (196, '88.5', '90.0', '1.3', '3.1'),
    'Gender': (2, '93.9', '94.6', '1.4', '1.5'),
    'Age': (8, '57.4', '59.7', '0.8', '4.0'),
    'Birds': (200, '84.3', '85.6', '1.2', '2.5'),
}


def rows_of(title: str) -> list[Row]:
    """The rows of a table whose networks are registered."""
    return [
        row
        for row in PAPERS[title][1]
        if not isinstance(row.model, str) or timm.is_model(row.model)
    ]


def count_row(row: Row) -> Counted:
    """Count a row's network in the paper's form and in ours."""
    size = (3, row.size, row.size)
    if not isinstance(row.model, str):
        cost = count_complexity(row.model(), size)
        return Counted(*[(cost.parameters, cost.macs, 0)] * 2)

    def count(kwargs: dict[str, object], paper: bool) -> tuple[int, int, int]:
        loaded = load_model(row.model, None, [f'{k}={v}' for k, v in kwargs.items()])
        forward = paper_form(loaded) if paper and loaded.method is not None else None
        parameters = sum(p.numel() for p in loaded.model.parameters())
        if row.layers:
            return parameters, *count_layers(loaded.model, size, forward)
        return parameters, count_complexity(loaded.model, size, forward).macs, 0

    return Counted(count(row.kwargs, True), count({**row.kwargs, **(row.ours or {})}, False))


def _agrees(printed: str, value: float) -> bool:
    """Whether a value, rounded to as many digits as the printed one, equals it."""
    digits = len(printed.partition('.')[2])
    return not printed or f'{value:.{digits}f}' == printed


def _table(title: str, progress: Callable[[str], None]) -> tuple[Table, list[str]]:
    """A table of the page, and the numbers of the explanations that it refers to."""
    rows, notes = [], []
    for row in rows_of(title):
        progress(f'{title}: {row.label}')
        counted = count_row(row)
        (parameters, macs, products), ours = counted.paper, counted.ours
        agree = _agrees(row.parameters, parameters / 1e6) and _agrees(row.macs, macs / 1e9)
        if not agree and not row.note:
            raise ValueError(f'{title}, {row.label}: not what is printed, and not explained')
        verdict = '' if not (row.parameters or row.macs) else 'as printed' if agree else 'see'
        if row.note:
            verdict = f'{verdict} [{row.note}]'.strip()
            notes.append(row.note)
        rows.append(
            [
                row.label,
                row.name,
                row.parameters,
                f'{parameters / 1e6:.3f}',
                f'{ours[0] / 1e6:.3f}',
                row.macs,
                f'{macs / 1e9:.3f}',
                f'{ours[1] / 1e9:.3f}',
                verdict,
            ]
        )
        if row.layers:
            with_products = ((macs + products) / 1e9, sum(ours[1:]) / 1e9)
            rows[-1] += [f'{value:.3f}' for value in with_products]
    header = ['network', 'here', 'M printed', "M, paper's form", 'M, ours']
    header += ['G printed', "G, paper's order", 'G, ours', '']
    if len(rows[0]) > len(header):
        header += ["G with products, paper's order", 'G with products, ours']
    return Table('', header, rows, left=2), sorted(set(notes))


def _fine_tuning() -> Table:
    """WARN, Table 4: the parameters that follow from its ratios, and those of the networks here."""

    def million(name: str, **kwargs: object) -> float:
        with torch.device('meta'):
            model = timm.create_model(name, **kwargs)
        return sum(p.numel() for p in model.parameters()) / 1e6

    rows = []
    for data, (classes, wrn, warn, per_wrn, per_warn) in FINE_TUNING.items():
        gain = float(warn) - float(wrn)
        base = million('wide_resnet50_2', num_classes=classes)
        printed_name = million('wide_resnet50_4', num_classes=classes)
        whole = million('warn', backbone='wide_resnet50_2', num_classes=classes)
        rows.append(
            [
                f'{data} ({classes})',
                per_wrn,
                f'{float(wrn) / float(per_wrn):.1f}',
                f'{base:.1f}',
                f'{printed_name:.1f}',
                per_warn,
                f'{gain / float(per_warn):.2f}',
                f'{whole - base:.2f}',
            ]
        )
    header = ['data (classes)', 'WRN, % per M', 'M it stands for', '`wide_resnet50_2`']
    header += ['`wide_resnet50_4`', 'WARN, % per M', 'M it stands for', 'WARN adds here']
    return Table('', header, rows)


def make_page(progress: Callable[[str], None] = lambda line: None) -> str:
    """The page `docs/complexity.md`.

    Args:
        progress: called with the name of every row before it is counted.

    Raises:
        ValueError: if a count differs from what is printed and no explanation is given.
    """
    parts = [
        '# Complexity: what the papers print, and what is counted here',
        f'Written by `{COMMAND}`; `{COMMAND} --check` compares this page with a new count, and '
        '`tests/test_complexity.py` holds it to an independent counter. G are multiply-adds (what '
        'the papers call FLOPs) of convolutions, linear layers and matrix products, in billions, '
        'of one image; M are millions of parameters. "Paper\'s order" computes '
        'what the paper prints in the order that it prints; "ours" is what runs. The scores are '
        'the same to 1e-10 (of att2 where the mask is a softmax in both).',
    ]
    used: list[str] = []
    for title, (text, _) in PAPERS.items():
        if not rows_of(title):
            continue
        table, notes = _table(title, progress)
        used += notes
        parts += [f'## {title}', text, table.markdown()]
        if title == 'WARN, Table 2':
            parts += [
                "The table's third column, seconds, is no count: `tools/benchmark.py` times any "
                'two of these networks side by side.',
                '## WARN, Table 4',
                'Accuracy per million parameters: of WRN the accuracy over all parameters, of WARN '
                'the gain over those that it adds. Dividing gives back the parameters, in '
                'millions.',
                _fine_tuning().markdown(),
                'The network that the paper calls WRN-50-4 is `wide_resnet50_2` by its parameters. '
                'WARN is said to add about half a million whatever the number of classes. That is '
                'what it adds to WRN-28-10 with 10 classes (0.486 M); its output heads grow with '
                'the classes and with the wider maps of this network (AD 3, AW 4, 3 x 3 here).',
            ]
    parts.append('## Explanations')
    parts.append('\n'.join(f'- [{number}] {NOTES[number]}' for number in sorted(set(used))))
    parts.append(
        'Learn to Pay Attention prints no counts; those of its networks, with and without the '
        'branch that has no effect, are in [methods.md](methods.md).'
    )
    return '\n\n'.join(parts) + '\n'
