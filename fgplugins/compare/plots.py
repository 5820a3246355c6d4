"""The pictures of a comparison, as SVG and PNG: every seed, and accuracy against cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fgplugins.utils.lettering import lettering, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ['Point', 'front', 'write_plots']

WIDTH = 8.2  # inches, at 100 dots: as wide as a page shows
ROW, TOP, BOTTOM = 0.44, 0.5, 0.75  # inches
# Okabe and Ito's colours, told apart by all kinds of sight
BLUE, ORANGE, GREY, BLACK = '#0072B2', '#D55E00', '#777777', '#222222'
OF_BACKBONES = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
MARKERS = 'osD^vPX'


class Point(NamedTuple):
    """A method on a backbone, in the plot of costs."""

    name: str
    backbone: str
    macs: float
    accuracy: float


def write_plots(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw every seed of each backbone, and accuracy against multiply-adds where these are known.

    Args:
        results: of `results.collect`.
        folder: where to.

    Returns:
        The files.
    """
    files = []
    for found in results['backbones']:
        name = re.sub(r'[^\w.-]', '_', found['backbone'], flags=re.ASCII)[-80:]
        rows = found['rows']
        texts = [found['backbone'], *(row['method'] for row in rows)]
        texts += [cell['reason'] for row in rows for cell in row['failed']]
        with lettering([*texts, '…']) as write:
            files += _save(_draw_seeds(found, write), folder / f'seeds_{name}')
    points = _points(results['backbones'])
    if points:
        with lettering([*(p.name for p in points), *(p.backbone for p in points), '…']) as write:
            files += _save(_draw_cost(points, write), folder / 'cost')
    return files


