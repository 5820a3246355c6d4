"""What a coverage report runs: one backbone under one method, in training and in testing.

A cell of the report is one backbone of a zoo with one method on top. It is built, trained for one
step on a batch of two, and tested on a batch of one; what comes out is compared with the contract.
One more cell, `CONTROL`, says whether the control ``gap`` gives the scores of the network itself.
"""

from __future__ import annotations

import functools
import json
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fgplugins.methods import NoClassMap, get_method

__all__ = [
    'CONTROL',
    'Cell',
    'CoveredBackbone',
    'markdown',
    'smallest_model',
    'timm_modules',
    'try_mmpretrain',
    'try_mmpretrain_control',
    'try_timm',
    'try_timm_control',
]

CLASSES = 5
CONTROL = 'control'
LARGE = 150_000_000  # with as many parameters activations are recomputed, to run in 16 GB


@dataclass
class CoveredBackbone:
    """A backbone of one of the zoos: a row of the report.

    Attributes:
        group: what it stands for: a timm module, or a backbone's type in MMPretrain.
        model: its name in timm, or its type and settings in MMPretrain.
        parameters: of the whole network.
        levels: how many maps it gives.
    """

    group: str
    model: str
    parameters: int
    levels: int


@dataclass
class Cell:
    """How one backbone fared under one method.

    Attributes:
        outcome: 'ok' | 'refused' | 'failed'.
        reason: of a refusal or a failure.
        size: height and width of the images it ran on.
        taps: how many maps the method read.
        seconds: how long it took.
    """

    outcome: str
    reason: str = ''
    size: tuple[int, int] | None = None
    taps: int = 0
    seconds: float = 0.0


class _OtherNetwork(ValueError):
    """The control is another network than the backbone with its own head."""


class _Broken(AssertionError):
    """The model gave something that the contract forbids."""


def _demand(condition: bool, text: str) -> None:
    if not condition:
        raise _Broken(text)


def is_refusal(error: BaseException) -> bool:
    """Whether this package raised the error itself, on purpose, and nothing that it called."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = Path(frames[-1].filename).is_relative_to(Path(__file__).parent.parent)
    return isinstance(error, ValueError) and inside


def exercise(
    module: nn.Module,
    loss: Callable[[Tensor, Tensor], dict[str, Tensor]],
    scores: Callable[[Tensor], Tensor],
    features: Callable[[Tensor], Sequence[Tensor]],
    attention: Callable[[Tensor], Sequence[Tensor]],
    channels: Sequence[int],
    shape: tuple[int, int, int],
) -> None:
    """One training step on two images, then scores and attention maps of one.

    Args:
        module: holds every parameter that is trained.
        loss: images and classes -> named terms.
        scores: images -> (N, Y).
        features: images -> the maps that the method reads.
        attention: images -> the masks.
        channels: how many each map must have.
        shape: (channels, height, width) of an image.

    Raises:
        AssertionError: saying what is wrong with what came out.
    """
    module.train()
    terms = loss(torch.randn(2, *shape), torch.tensor([0, CLASSES - 1]))
    _demand(bool(terms), 'the loss has no terms')
    for name, value in terms.items():
        _demand(value.ndim == 0, f'the loss term {name} is not a scalar')
        _demand(bool(value.isfinite()), f'the loss term {name} is {value.item()}')
    sum(terms.values()).backward()
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    unused = [name for name, p in trained if p.grad is None]
    _demand(not unused, f'no gradient for {len(unused)} parameter(s): {", ".join(unused[:3])}')

    module.eval()
    x = torch.randn(1, *shape)
    with torch.no_grad():
        y = scores(x)
        _demand(y.shape == (1, CLASSES), f'scores of shape {tuple(y.shape)}')
        _demand(bool(y.isfinite().all()), 'scores that are not finite')
        maps = features(x)
    given = [f.shape[1] for f in maps]
    _demand(given == list(channels), f'maps of {given} channels, not {list(channels)}')
    try:
        masks = attention(x)
    except NoClassMap:  # it says so, and needs none to train or to test
        return
    grids = [tuple(m.shape[2:]) for m in masks], [tuple(f.shape[2:]) for f in maps]
    _demand(grids[0] == grids[1], f'attention on the grids {grids[0]}, the maps are {grids[1]}')
    _demand(all(m.ndim == 4 and m.shape[0] == 1 for m in masks), 'attention of another rank')
    _demand(all(bool((m >= 0).all()) for m in masks), 'attention that is negative or not a number')


def _timed(attempt: Callable[[Cell], None], cell: Cell) -> Cell:
    """Run an attempt, time it, and note in the cell what went wrong."""
    start = time.perf_counter()
    try:
        attempt(cell)
    except Exception as error:
        text = str(error).strip().split('\n')[0] or 'no message'
        cell.outcome = 'refused' if is_refusal(error) else 'failed'
        cell.reason = text if cell.outcome == 'refused' else f'{type(error).__name__}: {text}'
    cell.seconds = round(time.perf_counter() - start, 1)
    return cell


# --------------------------------------------------------------------------------------------- timm


def timm_modules() -> list[str]:
    """The modules of models that come with timm, not from another package."""
    import timm

    def is_timms(module: str) -> bool:
        name = timm.list_models(module=module)[0]
        return timm.model_entrypoint(name).__module__.startswith('timm.')

    return [module for module in timm.list_modules() if is_timms(module)]


def smallest_model(module: str) -> CoveredBackbone:
    """The model with the fewest parameters of one of timm's modules."""
    import timm

    sizes = []
    for name in timm.list_models(module=module):
        with torch.device('meta'):
            model = timm.create_model(name)
        count = sum(p.numel() for p in model.parameters())
        sizes.append(CoveredBackbone(module, name, count, len(model.feature_info)))
    return min(sizes, key=lambda row: row.parameters)


