"""Two models timed side by side, with their memory, multiply-adds and parameters.

`make_step` says what is timed of a model in each mode, `measure_point` measures both models.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from fgplugins.analysis.complexity import count_complexity
from fgplugins.analysis.forms import ModelForm
from fgplugins.analysis.memory import peak_bytes
from fgplugins.analysis.modes import MODES
from fgplugins.analysis.timing import paired_seconds
from fgplugins.errors import UserError
from fgplugins.methods import Method
from fgplugins.methods.base import Given

__all__ = [
    'MODES',
    'Setup',
    'Side',
    'as_dict',
    'measure_point',
    'method_step',
    'settle_statistics',
    'share_weights',
]


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
        cpu_time: measure the time that this process works on the CPU, not the time on the clock;
            it leaves out other processes, and time spent waiting.
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
    """What was measured of one of the two models.

    Attributes:
        seconds: of a call, one number a round.
        peak_bytes: the most bytes that a call holds at a time; None where they cannot be seen.
        macs: multiply-adds of one image's forward pass; of the method alone if the mode is.
        parameters: of the whole model.
    """

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    macs: int = 0
    parameters: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def _place(form: ModelForm, setup: Setup) -> None:
    kwargs = {'memory_format': torch.channels_last} if setup.channels_last else {}
    form.model.to(device=setup.device, dtype=getattr(torch, setup.dtype), **kwargs)


def share_weights(first: nn.Module, second: nn.Module) -> None:
    """Let the second model use the first's weights and statistics, if name and shape are the same.

    A model that is used alone keeps its weights in the processor's caches. Two copies would push
    each other's weights out, and two places in memory are not equally fast.
    """
    given = {**dict(first.named_parameters()), **dict(first.named_buffers())}
    for name, tensor in [*second.named_parameters(), *second.named_buffers()]:
        if name in given and given[name].shape == tensor.shape:
            tensor.data = given[name].data


def settle_statistics(model: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Give the normalisations the statistics of one random batch.

    With their initial statistics, activations grow from layer to layer until a softmax underflows.
    A CPU is many times slower on the tiny numbers that come out than on a trained network's.
    """
    weight = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, *input_size, generator=generator)
    update_bn([x.to(weight.device, weight.dtype)], model)


