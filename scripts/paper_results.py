"""Every row of every table of the five papers, and the config that runs it.

`make_tables.py` writes it as a page; what it says of a recipe is read off the configs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

__all__ = ['TABLES', 'Row', 'Table', 'make_page']

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
COMMAND = 'python scripts/make_tables.py'
QUOTED = 'quoted there from its own paper: not a method or network of this package'
NONE = '–'


@dataclass(frozen=True)
class Row:
    """A row of a paper's table.

    Attributes:
        label: the paper's name for it.
        printed: the figures, one a column of the table.
        config: the config that runs it, with ``{data}`` for the column's data set; empty if none.
        options: ``--cfg-options`` of training and testing.
        test: what the test takes besides, as ``--tta``.
        note: what a reader should know; of a row without a config, what is missing.
    """

    label: str
    printed: Sequence[str]
    config: str = ''
    options: str = ''
    test: str = ''
    note: str = ''


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        paper: its short name.
        number: of the table.
        what: what is printed.
        columns: of the figures, and the name that configs have for the data set of each.
        rows: in the paper's order.
    """

    paper: str
    number: int
    what: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Row]

    def runs(self) -> Iterator[tuple[Row, str]]:
        """Each row that has a config, with each of its configs."""
        for row in self.rows:
            for name in dict.fromkeys(row.config.format(data=data) for _, data in self.columns):
                if name:
                    yield row, name


CIFAR = (('CIFAR-10', 'cifar10'), ('CIFAR-100', 'cifar100'))
FINE = (('CUB', 'cub'), ('Cars', 'cars'), ('Aircraft', 'aircraft'))
DROPOUT = 'model.backbone.block_drop_rate=0.3'
CLCA = 'model.head.spatial=False'
WARN_NOTE = 'the printed figures are best test epochs (official logs)'
FOLDS = 'gender and age: the mean over options.fold=0 ... 4'
SECONDS = 'parameters and GFlop: docs/complexity.md; seconds: tools/benchmark.py'
TRANSFER = 'trained by these; missing: features, ZCA whitening and the linear SVM (C = 1, 5 folds)'


def branches(label: str, names: str, *printed: str) -> Row:
    """A row of CLAN's Table 4: one training, other branches in the test."""
    test = f'--cfg-options "model.head.branches={names}"'
    return Row(label, printed, 'clan_vgg16_3scale_{data}', test=test)


def caltech(label: str, net: str, kind: str, few: bool, *printed: str) -> Row:
    """A row of ICASC's Table 3."""
    options = [f'model.head.kind={kind}'] if kind == 'pixel' else []
    options += ['train_dataloader.dataset.train_per_class=30'] if few else []
    method = 'siou' if kind else 'gap'
    return Row(label, printed, f'{method}_{net}_caltech256', ' '.join(options))


