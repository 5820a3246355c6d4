"""The plot of `tools/benchmark.py`."""

from __future__ import annotations

from collections.abc import Callable

from fgplugins.errors import UserError
from fgplugins.utils.lettering import lettering

__all__ = ['draw_plot']


def draw_plot(report: dict[str, object], path: str) -> None:
    """Time, multiply-adds and memory against what was swept; accuracy against multiply-adds.

    Args:
        report: the one that `tools/benchmark.py` writes.
        path: the PNG to write.

    Raises:
        UserError: if matplotlib is not installed, or the file cannot be written.
    """
    rows = report.get('accuracy') or []
    names = [report['title'], report['first'], report['second'], *(row['name'] for row in rows)]
    with lettering(names) as write:
        _draw_plot(report, path, write)


def _draw_plot(report: dict[str, object], path: str, write: Callable[[str], str]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points, swept = report['points'], report['swept']
    panels: list[tuple[str, Callable[[dict], float | None]]] = [
        ('time of a call (ms)', lambda side: side['median'] * 1e3),
        ('multiply-adds of an image (G)', lambda side: side['macs'] / 1e9),
    ]
    if all(point[k]['peak_bytes'] is not None for point in points for k in ('first', 'second')):
        panels.append(('peak memory (MB)', lambda side: side['peak_bytes'] / 1e6))
    accuracy = report.get('accuracy') or []
    count = len(panels) + bool(accuracy)
    figure = Figure(figsize=(4.2 * count, 3.6), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, (label, value) in zip(axes, panels, strict=False):
        for key in ('first', 'second'):
            axis.plot(
                [point[swept] for point in points],
                [value(point[key]) for point in points],
                marker='o',
                label=write(report[key]),
            )
        axis.set_xlabel(swept)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8)
    if accuracy:
        axis = axes[-1]
        for row in accuracy:
            axis.plot(row['macs'] / 1e9, row['accuracy'], marker='o', linestyle='')
            place = (row['macs'] / 1e9, row['accuracy'])
            axis.annotate(
                write(row['name']), place, fontsize=8, ha='center', xytext=(0, 6),
                textcoords='offset points',
            )  # fmt: skip
        axis.set_xlabel('multiply-adds of an image (G)')
        axis.set_ylabel('accuracy (%)')
        axis.margins(0.3)  # room for the names
    figure.suptitle(write(report['title']), fontsize=9)
    figure.tight_layout()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise UserError(f'--plot {path!r} cannot be written: {error}') from None
