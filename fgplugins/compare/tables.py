"""``report/results.md`` and ``results.csv``: a comparison's results for people and spreadsheets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgplugins.analysis.tables import Table, to_csv
from fgplugins.compare.cells import CONTROL
from fgplugins.compare.verdict import MOST, listed

__all__ = ['COSTS', 'as_csv', 'as_markdown', 'summary', 'write_tables']

COSTS = ('parameters', 'MACs', 'latency', 'training')  # columns of `summary`

SHOWN = 5  # classes and pairs of a method, of each end
READING = (
    'Accuracies are in percent, with the standard deviation between seeds. The difference is to '
    'the plain network (`gap`) with the same seeds on the same images, in points, with its 95 % '
    'interval, in which both seeds and images count as samples. Holm p is the chance of such a '
    'difference where there is none, corrected for how many methods are compared. "Could see" is '
    'the true difference that this comparison would have found four times in five. "Fixed" and '
    '"broken" are the images that the method has right and the plain network wrong, and the '
    'reverse, mean over seeds. Calibration is how many points the probabilities are off (ECE), as '
    'they are and after one temperature fitted on the validation images. Parameters and '
    'multiply-adds (MACs) are those of the model that classifies, and of its deployed form where '
    'that is another one; a network that exists in training only is not counted. Latency is the '
    'time of one image on the plain network, and how many times that a method takes, timed in '
    'turn. Training is the mean time of a run.'
)


def write_tables(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write both files.

    Args:
        results: of `results.collect`.
        folder: where to.

    Returns:
        The files.
    """
    files = []
    for name, text in (('results.md', as_markdown(results)), ('results.csv', as_csv(results))):
        # a name of a class need not be UTF-8
        (folder / name).write_bytes(text.encode('utf-8', 'backslashreplace'))
        files.append(folder / name)
    return files


def summary(found: Mapping[str, Any]) -> Table:
    """The rows of one backbone; columns that no row has anything for are left out.

    Args:
        found: one of `results['backbones']`.
    """
    columns = {
        'seeds': lambda row: len(row['runs']),
        'test top-1': lambda row: _spread(row['test_top1']),
        'difference': _difference,
        'Holm p': lambda row: _p(_of(row, 'holm_p')),
        'could see': lambda row: _seen(_of(row, 'smallest')),
        'fixed / broken': _fixed,
        'calibration': _calibration,
        'val top-1': lambda row: _spread(row['val_top1']),
        'parameters': lambda row: _cost(row, 'params', 1e6, '{:.2f} M'),
        'MACs': lambda row: _cost(row, 'macs', 1e9, '{:.3f} G'),
        'latency': _latency,
        'training': lambda row: _number(row['cost'].get('train_seconds'), '{:.0f} s'),
        'failed': lambda row: str(len(row['failed'])) if row['failed'] else '',
    }
    cells = {name: [column(row) for row in found['rows']] for name, column in columns.items()}
    kept = {name: values for name, values in cells.items() if any(values)}
    names = [row['method'] for row in found['rows']]
    return Table('', ['method', *kept], list(zip(names, *kept.values(), strict=True)))


def as_markdown(results: Mapping[str, Any]) -> str:
    """All that a reader needs, the verdict first."""
    asked, best = results['asked'], results['best']
    images = asked.get('images', {})
    uses = (('train', 'training'), ('val', 'validation'), ('test', 'testing'))
    parts = [f'{images[part]} for {use}' for part, use in uses if part in images]
    lines = ['# Which attention helps on these images', '']
    if parts:
        lines += [f'{len(results["classes"])} classes; images: {", ".join(parts)}.', '']
    for found in results['backbones']:
        lines += _of_backbone(found)
    lines += ['## How to read this', '', READING, '']
    if best is not None:
        lines += [
            '## The best checkpoint',
            '',
            f'{best["method"]} on {best["backbone"]}, seed {best["seed"]}: {results["rule"]}.',
            '',
        ]
    if results['trials']:
        lines += [f'Trials of the tuning, on validation images only: {len(results["trials"])}.', '']
    commands = dict.fromkeys(c['command'] for c in results['cells'] if c.get('command'))
    if 'command' in asked:
        commands[str(asked['command'])] = None
    if commands:
        lines += ['## The commands' if len(commands) > 1 else '## The command', '']
        lines += ['```bash', *commands, '```', '']
    return '\n'.join(lines)


def _of_backbone(found: Mapping[str, Any]) -> list[str]:
    """The section of a backbone."""
    lines = [f'## {found["backbone"]}', '', f'**{found["verdict"]}**', '']
    for remark in found['remarks']:
        lines += [remark, '']
    lines += [summary(found).markdown(), '']
    for row in found['rows']:
        if row['classes'] is not None:
            lines += _of_method(row)
    failed: dict[tuple[str, str], list[str]] = {}
    for row in found['rows']:
        for cell in row['failed']:
            failed.setdefault((row['method'], cell['reason']), []).append(str(cell['seed']))
    if failed:
        lines += ['Not finished:', '']
        lines += [
            f'- `{method}`, seed {listed(seeds)}: {_plain(reason)}'
            for (method, reason), seeds in failed.items()
        ]
        lines += ['']
    return lines