TABLES = (
    Table('WARN', 1, 'error, %', CIFAR, (
        Row('ResNeXt 29', ('3.58', '17.31'), note=QUOTED),
        Row('DenseNet 250', ('3.62', '17.60'), note=QUOTED),
        Row('DenseNet 190', ('3.46', '17.18'), note=QUOTED),
        Row('WRN 28', ('4', '19.25'), 'gap_wrn28_10_{data}'),
        Row('WRN 28, dropout', ('3.89', '18.85'), 'gap_wrn28_10_{data}', DROPOUT),
        Row('WRN 40, dropout', ('3.8', '18.3'), 'gap_wrn40_10_{data}'),
        Row('WRN-att2 28, AD 2', ('4.10', '21.20'), 'att2_wrn28_10_{data}'),
        Row('WRN-att2 28, AD 2, dropout', ('3.60', '20.00'), 'att2_wrn28_10_{data}', DROPOUT),
        Row('WRN-att2 40, AD 2, dropout', ('3.90', '19.20'), 'att2_wrn40_10_{data}'),
        Row(
            'WARN 28, AD 2, AW 4', ('3.60', '18.72'), 'warn_wrn28_10_{data}',
            'model.head.taps=2', note=WARN_NOTE,
        ),
        Row('WARN 28, AD 3, AW 4', ('3.45', '18.61'), 'warn_wrn28_10_{data}', note=WARN_NOTE),
        Row(
            'WARN 28, AD 3, AW 4, dropout', ('3.44', '18.26'), 'warn_wrn28_10_{data}', DROPOUT,
            note=WARN_NOTE,
        ),
        Row(
            'WARN 40, AD 3, AW 4, dropout', ('3.46', '17.82'), 'warn_wrn40_10_{data}',
            note=WARN_NOTE,
        ),
    )),
    Table(
        'WARN', 2, 'millions of parameters, GFlop, seconds, then the errors of Table 1',
        (('parameters', 'cifar10'), ('GFlop', 'cifar10'), ('seconds', 'cifar10'),
         ('CIFAR-10', 'cifar10'), ('CIFAR-100', 'cifar100')),
        (
            Row('ResNeXt 29', ('68', '10.7', '5.02', '3.58', '17.31'), note=QUOTED),
            Row('DenseNet 190', ('26', '9.3', '6.41', '3.46', '17.18'), note=QUOTED),
            Row('WRN 40', ('56', '8.1', '0.18', '3.80', '18.30'), 'gap_wrn40_10_{data}',
                note=SECONDS),
            Row('WRN-att2 40', ('64', '8.6', '0.24', '3.90', '19.20'), 'att2_wrn40_10_{data}',
                note=SECONDS),
            Row('WARN 28', ('37', '5.3', '0.17', '3.44', '18.26'), 'warn_wrn28_10_{data}', DROPOUT,
                note=SECONDS),
            Row('WARN 40', ('56', '8.2', '0.18', '3.46', '17.82'), 'warn_wrn40_10_{data}',
                note=SECONDS),
        ),
    ),
    Table(
        'WARN', 3, 'accuracy, %',
        (('Dogs', 'dogs'), ('Food', 'food'), ('Cars', 'cars'), ('Gender', 'gender'),
         ('Age', 'age'), ('Birds', 'cub')),
        (
            Row('SotA', ('87.3', '81.5', '92.8', '93.0', '64.0', '86.5'), note=QUOTED),
            Row('WRN', ('89.6', '84.3', '88.5', '93.9', '57.4', '84.3'),
                'gap_wide_resnet50_2_{data}', note=FOLDS),
            Row('WARN', ('92.9', '85.5', '90.0', '94.6', '59.7', '85.6'),
                'warn_wide_resnet50_2_{data}', note=FOLDS),
        ),
    ),
    Table(
        'WARN', 4, 'accuracy, or what is gained of it, per million parameters, %',
        (('Dogs', 'dogs'), ('Food', 'food'), ('Cars', 'cars'), ('Gender', 'gender'),
         ('Age', 'age'), ('Birds', 'cub')),
        (
            Row('WRN', ('1.3', '1.2', '1.3', '1.4', '0.8', '1.2'), 'gap_wide_resnet50_2_{data}',
                note='accuracies of Table 3 over the parameters of docs/complexity.md'),
            Row('WARN', ('6.9', '2.5', '3.1', '1.5', '4.0', '2.5'), 'warn_wide_resnet50_2_{data}',
                note='accuracies of Table 3 over the parameters of docs/complexity.md'),
        ),
    ),
    Table('att2', 1, 'top-1 error, %', CIFAR, (
        Row('VGG', ('7.77', '30.62'), 'gap_vgg16_{data}'),
        Row('VGG-GAP', ('9.87', '31.77'), 'gap_vgg_{data}'),
        Row('VGG-PAN', ('6.29', '24.35'), 'att2_pan_vgg_{data}'),
        Row('RN-164', ('6.03', '25.34'), 'gap_resnet164_{data}'),
        Row('(VGG-att)-dp', ('6.14', '24.22'), 'att2_vgg_1level_{data}', 'model.head.compat=dp'),
        Row('(VGG-att2)-indep-dp', ('5.91', '23.24'), 'att2_vgg_dp_{data}',
            'model.head.classify=indep'),
        Row('(VGG-att2)-concat-dp', ('5.86', '23.91'), 'att2_vgg_dp_{data}'),
        Row('(VGG-att)-pc', ('5.67', '23.70'), 'att2_vgg_1level_{data}'),
        Row('(VGG-att2)-indep-pc', ('5.36', '24.00'), 'att2_vgg_{data}',
            'model.head.classify=indep'),
        Row('(VGG-att2)-concat-pc', ('5.23', '23.19'), 'att2_vgg_{data}'),
        Row('(VGG-att3)-concat-pc', ('6.34', '22.97'), 'att2_vgg_3level_{data}'),
        Row('RN-164-att2 (in the text)', ('+0.9', '+1.5'), 'att2_resnet164_{data}',
            note='printed as what is lost against RN-164'),
    )),
    Table('att2', 2, 'top-1 error, %', (('CUB', 'cub'), ('SVHN', 'svhn')), (
        Row('VGG', ('34.64', '4.27'), 'gap_vgg16_{data}'),
        Row('VGG-GAP', ('29.50', '5.84'), 'gap_vgg_{data}',
            note='CUB is quoted there from the method\'s own paper'),
        Row('VGG-PAN', ('31.46', '8.02'), 'att2_pan_vgg_{data}'),
        Row('RN-34', ('26.5', NONE), note=QUOTED),
        Row('(VGG-att2)-concat-pc', ('26.80', '3.74'), 'att2_vgg_{data}'),
        Row('(VGG-att3)-concat-pc', ('26.95', '3.52'), 'att2_vgg_3level_{data}'),
    )),
    Table(
        'att2', 3, 'top-1 accuracy, %, of features learned on CIFAR-10 and on CIFAR-100',
        tuple((f'{name}, {data}', key) for name in
              ('STL-train', 'STL-test', 'Caltech-101', 'Caltech-256', 'Event-8', 'Action-40',
               'Scene-67') for data, key in CIFAR),
        (
            Row('VGG', ('45.34', NONE, '44.91', NONE, '35.97', '54.20', '13.16', '25.57', '53.62',
                        '57.05', '13.85', '17.58', '11.02', '16.73'), 'gap_vgg16_{data}',
                note=TRANSFER),
            Row('VGG-GAP', ('43.24', NONE, '42.76', NONE, '41.68', '62.61', '16.30', '31.39',
                            '58.83', '68.11', '16.73', '24.50', '12.85', '23.04'),
                'gap_vgg_{data}', note=TRANSFER),
            Row('VGG-PAN', ('47.5', NONE, '47.21', NONE, '48.09', '65.75', '19.61', '33.66',
                            '56.93', '64.49', '16.96', '23.44', '18.77', '23.43'),
                'att2_pan_vgg_{data}', note=TRANSFER),
            Row('RN-164', ('47.82', NONE, '47.02', NONE, '49.89', '73.62', '22.59', '39.65',
                           '69.19', '75.10', '20.56', '28.72', '20.26', '29.89'),
                'gap_resnet164_{data}', note=TRANSFER),
            Row('VGG-att2', ('48.76', NONE, '48.29', NONE, '55.96', '74.40', '26.54', '41.55',
                             '67.73', '80.24', '22.58', '29.95', '25.43', '30.53'),
                'att2_vgg_{data}', note=TRANSFER),
            Row('VGG-att3', ('48.42', NONE, '48.32', NONE, '58.34', '75.39', '29.99', '44.14',
                             '77.06', '82.08', '26.75', '30.96', '26.86', '33.72'),
                'att2_vgg_3level_{data}', note=TRANSFER),
            Row('RN-164-att2', ('46.36', NONE, '46.45', NONE, '68.11', '79.17', '36.33', '46.20',
                                '80.37', '83.67', '30.47', '31.45', '30.46', '34.39'),
                'att2_resnet164_{data}', note=TRANSFER),
        ),
    ),
    Table(
        'att2', 4, 'data: training and test images, classes, pixels',
        (('training', ''), ('test', ''), ('classes', ''), ('pixels', '')),
        (
            Row('CIFAR-10', ('50,000', '10,000', '10', '32'), 'att2_vgg_cifar10'),
            Row('CIFAR-100', ('50,000', '10,000', '100', '32'), 'att2_vgg_cifar100'),
            Row('SVHN', ('73,257', '26,032', '10', '32'), 'att2_vgg_svhn',
                note='its 531,131 further images: train_dataloader.dataset.options.extra=True'),
            Row('CUB-200-2011', ('5,994', '5,794', '200', '80'), 'att2_vgg_cub',
                note='cropped by the boxes'),
            Row('STL', ('5,000', '8,000', '10', '96'), note='missing: see Table 3'),
            Row('Caltech-101', ('8,677 in all', '', '101', '300 x 200'),
                note='missing: see Table 3'),
            Row('Caltech-256', ('29,780 in all', '', '256', '300 x 200'),
                note='missing: see Table 3; read for ICASC'),
            Row('Event-8', ('1,574 in all', '', '8', '600'), note='missing: see Table 3'),
            Row('Action-40', ('9,532 in all', '', '40', '400 x 300'), note='missing: see Table 3'),
            Row('Scene-67', ('15,613 in all', '', '67', '500 x 300'),
                note='missing: see Table 3'),
            Row('Object Discovery', ('', '300', '3', '340 x 240'),
                note='missing: the segmentation of Figure 9'),
        ),
    ),
    Table('CRA-CNN', 1, 'accuracy, %', FINE[:2], (
        Row('Baseline, ResNet-50', ('84.2', '90.0'), 'gap_r50_cra_{data}'),
        Row('CRA-CNN, ResNet-50', ('86.2', '92.6'), 'art_r50_{data}'),
        Row('Baseline, ResNet-101', ('86.1', '91.8'), 'gap_r101_cra_{data}'),
        Row('CRA-CNN, ResNet-101', ('87.6', '93.4'), 'art_r101_{data}'),
    )),
    Table('CRA-CNN', 2, 'accuracy on CUB, %', FINE[:1], (
        *(Row(label, (printed,), note=QUOTED) for label, printed in (
            ('STNs', '84.1'), ('RA-CNN', '85.3'), ('Kernel Pooling', '86.2'), ('MA-CNN', '86.5'),
            ('ResNet-101+OSME+MAMC', '86.5'), ('PC-DenseNet-161', '86.9'), ('TASN', '87.9'),
            ('HSE', '88.1'), ('PAIRS', '89.2'), ('WS-DAN', '89.4'), ('Stacked LSTM', '90.4'),
        )),
        Row('Ours (ResNet-50)', ('86.7',), 'art_r50_{data}', test='--uncropped'),
        Row('Ours (ResNet-101)', ('88.3',), 'art_r101_{data}', test='--uncropped'),
    )),
    Table('CRA-CNN', 3, 'accuracy on Cars, %', FINE[1:2], (
        *(Row(label, (printed,), note=QUOTED) for label, printed in (
            ('BoostCNN', '88.5'), ('Kernel Pooling', '92.0'), ('RA-CNN', '92.5'),
            ('MA-CNN', '92.8'), ('ResNet-101+OSME+MAMC', '90.3'), ('MPN-COV', '93.3'),
            ('TASN', '93.8'), ('MGE-CNN', '93.9'), ('WS-DAN', '94.5'), ('EfficientNet', '94.7'),
            ('AutoAugment', '94.8'),
        )),
        Row('Ours (ResNet-50)', ('93.3',), 'art_r50_{data}', test='--uncropped'),
        Row('Ours (ResNet-101)', ('94.8',), 'art_r101_{data}', test='--uncropped'),
    )),
    Table('ICASC', 1, 'top-1 accuracy, %', CIFAR[1:], (
        Row('ResNet-110 + A_Grad-CAM', ('74.02',), 'siou_r110_{data}', 'model.head.kind=gradcam'),
        Row('ResNet-110 + A_px', ('76.24',), 'siou_r110_{data}'),
        Row('ResNet-110 + A_ch', ('76.11',), 'siou_r110_{data}', 'model.head.kind=channel'),
    )),
    Table('ICASC', 2, 'top-1 accuracy, %', CIFAR[1:], (
        Row('ResNet-110', ('72.78',), 'gap_r110_{data}'),
        Row('ResNet with stochastic depth', ('75.42',), note=QUOTED),
        Row('ResNet (pre-activation) 164', ('75.63',), 'gap_resnet164_{data}',
            note='quoted there; the config has att2\'s recipe'),
        Row('ResNet-110 + A_px', ('76.24',), 'siou_r110_{data}'),
        Row('ResNet-110 + A_ch', ('76.11',), 'siou_r110_{data}', 'model.head.kind=channel'),
    )),
    Table(
        'ICASC', 3, 'accuracy, %, with N training images a category',
        (('top-1', 'caltech256'), ('top-5', 'caltech256')),
        (
            caltech('N = 30, ResNet-18', 'r18', '', True, '76.77', '92.48'),
            caltech('N = 30, ResNet-18 + A_px', 'r18', 'pixel', True, '77.82', '92.43'),
            caltech('N = 30, ResNet-18 + A_ch', 'r18', 'channel', True, '78.01', '92.87'),
            caltech('N = 30, VGG-19', 'vgg19', '', True, '74.52', '90.05'),
            caltech('N = 30, VGG-19 + A_px', 'vgg19', 'pixel', True, '75.34', '90.82'),
            caltech('N = 30, VGG-19 + A_ch', 'vgg19', 'channel', True, '75.60', '90.85'),
            caltech('N = 60, ResNet-18', 'r18', '', False, '80.01', '94.12'),
            caltech('N = 60, ResNet-18 + A_px', 'r18', 'pixel', False, '81.34', '94.20'),
            caltech('N = 60, ResNet-18 + A_ch', 'r18', 'channel', False, '81.32', '94.57'),
            caltech('N = 60, VGG-19', 'vgg19', '', False, '78.16', '92.17'),
            caltech('N = 60, VGG-19 + A_px', 'vgg19', 'pixel', False, '79.53', '93.22'),
            caltech('N = 60, VGG-19 + A_ch', 'vgg19', 'channel', False, '79.80', '93.25'),
        ),
    ),
    Table(
        'ICASC', 4, 'accuracy, %', (('top-1', 'imagenet'), ('top-5', 'imagenet')),
        (
            Row('ResNet-18', ('69.51', '88.91'), 'gap_r18_{data}'),
            Row('ResNet-18 + A_ch', ('69.90', '89.71'), 'siou_r18_{data}'),
            Row('ResNet-18 + tenCrop', ('72.12', '90.58'), 'gap_r18_{data}', test='--tta'),
            Row('ResNet-18 + tenCrop + A_ch', ('73.04', '90.65'), 'siou_r18_{data}', test='--tta'),
        ),
    ),
    Table('ICASC', 5, 'accuracy on CUB, %', FINE[:1], (
        Row('ResNet-50', ('81.7',), 'gap_r50_icasc_{data}', note='quoted there'),
        Row('ResNet-101', ('82.5',), 'gap_r101_icasc_{data}', note='quoted there'),
        *(Row(label, (printed,), note=QUOTED) for label, printed in (
            ('SPDA-CNN', '85.1'), ('RACNN', '85.3'), ('PN-CNN', '85.4'), ('RAM', '86.0'),
            ('MACNN + 2parts', '85.4'), ('MACNN + 4parts', '86.5'), ('ResNet-50 + MAMC', '86.2'),
            ('ResNet-101 + MAMC', '86.5'),
        )),
        Row('ResNet-50 + A_ch', ('86.2',), 'siou_r50_{data}'),
        Row('ResNet-101 + A_ch', ('86.5',), 'siou_r101_{data}'),
    )),
    Table('ICASC', 6, 'on PASCAL VOC 2012', (('AUC', 'voc2012'), ('AP, %', 'voc2012')), (
        Row('ResNet-18', ('0.976', '77.44'), 'gap_r18_{data}',
            note='AP there is of the evaluation server, on test images that have no public labels'),
        Row('ResNet-34', (NONE, '80.7'), 'gap_r34_{data}',
            note='quoted there; the config has the recipe of ResNet-18'),
        Row('ResNet-18 + A_px', ('0.980', '83.22'), 'siou_r18_{data}'),
        Row('ResNet-18 + A_ch', ('0.981', '83.17'), 'siou_r18_{data}', 'model.head.kind=channel'),
    )),
    Table(
        'CLAN', 1, 'accuracy on CUB, %, without CLSA',
        (('2-scale', 'vgg16'), ('3-scale', 'vgg16_3scale')),
        (
            Row('Gaussian', ('84.6', '84.5'), 'clan_{data}_cub',
                f'{CLCA} model.head.relation=gaussian'),
            Row('Embedded Gaussian', ('85.1', '85.7'), 'clan_{data}_cub',
                f'{CLCA} model.head.relation=embedded_gaussian'),
            Row('Dot product', ('85.2', '85.8'), 'clan_{data}_cub', CLCA),
        ),
    ),
    Table('CLAN', 2, 'accuracy, %, 3-scale, without CLSA', FINE, (
        Row('GAP', ('78.7', '90.4', '86.3'), 'clan_vgg16_3scale_{data}',
            f'{CLCA} model.head.context=gap'),
        Row('Non-local', ('84.8', '92.5', '89.5'), 'clan_vgg16_3scale_{data}',
            f'{CLCA} model.head.context=non_local'),
        Row('CLCA', ('85.8', '92.9', '90.6'), 'clan_vgg16_3scale_{data}', CLCA),
    )),
    Table(
        'CLAN', 3, 'accuracy on CUB, %', (('2-scale', 'vgg16'), ('3-scale', 'vgg16_3scale')),
        (
            Row('CLCA + CLSA (Avg)', ('85.3', '85.6'), 'clan_{data}_cub',
                'model.head.pooling=avg'),
            Row('CLCA + CLSA (Max)', ('85.7', '86.0'), 'clan_{data}_cub',
                'model.head.pooling=max'),
            Row('CLCA + CLSA (Avg&Max)', ('86.0', '86.8'), 'clan_{data}_cub'),
        ),
    ),
    Table('CLAN', 4, 'accuracy, %, of one 3-scale model by which branches predict', FINE, (
        branches('G-Branch', "['top']", '84.1', '91.5', '90.1'),
        branches('P-Branch', "['mid2']", '85.2', '91.8', '90.3'),
        branches('A-Branch', "['mid1']", '83.1', '88.7', '88.1'),
        branches('CLSA-Branch', "['clsa']", '85.8', '92.6', '90.4'),
        branches('G + P', "['mid2','top']", '85.3', '92.1', '90.6'),
        branches('G + P + A', "['mid1','mid2','top']", '85.8', '92.9', '90.6'),
        Row('G + P + A + CLSA', ('86.8', '93.1', '91.0'), 'clan_vgg16_3scale_{data}'),
    )),
    Table(
        'CLAN', 5, 'millions of parameters and G multiply-adds: docs/complexity.md',
        (('parameters', 'cub'), ('MACs', 'cub')),
        (
            Row('VGG-16', ('15.03', '61.63'), 'clan_vgg16_{data}',
                f'{CLCA} model.head.context=gap', note='with the heads of three branches'),
            Row('2-scale CLAN', ('16.08', '62.30'), 'clan_vgg16_{data}'),
            Row('3-scale CLAN', ('17.34', '64.83'), 'clan_vgg16_3scale_{data}'),
        ),
    ),
    Table('CLAN', 6, 'accuracy, %', FINE, (
        Row('VGG-16', ('79.1', '87.0', '85.1'), 'gap_vgg16_448_{data}'),
        Row('ResNet-50', ('86.0', '92.0', '89.9'), 'gap_r50_448_{data}'),
        Row('ResNet-101', ('86.4', '92.5', '90.5'), 'gap_r101_448_{data}'),
        *(Row(label, printed, note=QUOTED) for label, printed in (
            ('B-CNN', ('84.1', '91.3', '84.1')), ('CBP', ('84.0', NONE, NONE)),
            ('LRBP', ('84.2', '90.9', '87.3')), ('DBT-Net, ResNet-50', ('87.5', '94.1', '91.2')),
            ('DBT-Net, ResNet-101', ('88.1', '94.5', '91.6')), ('RA-CNN', ('85.3', '92.5', '88.2')),
            ('MA-CNN', ('86.5', '92.8', '89.9')), ('MAMC, ResNet-50', ('86.2', '92.8', NONE)),
            ('MAMC, ResNet-101', ('86.5', '93.0', NONE)), ('DFB-CNN', ('87.4', '93.8', '92.0')),
            ('TASN', ('87.9', '93.8', NONE)),
        )),
        Row('CLAN (2-scale), VGG-16', ('85.9', '92.9', '90.3'), 'clan_vgg16_{data}'),
        Row('CLAN (3-scale), VGG-16', ('86.8', '93.1', '91.0'), 'clan_vgg16_3scale_{data}'),
        Row('CLAN (2-scale), ResNet-50', ('88.1', '94.2', '93.2'), 'clan_r50_{data}'),
        Row('CLAN (2-scale), ResNet-101', ('88.7', '94.5', '93.3'), 'clan_r101_{data}'),
    )),
)  # fmt: skip


