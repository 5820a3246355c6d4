"""`tools/report.py` step by step: from finished comparisons to a page."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import fgplugins
from fgplugins.data.images import printable
from fgplugins.errors import UserError
from fgplugins.page.checking import checked_folder
from fgplugins.page.choosing import changes, choose
from fgplugins.page.files import Files, as_script, write_whole
from fgplugins.page.looking import RowMaps, look
from fgplugins.page.pictures import encode, thumbnails
from fgplugins.page.reading import Comparison, read_comparison
from fgplugins.page.rendering import data_of, describe, page
from fgplugins.serving.models import choose_device
from fgplugins.utils.progress_bar import progress_bar

__all__ = ['Settings', 'write_page']

PAGE, ALONE = 'index.html', 'report.html'


@dataclass(frozen=True)
class Settings:
    """How much a page holds.

    Attributes:
        maps: test images of a comparison whose maps are computed.
        thumbnails: test images of a comparison that have a thumbnail.
        seed: of the choice of images.
        device: where maps are computed.
        single_file: put all of it into one file.
        most_mb: MB that this file has at most.
    """

    maps: int = 200
    thumbnails: int = 5000
    seed: int = 0
    device: str = 'auto'
    single_file: bool = False
    most_mb: float = 25.0


def write_page(
    roots: Sequence[Path],
    out: Path | None = None,
    settings: Settings | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Write the page of one comparison, or of several on one page.

    Args:
        roots: folders of comparisons.
        out: folder of the page; of a single comparison its report, if None.
        settings: how much it holds.
        say: called with a line before the files are written.

    Returns:
        The page.

    Raises:
        UserError: if a folder is no finished comparison, or the page would be too large.
    """
    settings = settings or Settings()
    comparisons = [read_comparison(root) for root in roots]
    if len(comparisons) > 1:
        _name_apart(comparisons)
    folder = out or roots[0] / 'report'
    files, described, data = Files(), [], []
    for number, comparison in enumerate(comparisons):
        chosen, maps = _maps(comparison, settings)
        with_thumbnail = _add_pictures(files, number, comparison, chosen, maps, settings)
        data.append(data_of(comparison, maps, with_thumbnail, set(chosen)))
        with progress_bar('checking the folder') as progress:
            check = checked_folder(comparison.root, os.cpu_count() or 1, progress)
        place = os.path.relpath(comparison.root, folder)
        described.append(describe(comparison, check, len(chosen), printable(place)))
    files.add(
        'data.js', as_script('window.fgplugins', {'form': 1, 'comparisons': data, 'maps': {}})
    )
    folder.mkdir(parents=True, exist_ok=True)
    beside = out is None and not settings.single_file
    images = sum(len(comparison.images) for comparison in comparisons)
    count = f'{images:,} test images, {sum(d["with_maps"] for d in described):,} with maps'
    if settings.single_file:
        inside = files.scripts() + as_script('window.fgplugins.pictures', files.inside())
        text = page(described, inside, beside, fgplugins.__version__)
        size = len(text) / 1e6
        if size > settings.most_mb:
            raise UserError(
                f'--single-file: the page would have {size:.1f} MB, more than --most-mb '
                f'{settings.most_mb:g}: fewer --maps and --thumbnails, or no --single-file'
            )
        say(f'page of {size:.1f} MB: {count}')
        path = folder / ALONE
    else:
        text = page(described, '', beside, fgplugins.__version__)
        size = (files.size + len(text)) / 1e6
        say(f'page of {size:.1f} MB: {count}')
        files.write(folder)
        path = folder / PAGE
    write_whole(path, text)
    return path


def _name_apart(comparisons: Sequence[Comparison]) -> None:
    """Name comparisons by their folders: they can be of the same images."""
    names = [comparison.root.absolute().name for comparison in comparisons]
    for comparison, name in zip(comparisons, names, strict=True):
        comparison.name = name if names.count(name) == 1 else printable(comparison.root)


def _maps(
    comparison: Comparison, settings: Settings
) -> tuple[list[int], dict[tuple[str, str], RowMaps]]:
    """The images whose maps are computed, and these maps by backbone and method."""
    device = choose_device(settings.device)
    chosen = choose(comparison.labels, changes(comparison), settings.maps, settings.seed)
    maps = {}
    for backbone in comparison.backbones:
        for row in backbone.rows:
            if not row.seeds:
                found = RowMaps('no run is finished')
            elif not chosen:
                found = RowMaps('none were asked for')
            else:
                with progress_bar(f'maps of {row.method}') as progress:
                    found = look(comparison, row, chosen, device, progress)
            maps[backbone.name, row.method] = found
    shown = [place for place in chosen if any(place in m.of_image for m in maps.values())]
    return shown, maps


def _add_pictures(
    files: Files,
    number: int,
    comparison: Comparison,
    chosen: list[int],
    maps: dict[tuple[str, str], RowMaps],
    settings: Settings,
) -> set[int]:
    """Add thumbnails, the networks' views and the scripts with maps; who has a thumbnail."""
    changed = changes(comparison)
    others = choose(comparison.labels, changed, settings.thumbnails, settings.seed)
    places = sorted({*chosen, *others})
    with progress_bar('thumbnails') as progress:
        paths = [comparison.images[place] for place in places]
        for place, picture in zip(
            places, thumbnails(paths, os.cpu_count() or 1, progress), strict=True
        ):
            files.add(f'{number}/thumbnails/{place}.webp', picture)
    for place in chosen:
        of_image = []
        for b, backbone in enumerate(comparison.backbones):
            of = {row.method: maps[backbone.name, row.method] for row in backbone.rows}
            view = next((m.views[place] for m in of.values() if place in m.views), None)
            if view is not None:
                files.add(f'{number}/views/{b}_{place}.webp', encode(view))
            found = {method: m.of_image[place] for method, m in of.items() if place in m.of_image}
            of_image.append(found)
        target = f'window.fgplugins.maps["{number}/{place}"]'
        files.add(f'{number}/maps/{place}.js', as_script(target, of_image))
    return set(places)