def _inputs(form: ModelForm, setup: Setup, size: int, batch: int) -> tuple[Tensor, Tensor]:
    """Random images and classes, the same for every model of as many classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, form.loaded.input_size[0], size, size, generator=generator)
    x = x.to(setup.device, getattr(torch, setup.dtype))
    if setup.channels_last:
        x = x.to(memory_format=torch.channels_last)
    method = form.loaded.method
    classes = form.model.num_classes if method is None else method.num_classes
    target = torch.randint(classes, (batch,), generator=generator)
    return x, target.to(setup.device)


def _check_mode(form: ModelForm, mode: str) -> None:
    """Refuse a mode that a model does not have.

    Raises:
        UserError: if the mode times a method alone, and there is none or its loss needs the
            backbone too.
    """
    method = form.loaded.method
    if mode.startswith('method') and method is None:
        raise UserError(
            f'--mode {mode}: {form.label} is a plain network and has no method: use forward or '
            'train, or compare with :backbone'
        )
    if mode == 'method-train' and method.needs_gradient_path:
        raise UserError(
            f'--mode {mode}: the loss of {form.label} goes through the backbone: use train'
        )


def make_step(form: ModelForm, setup: Setup, x: Tensor, target: Tensor) -> Callable[[], object]:
    """The function whose calls are timed.

    Args:
        form: the model.
        setup: says the mode.
        x: images (N, C, H, W).
        target: their classes (N,).
    """
    model, method = form.model, form.loaded.method
    training = setup.mode.endswith('train')
    if setup.mode.startswith('method'):
        with torch.no_grad():
            model.eval()
            given = form.loaded.features(x)
        model.train(training)
        return method_step(method, given, target, training, setup.compile)
    model.train(training)
    function = form.loss() if training else model
    arguments = (x, target) if training else (x,)
    return _step(function, arguments, list(model.parameters()), training, setup.compile)


def method_step(
    method: Method, given: Given, target: Tensor, training: bool, compile: bool = False
) -> Callable[[], object]:
    """The function whose calls are timed of a method alone.

    Args:
        method: the method.
        given: what it reads, as a network gives it; it is copied.
        target: classes (N,).
        training: its loss and the gradients of weights and maps, not its scores.
        compile: through torch.compile.
    """
    maps, named = method.split(given)
    maps = [f.detach().clone().requires_grad_(training) for f in maps]
    named = {key: z.detach().clone().requires_grad_(training) for key, z in named.items()}
    method.train(training)

    def loss(maps: list[Tensor], target: Tensor) -> Tensor:
        return sum(method.loss(maps, target, **named).values())

    def scores(maps: list[Tensor]) -> Tensor:
        return method(maps, **named)

    function = loss if training else scores
    arguments = (maps, target) if training else (maps,)
    inputs = [*method.parameters(), *maps, *named.values()]
    return _step(function, arguments, inputs, training, compile)


def _step(
    function: Callable[..., object],
    arguments: Sequence[object],
    inputs: Sequence[Tensor],
    training: bool,
    compile: bool,
) -> Callable[[], object]:
    """A call of a function, and if it is for training the gradients by its inputs."""
    if compile:
        function = torch.compile(function, fullgraph=True)
    inputs = [x for x in inputs if x.requires_grad]

    def forward() -> object:
        with torch.inference_mode():
            return function(*arguments)

    def train() -> None:
        for x in inputs:
            x.grad = None
        function(*arguments).backward()

    return train if training else forward


def _peak(form: ModelForm, setup: Setup, step: Callable[[], object], x: Tensor) -> int | None:
    """The most bytes that a call holds at a time, besides model and images."""
    for weight in form.model.parameters():
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
        return None  # what a compiled function allocates cannot be seen from outside
    return peak_bytes(step, [*form.model.parameters(), *form.model.buffers(), x])


def _cost(form: ModelForm, setup: Setup, size: int) -> tuple[int, int]:
    """Parameters of the model, and multiply-adds of one image in what is timed."""
    method = form.loaded.method
    input_size = (form.loaded.input_size[0], size, size)
    cost = count_complexity(form.model, input_size, None, method)
    if setup.mode.startswith('method'):
        name = next(n for n, module in form.model.named_modules() if module is method)
        return cost.parameters, cost.by_module[name][1]
    return cost.parameters, cost.macs


@contextlib.contextmanager
def _named(form: ModelForm, setup: Setup, size: int, batch: int) -> Iterator[None]:
    """Turn an error inside into one that says which model does not run on which images."""
    try:
        yield
    except (AssertionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        how = ' through torch.compile' if setup.compile else ''
        raise UserError(
            f'{form.label} does not run{how} on {batch} images of {size} x {size}: {reason}'
        ) from error


def measure_point(
    forms: Sequence[ModelForm],
    setup: Setup,
    size: int,
    batch: int,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[Side, Side]:
    """Measure two models on images of one size, in batches of one size.

    Two forms of one model share its weights, unless the second has trained ones.

    Args:
        forms: the two models.
        setup: how to measure.
        size: side of the images.
        batch: how many images a call gets.
        progress: called with a line after every round.

    Raises:
        UserError: if a model does not run on such images, or does not have the mode.
    """
    sides, steps = (Side(), Side()), []
    for form in forms:
        _check_mode(form, setup.mode)
        with _named(form, setup, size, batch):
            _place(form, setup)
    first, second = forms
    another_form = first.loaded.name == second.loaded.name and first.kind != second.kind
    if another_form and not second.trained:
        share_weights(first.model, second.model)
        second.trained = first.trained
    for form, side in zip(forms, sides, strict=True):
        with _named(form, setup, size, batch):
            if not form.trained:
                settle_statistics(form.model, (form.loaded.input_size[0], size, size))
            side.parameters, side.macs = _cost(form, setup, size)
            x, target = _inputs(form, setup, size, batch)
            step = make_step(form, setup, x, target)
            step()
            side.peak_bytes = _peak(form, setup, step, x)
        steps.append(step)
    device = torch.device(setup.device)
    times = paired_seconds(steps, setup.rounds, setup.seconds, device, setup.cpu_time, progress)
    for side, seconds in zip(sides, times, strict=True):
        side.seconds = seconds
    return sides


def as_dict(side: Side) -> dict[str, object]:
    """A side and its median, for JSON."""
    return {**asdict(side), 'median': side.median}