def _save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure in both forms: the same bytes for the same figure."""
    import matplotlib

    files = [path.with_name(f'{path.name}.{ending}') for ending in ('svg', 'png')]
    with matplotlib.rc_context({'svg.hashsalt': path.name}):
        figure.savefig(files[0], metadata={'Date': None})
    figure.savefig(files[1])
    return files


def _figure(height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure


def _width_of(figure: Figure, texts: Sequence[str], size: float) -> float:
    """Inches that the longest text takes."""
    from matplotlib.font_manager import FontProperties

    renderer, font = figure.canvas.get_renderer(), FontProperties(size=size)
    widths = [renderer.get_text_width_height_descent(text, font, False)[0] for text in texts]
    return max(widths) / figure.dpi


def _bare(axis: Axes) -> None:
    axis.spines[['top', 'right', 'left']].set_visible(False)
    axis.tick_params(axis='y', length=0)
    axis.grid(axis='x', color='0.9', linewidth=0.8)
    axis.set_axisbelow(True)


def _draw_seeds(found: Mapping[str, Any], write: Callable[[str], str]) -> Figure:
    """Left every seed a dot, with the mean; right the difference to the control, its interval."""
    rows = found['rows']
    height = TOP + ROW * len(rows) + BOTTOM
    figure = _figure(height)
    names = [write(shortened(row['method'], 34)) for row in rows]
    start = min(_width_of(figure, names, 9) + 0.25, 0.4 * WIDTH) / WIDTH
    panel, gap = (1 - start - 0.05) / 2, 0.03
    low, tall = BOTTOM / height, ROW * len(rows) / height
    left = figure.add_axes((start, low, panel - gap, tall))
    right = figure.add_axes((start + panel + gap, low, panel - gap, tall))
    for y, row in enumerate(rows):
        _draw_runs(left, y, row, write)
        if row['comparison'] is not None:
            _draw_difference(right, y, row['comparison'])
    for axis in (left, right):
        _bare(axis)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.tick_params(labelsize=9)
        axis.margins(x=0.08)
    left.set_yticks(range(len(rows)), names, fontsize=9)
    right.set_yticks([])
    left.set_xlabel('accuracy on the test images (%)', fontsize=9)
    right.set_xlabel('difference to the plain network (points)\ngrey: may be chance', fontsize=9)
    left.set_title('every seed, and the mean', fontsize=9, loc='left')
    right.set_title('difference, 95 % interval', fontsize=9, loc='left')
    if any(row['comparison'] for row in rows):
        right.axvline(0, color=BLACK, linewidth=1)
    else:
        right.remove()
        left.set_position((start, low, 2 * panel, tall))
    if not any(row['runs'] for row in rows):
        left.set_xlim(0, 100)
    figure.text(0.008, 1 - 0.08 / height, write(shortened(found['backbone'], 70)), fontsize=9,
                va='top', weight='bold')  # fmt: skip
    return figure


def _draw_runs(axis: Axes, y: int, row: Mapping[str, Any], write: Callable[[str], str]) -> None:
    """Every seed, and the mean of several; or why there is none."""
    values = [run['test']['top1'] for run in row['runs']]
    if not values:
        axis.text(0.02, y, write(shortened(row['failed'][0]['reason'], 40)), fontsize=8,
                  color=ORANGE, va='center', transform=axis.get_yaxis_transform())  # fmt: skip
        return
    if len(values) > 1:
        mean = row['test_top1']['mean']
        axis.plot([mean, mean], [y - 0.28, y + 0.28], color=BLACK, linewidth=2)
    axis.plot(values, [y] * len(values), 'o', color=BLUE, alpha=0.6, markersize=5.5,
              markeredgewidth=0)  # fmt: skip


def _draw_difference(axis: Axes, y: int, compared: Mapping[str, Any]) -> None:
    """The difference to the control, and its interval if there is one."""
    d = compared['difference']
    if compared['low'] is None:
        axis.plot(d, y, 'o', markerfacecolor='white', markeredgecolor=GREY, markersize=7)
        axis.annotate('no interval', (d, y), xytext=(0, 6), textcoords='offset points',
                      fontsize=8, color=GREY, ha='center')  # fmt: skip
        return
    colour = GREY if not compared['found'] else BLUE if d > 0 else ORANGE
    ends = [compared['low'], compared['high']]
    axis.plot(ends, [y, y], color=colour, linewidth=2.2, solid_capstyle='butt')
    axis.plot(d, y, 'o' if compared['found'] else 'D', color=colour, markersize=6.5)


def _points(backbones: Sequence[Mapping[str, Any]]) -> list[Point]:
    """What is known of cost, as it is at test time."""
    points = []
    for found in backbones:
        for row in found['rows']:
            macs = row['cost'].get('deployed_macs') or row['cost'].get('macs')
            if macs and row['runs']:
                backbone, mean = found['backbone'], row['test_top1']['mean']
                name = row['method']
                if len(backbones) > 1:
                    name = f'{name}, {shortened(backbone, 24)}'
                points.append(Point(shortened(name, 40), backbone, macs / 1e9, mean))
    return points


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other is both cheaper and better than, cheapest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.macs, -p.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return found


def _draw_cost(points: Sequence[Point], write: Callable[[str], str]) -> Figure:
    """Mean accuracy against multiply-adds, names in a column at the right."""
    from matplotlib.ticker import AutoLocator, FuncFormatter, NullLocator

    height = max(3.6, 0.9 + 0.2 * len(points))
    figure = _figure(height)
    names = [write(p.name) for p in points]
    side = min(_width_of(figure, names, 9) + 0.5, 0.5 * WIDTH)
    wide = 1 - (0.65 + side) / WIDTH
    axis = figure.add_axes((0.6 / WIDTH, 0.55 / height, wide, 1 - 0.9 / height))
    backbones = list(dict.fromkeys(p.backbone for p in points))
    best = front(points)
    axis.plot([p.macs for p in best], [p.accuracy for p in best], color=GREY, linewidth=1.5,
              zorder=1)  # fmt: skip
    for point in points:
        i = backbones.index(point.backbone) % len(MARKERS)
        colour = OF_BACKBONES[i]
        filled = colour if point in best else 'white'
        axis.plot(point.macs, point.accuracy, MARKERS[i], color=colour, markerfacecolor=filled,
                  markersize=7, zorder=3)  # fmt: skip
    least, most = min(p.macs for p in points), max(p.macs for p in points)
    axis.set_xscale('log')
    room = max((most / least) ** 0.08, 1.01)
    axis.set_xlim(least / room, most * room)
    axis.margins(y=0.12)
    if most / least < 10:
        axis.xaxis.set_major_locator(AutoLocator())
        axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:.4g}'))
    axis.tick_params(labelsize=9)
    axis.spines[['top', 'right']].set_visible(False)
    axis.grid(color='0.92', linewidth=0.8)
    axis.set_xlabel('multiply-adds of an image at test time (G, logarithmic)', fontsize=9)
    axis.set_ylabel('accuracy on the test images (%)', fontsize=9)
    axis.set_title('mean over seeds; filled, on the line: no other is cheaper and better',
                   fontsize=9, loc='left')  # fmt: skip
    _name_points(axis, points, names)
    return figure


def _name_points(axis: Axes, points: Sequence[Point], names: Sequence[str]) -> None:
    """Names right of the axis, by height, a line to each point; none lies on another."""
    low, high = axis.get_ylim()
    axis.set_ylim(low, high)
    order = sorted(range(len(points)), key=lambda i: points[i].accuracy)
    step = 0.2 / (axis.get_position().height * axis.figure.get_figheight())  # of the axis's height
    at = [(points[i].accuracy - low) / (high - low) for i in order]
    for j in range(1, len(at)):
        at[j] = max(at[j], at[j - 1] + step)
    for j in range(len(at) - 1, -1, -1):
        most = 1.0 if j == len(at) - 1 else at[j + 1] - step
        at[j] = min(at[j], most)
    for i, y in zip(order, at, strict=True):
        point = points[i]
        axis.annotate(
            names[i], (point.macs, point.accuracy), xytext=(1.06, y), textcoords='axes fraction',
            fontsize=9, va='center', annotation_clip=False,
            arrowprops={'arrowstyle': '-', 'color': '0.75', 'linewidth': 0.8, 'shrinkB': 4,
                        'relpos': (0, 0.5)},
        )  # fmt: skip