def try_timm(covered: CoveredBackbone, method: str, side: int = 128) -> Cell:
    """Run one timm model under one method.

    A network that takes images of any size gets small ones that are not square, and its own size if
    they are too small; another network gets its own size.

    Args:
        covered: the model.
        method: key of the method.
        side: longest side of the small images.
    """
    import timm

    from fgplugins.zoo_timm.task import LossStep

    def attempt(cell: Cell) -> None:
        model = timm.create_model(
            method, backbone=covered.model, num_classes=CLASSES, taps=cell.taps
        )
        if covered.parameters >= LARGE:
            model.set_grad_checkpointing()
        step = LossStep(model)
        C, (H, W) = model.in_chans, model.input_size
        sizes = [(H, W)]
        if model.fixed_size is None and max(H, W) > side:
            # steps of 32 and, for networks that cut images into patches of 14, of 28
            sizes = [(side, side * 3 // 4), (side // 28 * 28 + 28, side // 28 * 28), *sizes]

        def features(x: Tensor) -> Sequence[Tensor]:
            return model.method.split(model.read(x))[0]

        for cell.size in sizes:
            try:
                exercise(
                    step, step, model, features, model.attention_maps, model.channels,
                    (C, *cell.size),
                )  # fmt: skip
                return
            except Exception as error:
                if cell.size == sizes[-1] or isinstance(error, _Broken):
                    raise
                step.zero_grad()

    return _timed(attempt, Cell('ok', taps=min(get_method(method).default_taps, covered.levels)))


def move_from_start(network: nn.Module) -> None:
    """Weights and statistics as after training: a new network's ones and zeros hide differences."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if getattr(module, 'running_mean', None) is not None:
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
        for p in network.parameters():
            if p.ndim == 1:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
            elif not p.any():
                p.normal_(0, 0.02, generator=generator)


def _demand_same(ours: Tensor, theirs: Tensor) -> None:
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    if not difference < 1e-5:
        raise _OtherNetwork(f'its scores differ by {difference:.0e} of the largest')


def try_timm_control(covered: CoveredBackbone) -> Cell:
    """Whether ``gap``, started from a file of a timm network's weights, gives its scores."""
    import timm

    def attempt(cell: Cell) -> None:
        torch.manual_seed(0)
        plain = timm.create_model(covered.model, num_classes=CLASSES).eval()
        move_from_start(plain)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / 'plain.pth'
            torch.save(plain.state_dict(), file)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter('always')
                ours = timm.create_model(
                    'gap', backbone=covered.model, num_classes=CLASSES, backbone_checkpoint=file
                ).eval()
        fallen_back = [str(w.message) for w in said if "head='mean'" in str(w.message)]
        if fallen_back:
            raise _OtherNetwork(fallen_back[0].rpartition(': ')[2])
        cell.size = ours.input_size
        x = torch.randn(1, ours.in_chans, *ours.input_size)
        with torch.no_grad():
            _demand_same(ours(x), plain(x))

    return _timed(attempt, Cell('ok'))


# --------------------------------------------------------------------------------------- MMPretrain


def try_mmpretrain(
    backbone: dict[str, object], method: str, levels: int, size: tuple[int, int]
) -> Cell:
    """Run one MMPretrain backbone under one method, wired from its config alone.

    Args:
        backbone: its config.
        method: key of the method.
        levels: how many maps it gives.
        size: of the images.
    """
    from mmpretrain.registry import MODELS
    from mmpretrain.structures import DataSample

    from fgplugins.zoo_mmpretrain.backbone_maps import ask_image_channels

    def attempt(cell: Cell) -> None:
        head = {'type': f'{get_method(method).__name__}Head', 'num_classes': CLASSES}
        if cell.taps < get_method(method).default_taps:
            head['taps'] = cell.taps
        model = MODELS.build({'type': 'FineGrainedClassifier', 'backbone': backbone, 'head': head})

        def loss(x: Tensor, target: Tensor) -> dict[str, Tensor]:
            samples = [DataSample().set_gt_label(label) for label in target.unbind()]
            return model(x, samples, mode='loss')

        def features(x: Tensor) -> list[Tensor]:
            return model.head.method.split(model.read(x))[0]

        exercise(
            model,
            loss,
            lambda x: model(x, mode='tensor'),
            features,
            model.attention_maps,
            model.head.method.in_channels,
            (ask_image_channels(model.backbone), *size),
        )

    taps = min(get_method(method).default_taps, levels)
    return _timed(attempt, Cell('ok', size=size, taps=taps))


@functools.cache
def _own_config_texts() -> dict[Path, str]:
    import mmpretrain

    folder = Path(mmpretrain.__file__).parent / '.mim' / 'configs'
    return {file: file.read_text(encoding='utf-8') for file in sorted(folder.rglob('*.py'))}


def own_heads(backbone: str) -> list[tuple[list[dict], str]]:
    """The necks, and the type of the head, that MMPretrain's own configs have on a backbone."""
    from mmengine.config import Config

    found = []
    for file, text in _own_config_texts().items():
        if f"type='{backbone}'" in text and 'head=' in text:
            model = Config.fromfile(file).get('model') or {}
            kind, head = ((model.get(part) or {}).get('type') for part in ('backbone', 'head'))
            if kind == backbone and head:
                necks = model.get('neck') or []
                found.append((necks if isinstance(necks, list) else [necks], head))
    return found


def try_mmpretrain_control(backbone: dict[str, object], size: tuple[int, int]) -> Cell:
    """Whether ``GAPHead`` on a backbone gives the scores of MMPretrain's own classifier.

    That is asked where one of the zoo's own configs pools it and has one linear layer on it.

    Args:
        backbone: its config.
        size: of the images.
    """
    from mmpretrain.registry import MODELS

    from fgplugins.zoo_mmpretrain.backbone_maps import ask_image_channels

    def attempt(cell: Cell) -> None:
        heads = own_heads(str(backbone['type']))
        neck = next((necks for necks, head in heads if necks and head == 'LinearClsHead'), None)
        if neck is None:
            shown = (
                f'{head} behind {" + ".join(n["type"] for n in necks) or "no neck"}'
                for necks, head in heads
            )
            reason = '; '.join(dict.fromkeys(shown))
            raise _OtherNetwork(f'its own configs have {reason}' if heads else 'it has no config')
        neck = neck[0] if len(neck) == 1 else neck
        head = {'type': 'GAPHead', 'num_classes': CLASSES}
        ours = MODELS.build(
            {'type': 'FineGrainedClassifier', 'backbone': backbone, 'neck': neck, 'head': head}
        ).eval()
        move_from_start(ours)
        width = ours.head.method.head_channels
        head = {'type': 'LinearClsHead', 'num_classes': CLASSES, 'in_channels': width}
        plain = MODELS.build(
            {'type': 'ImageClassifier', 'backbone': backbone, 'neck': neck, 'head': head}
        ).eval()
        weights = {k: v for k, v in ours.state_dict().items() if not k.startswith('head.')}
        plain.load_state_dict(weights, strict=False)  # one deletes its tables when it saves
        plain.head.fc.load_state_dict(ours.head.method.classifier.state_dict())
        x = torch.randn(1, ask_image_channels(ours.backbone), *size)
        with torch.no_grad():
            _demand_same(ours(x), plain(x))

    return _timed(attempt, Cell('ok', size=size))


# ------------------------------------------------------------------------------------------- report


def load(path: Path) -> dict[str, dict]:
    """The report in a file, to be continued; an empty one if there is no file.

    It is zoo -> group -> {'subject': a `CoveredBackbone`, 'cells': method -> a `Cell`}.
    """
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}


def save(report: dict[str, dict], path: Path) -> None:
    """Write a report; a run that is interrupted meanwhile leaves the last one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix('.part')
    draft.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    draft.replace(path)


def record(
    report: dict[str, dict], zoo: str, covered: CoveredBackbone, method: str, cell: Cell
) -> None:
    """Put a cell into the report."""
    row = report.setdefault(zoo, {}).setdefault(covered.group, {})
    row['subject'] = asdict(covered)
    row.setdefault('cells', {})[method] = asdict(cell)


def _counts(rows: dict[str, dict], method: str) -> list[str]:
    outcomes = [row['cells'][method]['outcome'] for row in rows.values() if method in row['cells']]
    return [str(outcomes.count(outcome)) for outcome in ('ok', 'refused', 'failed')]


def _table(rows: dict[str, dict], methods: Sequence[str], first: str) -> list[str]:
    """The rows in alphabetical order; reasons have numbers, and are told below the table."""
    lines = [
        f'| {first} | smallest model | parameters | images | {" | ".join(methods)} | '
        'the control is the network |',
        f'|---|---|---|---|{"---|" * len(methods)}---|',
    ]
    reasons: dict[str, int] = {}
    for group, row in sorted(rows.items(), key=lambda item: item[0].lower()):
        shown = []
        for method in methods:
            cell = row['cells'].get(method)
            if cell is None:
                shown.append('not run')
            elif cell['outcome'] == 'ok':
                shown.append('ok')
            else:
                number = reasons.setdefault(_general(cell['reason'], row), len(reasons) + 1)
                shown.append(f'{cell["outcome"]} [{number}]')
        control = row['cells'].get(CONTROL)
        if control is not None and control['outcome'] != 'ok':
            number = reasons.setdefault(_general(control['reason'], row), len(reasons) + 1)
            shown.append(f'no [{number}]')
        else:
            shown.append('not run' if control is None else 'yes')
        sizes = {tuple(c['size']) for k, c in row['cells'].items() if c['size'] and k != CONTROL}
        size = ', '.join(f'{h} x {w}' for h, w in sorted(sizes))
        backbone = row['subject']
        lines.append(
            f'| {group} | `{backbone["model"]}` | {backbone["parameters"]:,} | {size} | '
            f'{" | ".join(shown)} |'
        )
    return [*lines, '', *(f'{number}. {reason}' for reason, number in reasons.items())]


def _general(reason: str, row: dict) -> str:
    """A reason without the backbone's name, so that one of several backbones is told once."""
    for name in (row['subject']['model'], row['subject']['group']):
        reason = reason.replace(name, '<backbone>')
    return reason


def markdown(report: dict[str, dict], methods: Sequence[str], command: str) -> str:
    """The report as a page.

    Args:
        report: of all zoos.
        methods: the columns.
        command: the one that made the report.
    """
    names = {'timm': ('timm', 'module'), 'mmpretrain': ('MMPretrain', 'backbone')}
    lines = [
        '# Which backbones run under which method',
        '',
        f'Made by `{command}`. Every cell is run, none is assumed: the model is built, trained for',
        'one step on two images (each parameter must get a gradient), then gives scores and',
        'attention maps of one image, on the grids of the maps that the method reads. The images',
        'are of the size that the column says. Networks of timm with at least',
        f'{LARGE / 1e6:.0f} M parameters recompute their activations in the backward pass.',
        '',
        'The last column: `gap` with the weights of the plain network gives its scores to 1e-5,',
        'with statistics and scales moved from where they start. In MMPretrain it is asked of',
        "backbones that one of the zoo's own configs pools by a neck and classifies by one layer.",
        '',
    ]
    for zoo, rows in report.items():
        title, first = names[zoo]
        lines += [f'## {title}: {len(rows)} {first}s', '', '| | ok | refused | failed |']
        lines += ['|---|---|---|---|']
        lines += [f'| {m} | {" | ".join(_counts(rows, m))} |' for m in methods]
        same, *others = map(int, _counts(rows, CONTROL))
        lines += ['', f'The control is the network in {same} of {same + sum(others)}.']
        lines += ['', *_table(rows, methods, first), '']
    return '\n'.join(lines).rstrip() + '\n'
