"""Two models timed side by side, and the memory they take.

Calls of the one and of the other alternate. What slows the machine down for a while slows both, so
the ratio of a round is steadier than either time. Reported are the medians over rounds, and the
quartiles of the rounds' ratios as the spread.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from fgplugins.analysis.complexity import count_complexity
from fgplugins.analysis.memory import peak_bytes
from fgplugins.analysis.subjects import Subject
from fgplugins.errors import UserError
from fgplugins.utils.lettering import lettering

__all__ = [
    'MODES',
    'Setup',
    'draw_plot',
    'machine_record',
    'measure_point',
    'median_ratio',
    'paired_seconds',
]

MODES = {
    'forward': 'a forward pass in inference mode',
    'train': "loss and backward of the whole model, by the method's own loss",
    'method': 'forward of the method alone, on maps that are ready',
    'method-train': "the method's loss and backward alone, down to maps that are ready",
}


@dataclass(frozen=True)
class Setup:
    """How to measure.

    Attributes:
        mode: one of `MODES`.
        device: 'cpu' or a CUDA device.
        dtype: 'float32' or 'bfloat16', of weights and images.
        channels_last: memory format of weights and images.
        compile: through torch.compile.
        rounds: pairs of timings.
        seconds: how long the calls of a round should take at least.
        cpu_time: the process's time on the CPU instead of the clock's: others' work beside it on
            the machine does not count, nor does waiting for a thread.
    """

    mode: str = 'forward'
    device: str = 'cpu'
    dtype: str = 'float32'
    channels_last: bool = False
    compile: bool = False
    rounds: int = 7
    seconds: float = 0.3
    cpu_time: bool = False


@dataclass
class Side:
    """What was measured of one of the two.

    Attributes:
        seconds: of a call, one a round.
        peak_bytes: the most that a call holds at a time; None where it cannot be seen.
        macs: multiply-adds of one image's forward pass (of the method alone in its own modes).
        parameters: of the whole model.
    """

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    macs: int = 0
    parameters: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


# ------------------------------------------------------------------------------------- timing


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _once(
    step: Callable[[], object], device: torch.device, clock: Callable[[], float]
) -> Callable[[], float]:
    """Call, and say how to read the seconds it took: on a GPU they are known after a while only."""
    if device.type == 'cuda':
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        return lambda: start.elapsed_time(end) / 1e3
    started = clock()
    step()
    seconds = clock() - started
    return lambda: seconds


def paired_seconds(
    steps: Sequence[Callable[[], object]],
    rounds: int,
    seconds: float,
    device: torch.device,
    cpu_time: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[list[float], list[float]]:
    """Seconds of a call of each of two functions: in every round the median of alternating calls.

    Args:
        steps: the two.
        rounds: how many pairs of medians.
        seconds: a round repeats its calls for about as long, for each of the two.
        device: where they run.
        cpu_time: of the process, instead of the clock on the wall.
        progress: told about every round.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    warm = []
    for step in steps:
        for _ in range(3):  # what is built once is built; the last one is timed
            read = _once(step, device, clock)
        _synchronize(device)
        warm.append(read())
    calls = max(1, math.ceil(seconds / max(*warm, 1e-9)))
    times: tuple[list[float], list[float]] = ([], [])
    started = time.perf_counter()
    for i in range(rounds):
        reads: tuple[list[Callable[[], float]], ...] = ([], [])
        for call in range(calls):
            for which in (0, 1) if (i + call) % 2 == 0 else (1, 0):
                reads[which].append(_once(steps[which], device, clock))
        _synchronize(device)
        for which in (0, 1):
            times[which].append(statistics.median(read() for read in reads[which]))
        left = (time.perf_counter() - started) / (i + 1) * (rounds - i - 1)
        progress(f'round {i + 1} of {rounds}, {left:.0f} s left')
    return times