# ----------------------------------------------------------------------------------------- the page


def recipe_of(name: str, options: str) -> str:
    """What a config trains by, in a few words."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    optimizer, batch = cfg.optim_wrapper.optimizer, cfg.train_dataloader.batch_size
    return (
        f'{cfg.train_cfg.max_epochs} epochs of batch {batch}, {optimizer.type} at {optimizer.lr:g}'
    )


def _line(table: Table, row: Row) -> str:
    names = [name for found, name in table.runs() if found is row]
    run, recipe = '', ''
    if names:
        data = ','.join(dict.fromkeys(data for _, data in table.columns))
        run = f'`{row.config}`'.replace('data', data) if len(names) > 1 else f'`{names[0]}`'
        run += f' with `{row.options}`' if row.options else ''
        run += f', tested by `{row.test}`' if row.test else ''
        recipe = '; '.join(dict.fromkeys(recipe_of(name, row.options) for name in names))
    cells = [row.label, *row.printed, run, recipe, row.note]
    return '| ' + ' | '.join(cell.replace('|', r'\|') for cell in cells) + ' |'


def make_page() -> str:
    """The page, in Markdown."""
    lines = [
        '# The tables of the five papers, and what runs each row',
        '',
        f'Written by `{COMMAND}` from the configs; `{COMMAND} --check` compares. The figures are '
        "the papers', not measured here. A row is trained by "
        '`python tools/train.py configs/NAME.py --cfg-options OPTIONS` and tested by '
        '`tools/test.py` with the same options. Paper by paper, what differs is named in the '
        'config\'s first lines and in the method\'s file, under "Deviations".',
        '',
    ]
    for table in TABLES:
        heads = ['row', *(name for name, _ in table.columns), 'config', 'recipe', 'note']
        lines += [f'## {table.paper}, Table {table.number}: {table.what}', '']
        lines += ['| ' + ' | '.join(heads) + ' |', '|' + '---|' * len(heads)]
        lines += [_line(table, row) for row in table.rows]
        lines.append('')
    return '\n'.join(lines)
