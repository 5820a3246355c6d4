"""`tools/compare.py` step by step: what is asked, what runs, what it adds up to."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgplugins.compare import comparison, plan
from fgplugins.compare.cells import Cell, file_name
from fgplugins.compare.digits import COUNTS, DIGITS, NUM_CLASSES, write_digits
from fgplugins.compare.disk import check_disk, checkpoint_bytes
from fgplugins.compare.features import (
    FeaturePlan,
    bytes_of,
    bytes_replaced,
    features_folder,
    missing_arrays,
    plan_features,
)
from fgplugins.compare.jobs import Job, only_comparison_in, read_json, unfinished, write_json
from fgplugins.compare.local import check_devices, default_devices, run_local
from fgplugins.compare.recipes import read_recipe, row_recipe
from fgplugins.compare.report import cells_to_report, write_report
from fgplugins.compare.tables import summary
from fgplugins.data.images import printable
from fgplugins.data.split_files import PARTS
from fgplugins.errors import UserError
from fgplugins.serving.models import BEST
from fgplugins.utils.progress_bar import progress_bar
from fgplugins.zoo_timm import ComposedModel

if TYPE_CHECKING:
    from fgplugins.compare.cluster import Cluster

__all__ = ['compare']


def compare(args: argparse.Namespace, then: Callable[[Path], object] = lambda root: None) -> None:
    """Run a comparison, or what is missing of it.

    Args:
        args: of `tools/compare.py`.
        then: called with the folder when its results are written, also if cells failed.

    Raises:
        UserError: before anything is written, for what cannot be done.
    """
    mode = 'quick' if args.quick else 'finetune'
    say = (lambda text: None) if args.display == 'quiet' else print
    devices = check_devices(args.devices or default_devices())
    backbones = [_anywhere(name) for name in args.backbone]
    backbones = backbones or [_default_backbone(args, devices, say)]
    plan.check_names([row for row in args.methods if row != 'all'], backbones, mode)
    if 'all' in args.methods and len(args.methods) > 1:
        raise UserError('--methods all: stands alone; name some, or all')
    recipe = read_recipe(mode, args.epochs, args.batch_size, args.lr, args.size)
    if args.quick and (args.gpus > 1 or any('+' in device for device in devices)):
        raise UserError('--quick trains a cell on one device: give it one, as --devices cuda:0')
    folder, root, own = _places(args)
    before = comparison.check_folder_free(root, folder)
    new = before is None or not comparison.split_path(root).is_file()
    to_write = own and not folder.is_dir()
    parts = _settle(folder) if new and not to_write else None
    if to_write:
        counts, num_classes = [COUNTS[part] for part in PARTS], NUM_CLASSES
    else:
        if before is not None:
            comparison.check_same_images(root, folder, before)
        found = parts.parts if parts is not None else comparison.parts_of(root)
        counts = [len(found[part].images) for part in PARTS]
        num_classes = len(found['train'].classes)
    say(
        f'{printable(folder)}: {sum(counts)} images of {num_classes} classes: {counts[0]} to train '
        f'on, {counts[1]} to validate, {counts[2]} to test'
    )
    for note in parts.notes if parts is not None else ():
        say(f'note: {note}')
    models = {
        backbone: plan.make_rows(args.methods, backbone, mode, recipe, num_classes)
        for backbone in backbones
    }
    recipes = {
        (backbone, row): row_recipe(recipe, row)
        for backbone, rows in models.items()
        for row in rows
    }
    split = (before or {}).get('split', '')
    stored = {}
    if args.quick:
        stored = _plan_features(root, models, split, sum(counts), say)
    else:
        cells = plan.make_cells(split, mode, recipes, range(args.seeds))
        at_once = args.at_once if args.jobs == 'slurm' else len(devices)
        _check_checkpoints(root, models, cells, args.tune, at_once)
    asked = {
        'folder': str(folder.absolute()),
        'mode': mode,
        'backbones': backbones,
        'rows': list(dict.fromkeys(row for rows in models.values() for row in rows)),
        'seeds': args.seeds,
        'tune': args.tune,
        'recipe': recipe,
        'command': args.command,
    }
    if args.dry_run:
        _say_dry(args, root, split, mode, recipes, devices)
        return
    if args.jobs == 'slurm':
        from fgplugins.compare.cluster import check_slurm

        check_slurm()
    with only_comparison_in(root):
        if to_write:
            write_digits(folder)
            parts = _settle(folder)
        state = comparison.state_of(folder) if new else before.get('state')
        split = comparison.write_comparison(root, parts, asked, state)
        for job in _feature_jobs(root, stored, recipes):
            _run(args, [job], [devices[0].partition('+')[0]])
            if not job.finished:
                raise UserError(f'the features of {job.name}: {job.failure}; log: {job.log}')
        if args.tune:
            recipes = _tune(args, root, split, mode, recipes, devices)
        cells = plan.make_cells(split, mode, recipes, range(args.seeds))
        jobs = [plan.job_of(cell, root, args.command) for cell in cells]
        done = len(jobs) - len(unfinished(jobs))
        say(f'{len(jobs)} cells ({len(recipes)} rows x {args.seeds} seeds), {done} finished')
        _run(args, jobs, devices)
        counted = _counted(args, root, split, mode, recipe, cells, say)
        costs = _costs(args, root, counted, devices[:1])
        results = write_report(root, counted, asked, costs)
    _say_results(root, results)
    then(root)
    failed = [job for job in jobs if job.failure]
    if failed:
        raise UserError(
            f'{len(failed)} of {len(jobs)} cells failed, as {failed[0].name}: {failed[0].failure}; '
            'the same command tries them again'
        )


def _anywhere(backbone: str) -> str:
    """The name of a network, with the full path of one in a folder."""
    scheme, colon, folder = backbone.partition('local-dir:')
    if scheme or not colon:
        return backbone
    return colon + os.path.normpath(Path(folder).expanduser().absolute())


def _default_backbone(
    args: argparse.Namespace, devices: Sequence[str], say: Callable[[str], None]
) -> str:
    """The network for where the cells run; it is said why."""
    on_gpu = args.gpus > 0 if args.jobs == 'slurm' else devices[0].startswith('cuda')
    name, why = plan.default_backbone(on_gpu)
    say(f'backbone: {name}: {why}')
    return name


def _settle(folder: Path) -> comparison.Parts:
    with progress_bar('reading images') as progress:
        return comparison.settle_parts(str(folder), os.cpu_count() or 1, progress)


def _places(args: argparse.Namespace) -> tuple[Path, Path, bool]:
    """The folder of the images, that of the comparison, and whether the images are our digits."""
    given = Path(args.folder).expanduser()
    root = Path(args.out or comparison.default_name(given))
    if args.folder != DIGITS or given.exists():
        return given, root, False
    full = Path(os.path.normpath(root.absolute()))
    return Path(os.path.relpath(full.with_name(f'{full.name}_images'))), root, True


def _plan_features(
    root: Path,
    models: dict[str, dict[str, ComposedModel]],
    split: str,
    images: int,
    say: Callable[[str], None],
) -> dict[str, FeaturePlan]:
    """What is computed of the frozen backbones; its size is said before it is written."""
    plans, needed, replaced = {}, {}, 0
    for backbone, rows in models.items():
        found = plan_features(backbone, rows)
        folder = features_folder(root, backbone)
        missing = missing_arrays(folder, found, split)
        if missing:
            size = needed[f'maps of {backbone}'] = bytes_of(missing.values(), images)
            replaced += bytes_replaced(folder, found, split)
            say(f'maps of {backbone}: {size / 1e9:.2f} GB in {folder}, computed once')
            plans[backbone] = found
    check_disk(root, needed, replaced, ['a smaller backbone', 'fewer methods', 'no --quick'])
    return plans


def _check_checkpoints(
    root: Path,
    models: dict[str, dict[str, ComposedModel]],
    cells: Sequence[Cell],
    trials: int,
    at_once: int,
) -> None:
    """Refuse checkpoints that do not fit."""
    of_row = {(backbone, row): m for backbone, rows in models.items() for row, m in rows.items()}
    todo = [cell for cell in cells if not plan.place_of(cell, root).finished]
    todo += [cell for cell in cells if cell.seed == 0] * trials
    size = checkpoint_bytes(of_row, todo, at_once)
    check_disk(root, {'checkpoints': size}, 0, ['fewer methods', 'fewer --seeds'])


def _feature_jobs(
    root: Path, plans: dict[str, FeaturePlan], recipes: dict[tuple[str, str], dict[str, Any]]
) -> list[Job]:
    jobs = []
    for backbone in plans:
        folder = features_folder(root, backbone)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'result.json').unlink(missing_ok=True)
        rows = {row: recipe for (name, row), recipe in recipes.items() if name == backbone}
        write_json(folder / 'rows.json', {'backbone': backbone, 'rows': rows})
        jobs.append(plan.feature_job(backbone, folder))
    return jobs


def _say_results(root: Path, results: dict[str, Any]) -> None:
    """The table of every backbone, the verdict, and where the files are."""
    for found in results['backbones']:
        print(f'\n{found["backbone"]}, {results["asked"]["images"]["test"]} test images:')
        print(summary(found).text())
        print(f'\n{found["verdict"]}')
        for remark in found['remarks']:
            print(remark)
    best = results['best']
    if best is not None:
        file = root / BEST
        print(
            f'\nbest by the validation images: {best["method"]} on {best["backbone"]}, seed '
            f'{best["seed"]}' + (f': {file}' if file.is_file() else '')
        )
    print(f'report: {root / "report"}')


def _tune(
    args: argparse.Namespace,
    root: Path,
    split: str,
    mode: str,
    recipes: dict[tuple[str, str], dict[str, Any]],
    devices: Sequence[str],
) -> dict[tuple[str, str], dict[str, Any]]:
    from fgplugins.compare.tuning import tune

    run = partial(_run, args, devices=devices)
    return tune(root, split, mode, recipes, args.tune, run, args.command)


def _counted(
    args: argparse.Namespace,
    root: Path,
    split: str,
    mode: str,
    recipe: dict[str, Any],
    cells: Sequence[Cell],
    say: Callable[[str], None],
) -> list[Cell]:
    """The cells of the report; rows of earlier commands that are left out are named."""

    def recipe_of(backbone: str, row: str) -> dict[str, Any] | None:
        own = row_recipe(recipe, row)
        if not args.tune:
            return own
        from fgplugins.compare.tuning import tuned_before

        return tuned_before(root, split, mode, (backbone, row), own, args.tune)

    counted, left_out = cells_to_report(root, cells, recipe_of, args.tune)
    if left_out:
        how = f'tuned by {args.tune} trials' if args.tune else 'by this recipe'
        say(
            f'note: not in the report, since not trained as this command has it ({how}): '
            f'{", ".join(left_out)}; name them in --methods to train them so'
        )
    return counted


def _say_dry(
    args: argparse.Namespace,
    root: Path,
    split: str,
    mode: str,
    recipes: dict[tuple[str, str], dict[str, Any]],
    devices: Sequence[str],
) -> None:
    """What would be run."""
    cells = plan.make_cells(split, mode, recipes, range(args.seeds))
    print(f'{len(cells)} cells ({len(recipes)} rows x {args.seeds} seeds) in {root}, as')
    for (backbone, row), recipe in recipes.items():
        own = ', '.join(f'{k}={v}' for k, v in recipe['arguments'].items())
        print(f'  {row} on {backbone}' + (f' ({own})' if own else ''))
    if args.tune:
        print(f'after {args.tune} trials of each row, on the validation images')
    if args.jobs == 'slurm':
        from fgplugins.compare.cluster import dry_run_text

        jobs = [plan.place_of(cell, root) for cell in cells]
        print(dry_run_text(jobs, root / 'jobs', _cluster(args)))
    else:
        print(f'on {len(devices)} at a time: {" ".join(devices)}; nothing is written')


def _costs(
    args: argparse.Namespace, root: Path, cells: Sequence[Cell], devices: Sequence[str]
) -> dict[tuple[str, str], dict[str, Any]]:
    """What the rows cost; rows that were measured before are not measured again."""
    found = {}
    for backbone in dict.fromkeys(cell.backbone for cell in cells):
        rows = {c.method: c.recipe for c in cells if c.backbone == backbone and c.trial is None}
        folder = root / 'costs' / file_name(backbone)
        folder.mkdir(parents=True, exist_ok=True)
        done = read_json(folder / 'result.json') or {}
        if done.get('rows') != rows:
            (folder / 'result.json').unlink(missing_ok=True)
            write_json(folder / 'rows.json', {'backbone': backbone, 'rows': rows})
            _run(args, [plan.cost_job(backbone, folder)], [devices[0].partition('+')[0]])
            done = read_json(folder / 'result.json') or {}
        found |= {(backbone, row): cost for row, cost in done.get('costs', {}).items()}
    return found


def _run(args: argparse.Namespace, jobs: Sequence[Job], devices: Sequence[str]) -> None:
    if args.jobs == 'local':
        run_local(jobs, devices, args.display)
        return
    from fgplugins.compare.cluster import run_slurm

    run_slurm(jobs, jobs[0].folder.parent.parent / 'jobs', _cluster(args), args.display)


def _cluster(args: argparse.Namespace) -> Cluster:
    """What a job asks of the cluster."""
    from fgplugins.compare.cluster import Cluster, sbatch_options

    options = {'cpus_per_task': str(args.cpus), **sbatch_options(args.slurm)}
    minutes = max(1, round(60 * args.hours))
    return Cluster(args.partition, args.gpus, minutes, args.at_once, options)