def median_ratio(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Median, quartiles, least and greatest of the rounds' ratios first / second."""
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    low, _, high = (
        statistics.quantiles(ratios, n=4, method='inclusive') if len(ratios) > 1 else ratios * 3
    )
    return {
        'median': statistics.median(ratios),
        'low': low,
        'high': high,
        'min': ratios[0],
        'max': ratios[-1],
    }


# -------------------------------------------------------------------------------- what is timed


def _place(subject: Subject, setup: Setup) -> None:
    kwargs = {'memory_format': torch.channels_last} if setup.channels_last else {}
    subject.model.to(device=setup.device, dtype=getattr(torch, setup.dtype), **kwargs)


def share_weights(first: nn.Module, second: nn.Module) -> None:
    """Let one model read the other's weights and statistics, where name and shape are the same.

    Two copies of a network differ in time by where their weights lie, and throw each other out of
    the caches: a model that is used on its own finds its weights there.
    """
    given = {**dict(first.named_parameters()), **dict(first.named_buffers())}
    for name, tensor in [*second.named_parameters(), *second.named_buffers()]:
        if name in given and given[name].shape == tensor.shape:
            tensor.data = given[name].data


def settle_statistics(subject: Subject, size: int) -> None:
    """Give the normalisations the statistics of one random batch.

    With those that they start with, activations grow from layer to layer until a softmax
    underflows, and the tiny numbers that come out are many times slower on a CPU than a trained
    network's.
    """
    norms = [m for m in subject.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    settings = [(norm, norm.momentum) for norm in norms if norm.track_running_stats]
    for norm, _ in settings:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average, so that one batch is enough
    training = subject.model.training
    weight = next(subject.model.parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, subject.loaded.input_size[0], size, size, generator=generator)
    subject.model.train()
    with torch.no_grad():
        subject.model(x.to(weight.device, weight.dtype))
    subject.model.train(training)
    for norm, momentum in settings:
        norm.momentum = momentum


def _inputs(subject: Subject, setup: Setup, size: int, batch: int) -> tuple[Tensor, Tensor]:
    """Random images and classes, the same for every model of as many classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, subject.loaded.input_size[0], size, size, generator=generator)
    x = x.to(setup.device, getattr(torch, setup.dtype))
    if setup.channels_last:
        x = x.to(memory_format=torch.channels_last)
    method = subject.loaded.method
    classes = subject.model.num_classes if method is None else method.num_classes
    target = torch.randint(classes, (batch,), generator=generator)
    return x, target.to(setup.device)


def _check_mode(subject: Subject, mode: str) -> None:
    """Refuse a mode that a model does not have.

    Raises:
        UserError: if the mode needs a method and there is none, or more of the model than a method.
    """
    method = subject.loaded.method
    if mode.startswith('method') and method is None:
        raise UserError(
            f'--mode {mode}: {subject.label} is a plain network and has no method: use forward or '
            'train, or compare with :backbone'
        )
    if mode == 'method-train' and method.needs_gradient_path:
        raise UserError(
            f'--mode {mode}: the loss of {subject.label} goes through the backbone: use train'
        )


def make_step(subject: Subject, setup: Setup, x: Tensor, target: Tensor) -> Callable[[], object]:
    """What one call of a mode is."""
    model, method = subject.model, subject.loaded.method
    training = setup.mode.endswith('train')
    if setup.mode.startswith('method'):
        with torch.no_grad():
            model.eval()
            features = [f.detach().clone() for f in subject.loaded.features(x)]
        inputs = [f.requires_grad_(training) for f in features]

        def method_loss(features: list[Tensor], target: Tensor) -> Tensor:
            return sum(method.loss(features, target).values())

        function = method_loss if training else method
        arguments = (inputs, target) if training else (inputs,)
    else:
        inputs = []
        function = subject.loss() if training else model
        arguments = (x, target) if training else (x,)
    model.train(training)
    if setup.compile:
        function = torch.compile(function, fullgraph=True)
    weights = [p for p in model.parameters() if p.requires_grad] + inputs

    def forward() -> object:
        with torch.inference_mode():
            return function(*arguments)

    def train() -> None:
        for weight in weights:
            weight.grad = None
        function(*arguments).backward()

    return train if training else forward


def _peak(subject: Subject, setup: Setup, step: Callable[[], object], x: Tensor) -> int | None:
    """The most bytes that a call holds above model and images."""
    for weight in subject.model.parameters():
        weight.grad = None
    device = torch.device(setup.device)
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if setup.compile:
        return None  # what a compiled function allocates is not seen from outside
    return peak_bytes(step, [*subject.model.parameters(), *subject.model.buffers(), x])


def _cost(subject: Subject, setup: Setup, size: int) -> tuple[int, int]:
    """Parameters of the model, and multiply-adds of one image in what is timed."""
    method = subject.loaded.method
    input_size = (subject.loaded.input_size[0], size, size)
    cost = count_complexity(subject.model, input_size, None, method)
    if setup.mode.startswith('method'):
        name = next(n for n, module in subject.model.named_modules() if module is method)
        return cost.parameters, cost.by_module[name][1]
    return cost.parameters, cost.macs


@contextlib.contextmanager
def _named(subject: Subject, setup: Setup, size: int, batch: int) -> Iterator[None]:
    """Say which model does not run on which images."""
    try:
        yield
    except (AssertionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        how = ' through torch.compile' if setup.compile else ''
        raise UserError(
            f'{subject.label} does not run{how} on {batch} images of {size} x {size}: {reason}'
        ) from error


def measure_point(
    subjects: Sequence[Subject],
    setup: Setup,
    size: int,
    batch: int,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[Side, Side]:
    """Time and weigh two models on images of one size, in batches of one size.

    Forms of one model share its weights.

    Raises:
        UserError: if one of them does not run on such images, or in such a mode.
    """
    sides, steps = (Side(), Side()), []
    for subject in subjects:
        _check_mode(subject, setup.mode)
        with _named(subject, setup, size, batch):
            _place(subject, setup)
    first, second = subjects
    another_form = first.loaded.name == second.loaded.name and first.form != second.form
    if another_form and not second.trained:
        share_weights(first.model, second.model)
        second.trained = first.trained
    for subject, side in zip(subjects, sides, strict=True):
        with _named(subject, setup, size, batch):
            if not subject.trained:
                settle_statistics(subject, size)
            side.parameters, side.macs = _cost(subject, setup, size)
            x, target = _inputs(subject, setup, size, batch)
            step = make_step(subject, setup, x, target)
            step()
            side.peak_bytes = _peak(subject, setup, step, x)
        steps.append(step)
    device = torch.device(setup.device)
    times = paired_seconds(steps, setup.rounds, setup.seconds, device, setup.cpu_time, progress)
    for side, seconds in zip(sides, times, strict=True):
        side.seconds = seconds
    return sides


def as_dict(side: Side) -> dict[str, object]:
    """A side for JSON, its median with it."""
    return {**asdict(side), 'median': side.median}


# ------------------------------------------------------------------------------------- records


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r'^model name\s*:\s*(.+)$', text, re.MULTILINE)
    return found.group(1) if found else platform.machine()


def machine_record(device: str) -> dict[str, object]:
    """What a timing depends on besides the model."""
    record: dict[str, object] = {
        'cpu': _processor(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'system': platform.system(),
        'python': platform.python_version(),
        'torch': torch.__version__,
    }
    if torch.device(device).type == 'cuda':
        record['gpu'] = torch.cuda.get_device_name(device)
        record['cuda'] = torch.version.cuda
        record['cudnn'] = torch.backends.cudnn.version()
    return record


def draw_plot(report: dict[str, object], path: str) -> None:
    """Time, multiply-adds and memory against what was swept; accuracy against multiply-adds.

    Args:
        report: as `tools/benchmark.py` writes it.
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
