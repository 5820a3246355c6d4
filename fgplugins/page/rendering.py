"""The page as HTML: what the templates are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fgplugins.compare.cells import CONTROL
from fgplugins.compare.comparison import split_path
from fgplugins.compare.tables import COSTS, summary
from fgplugins.compare.verdict import listed
from fgplugins.data.images import printable
from fgplugins.page.looking import RowMaps
from fgplugins.page.plots import cost_plot, strips
from fgplugins.page.reading import Backbone, Comparison

__all__ = ['data_of', 'describe', 'page']

HERE = Path(__file__).parent
FIRST = 8  # pairs, classes and findings that are shown at once
USES = (('train', 'training'), ('val', 'validation'), ('test', 'test'))


def data_of(
    comparison: Comparison,
    maps: Mapping[tuple[str, str], RowMaps],
    with_thumbnail: set[int],
    with_maps: set[int],
) -> dict[str, Any]:
    """What the page's script knows of a comparison.

    Args:
        comparison: it.
        maps: by backbone and method.
        with_thumbnail: places of the test images that have one.
        with_maps: of those whose maps were computed.
    """
    n = range(len(comparison.images))
    return {
        'name': comparison.name,
        'classes': comparison.classes,
        'files': comparison.files,
        'labels': comparison.labels.tolist(),
        'thumbnails': ''.join('01'[i in with_thumbnail] for i in n),
        'maps': ''.join('01'[i in with_maps] for i in n),
        'backbones': [
            {
                'name': backbone.name,
                'rows': [
                    {
                        'method': row.method,
                        'seeds': row.seeds,
                        'shown': row.shown,
                        'predicted': row.predicted.tolist(),
                        'percent': row.percent,
                        'reason': maps[backbone.name, row.method].reason,
                        'rivalReason': maps[backbone.name, row.method].rival_reason,
                    }
                    for row in backbone.rows
                    if row.seeds
                ],
            }
            for backbone in comparison.backbones
        ],
    }


def describe(
    comparison: Comparison, check: Mapping[str, Any], with_maps: int, place: str
) -> dict[str, Any]:
    """What the templates are given of a comparison.

    Args:
        comparison: it.
        check: see `fgplugins.page.checking.checked_folder`.
        with_maps: how many images have maps.
        place: of its folder, as the page names it.
    """
    results = comparison.results
    images = results['asked'].get('images', {})
    backbones = zip(results['backbones'], comparison.backbones, strict=True)
    return {
        'name': comparison.name,
        'place': place,
        'classes': len(results['classes']),
        'tested': len(comparison.images),
        'with_maps': with_maps,
        'images': listed([f'{images[part]:,} {use}' for part, use in USES if part in images]),
        'backbones': [_of_backbone(found, backbone) for found, backbone in backbones],
        'best': results['best'],
        'rule': results['rule'],
        'check': check,
        'repeat': _repeat(comparison),
    }


def _of_backbone(found: Mapping[str, Any], backbone: Backbone) -> dict[str, Any]:
    table, rows = summary(found), found['rows']
    accuracy, difference, marks = strips(rows)
    return {
        'name': found['backbone'],
        'verdict': found['verdict'],
        'remarks': found['remarks'],
        'results': table.without(COSTS),
        'costs': table.without([name for name in table.header[1:] if name not in COSTS]),
        'found': [bool(row['comparison'] and row['comparison']['found']) for row in rows],
        'any_run': any(row['runs'] for row in rows),
        'accuracy': accuracy,
        'difference': difference,
        'strips': list(zip(rows, marks, strict=True)),
        'cost': cost_plot(rows),
        'methods': [row for row in rows if row['pairs']],
        'failed': [(row['method'], cell) for row in rows for cell in row['failed']],
        'shown': [
            f'{row.method} seed {row.shown}' for row in backbone.rows if row.shown is not None
        ],
    }


def _repeat(comparison: Comparison) -> dict[str, Any]:
    """Commands, versions and hardware of the cells, each once."""
    cells, asked = comparison.results['cells'], comparison.results['asked']
    commands = dict.fromkeys(c['command'] for c in cells if 'command' in c)
    if asked.get('command'):
        commands = dict.fromkeys([*commands, asked['command']])
    versions = dict.fromkeys(
        ', '.join(f'{name} {version}' for name, version in cell['versions'].items())
        for cell in cells
        if 'versions' in cell
    )
    hardware = dict.fromkeys(
        ', '.join(f'{key}: {value}' for key, value in cell['hardware'].items())
        for cell in cells
        if 'hardware' in cell
    )
    return {
        'commands': list(commands),
        'versions': list(versions),
        'hardware': list(hardware),
        'recipes': _recipes(cells),
        'mode': asked.get('mode'),
        'folder': printable(comparison.folder),
        'split': split_path(comparison.root).name,
        'digest': cells[0]['split'],
        'seconds': sum(sum(cell.get('seconds', {}).values()) for cell in cells),
        'trials': len(comparison.results['trials']),
    }


def _recipes(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Length, batch and rate of the trainings: one line, or a line for all rows that share them."""
    rows: dict[str, dict[str, None]] = {}
    for cell in cells:
        recipe = cell['recipe']
        if 'train_cfg' in recipe:  # of MMPretrain's runner
            optimizer = recipe['optim_wrapper']['optimizer']
            recipe = {
                'epochs': recipe['train_cfg']['max_epochs'],
                'batch_size': recipe['train_dataloader']['batch_size'],
                **{key: optimizer[key] for key in ('lr', 'weight_decay') if key in optimizer},
                **{key: recipe[key] for key in ('size',) if key in recipe},
            }
        said = ', '.join(f'{key} {v}' for key, v in recipe.items() if isinstance(v, (int, float)))
        rows.setdefault(said, {})[cell['method']] = None
    if len(rows) == 1:
        return list(rows)
    return [f'{", ".join(methods)}: {said}' for said, methods in rows.items()]


def page(comparisons: Sequence[Mapping[str, Any]], inside: str, beside: bool, version: str) -> str:
    """The page.

    Args:
        comparisons: of `describe`.
        inside: the scripts with the data, if the page holds them; else they are in the folder
            beside it.
        beside: whether the results' other files lie beside the page.
        version: of this package.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE / 'templates'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['printable'] = printable
    style, script = ((HERE / 'assets' / name).read_text(encoding='utf-8')
                     for name in ('page.css', 'page.js'))  # fmt: skip
    return environment.get_template('page.html').render(
        comparisons=comparisons,
        inside=inside,
        beside=beside,
        version=version,
        style=style,
        script=script,
        control=CONTROL,
        first=FIRST,
    )