def _plain(text: str) -> str:
    """A text whose letters are no marks of Markdown."""
    return re.sub(r'([\\`*_<>|\[\]&])', r'\\\1', ' '.join(text.split()))


def _of_method(row: Mapping[str, Any]) -> list[str]:
    """Classes and confusions that a method changes most."""
    changed = [c for c in row['classes'] if c['difference']]
    gains = [c for c in changed if c['difference'] > 0][:SHOWN]
    losses = [c for c in reversed(changed) if c['difference'] < 0][:SHOWN]
    said = []
    for word, classes in (('gain', gains), ('lose', losses)):
        if classes:
            named = [f'{_plain(c["class"])} {c["difference"]:+.1f}' for c in classes]
            said.append(f'classes that {word} most: {listed(named)}')
    for word, pairs in (('mended', row['pairs']['mended']), ('broken', row['pairs']['broken'])):
        if pairs:
            named = [
                f'{_plain(p["truth"])} taken for {_plain(p["taken_for"])} '
                f'({p["control"]:.1f} to {p["method"]:.1f})'
                for p in pairs[:SHOWN]
            ]
            said.append(f'{word}: {listed(named)}')
    return [f'`{row["method"]}`: {"; ".join(said)}.', ''] if said else []


def as_csv(results: Mapping[str, Any]) -> str:
    """A row for each method of each backbone, numbers as they are."""
    header = [
        'backbone', 'method', 'seeds', 'test_top1', 'test_top1_deviation', 'test_top1_of_seeds',
        'val_top1', 'difference', 'low', 'high', 'p', 'holm_p', 'smallest', 'fixed', 'broken',
        'ece', 'ece_scaled', 'params', 'macs', 'deployed_params', 'deployed_macs', 'latency_ms',
        'latency_times_control', 'train_seconds', 'failed', 'reason',
    ]  # fmt: skip
    rows = []
    for found in results['backbones']:
        for row in found['rows']:
            means = {
                name: (row[key] or {}).get(what)
                for name, key, what in (
                    ('test_top1', 'test_top1', 'mean'),
                    ('test_top1_deviation', 'test_top1', 'deviation'),
                    ('val_top1', 'val_top1', 'mean'),
                    ('ece', 'test_ece', 'mean'),
                    ('ece_scaled', 'test_ece_scaled', 'mean'),
                )
            }
            values = {
                **row['cost'],
                **(row['comparison'] or {}),
                **means,
                'backbone': found['backbone'],
                'method': row['method'],
                'seeds': len(row['runs']),
                'test_top1_of_seeds': ' '.join(f'{r["test"]["top1"]:.4f}' for r in row['runs']),
                'failed': len(row['failed']),
                'reason': row['failed'][0]['reason'] if row['failed'] else None,
            }
            rows.append([values.get(name) for name in header])
    return to_csv(header, rows)


def _of(row: Mapping[str, Any], name: str) -> float | None:
    """A figure of a row's comparison with the control."""
    return (row['comparison'] or {}).get(name)


def _number(value: float | None, form: str) -> str:
    return '' if value is None else form.format(value)


def _seen(smallest: float | None) -> str:
    """The smallest difference that could be seen, if there is one."""
    return 'nothing' if smallest is not None and smallest > MOST else _number(smallest, '{:.1f}')


def _spread(figure: Mapping[str, float | None] | None) -> str:
    """Mean and standard deviation."""
    if figure is None:
        return ''
    deviation = figure['deviation']
    return f'{figure["mean"]:.1f}' + ('' if deviation is None else f' ± {deviation:.1f}')


def _difference(row: Mapping[str, Any]) -> str:
    found = row['comparison']
    if found is None:
        return ''
    text = f'{found["difference"]:+.1f}'
    return text if found['low'] is None else f'{text} ({found["low"]:+.1f} to {found["high"]:+.1f})'


def _p(p: float | None) -> str:
    return '' if p is None else '< 0.001' if p < 0.001 else f'{p:.3f}'


def _fixed(row: Mapping[str, Any]) -> str:
    found = row['comparison']
    return '' if found is None else f'{found["fixed"]:.1f} / {found["broken"]:.1f}'


def _calibration(row: Mapping[str, Any]) -> str:
    if row['test_ece'] is None:
        return ''
    return f'{row["test_ece"]["mean"]:.1f}, {row["test_ece_scaled"]["mean"]:.1f}'


def _latency(row: Mapping[str, Any]) -> str:
    """Time of one image; of a method how many times the control's, with which it was timed."""
    if row['method'] == CONTROL:
        return _number(row['cost'].get('latency_ms'), '{:.1f} ms')
    return _number(row['cost'].get('latency_times_control'), '{:.2f} x')


def _cost(row: Mapping[str, Any], name: str, unit: float, form: str) -> str:
    """A count, and that of the deployed form where it is another."""
    counts: Sequence[float | None] = [row['cost'].get(name), row['cost'].get(f'deployed_{name}')]
    texts = [form.format(count / unit) for count in counts if count is not None]
    return ', deployed '.join(dict.fromkeys(texts))
