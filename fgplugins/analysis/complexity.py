"""Parameters and multiply-adds, counted by fvcore.

What papers call FLOPs are the multiply-adds (MACs) of convolutions, linear layers and matrix
products. Elementary operations (additions, normalisations, softmax, pooling, resampling) are
counted apart from them. `operators` says what each operator costs; one that it does not know is
listed by its name.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fgplugins.methods import Method
from fgplugins.utils.loaded import LoadedModel
from fgplugins.utils.modes import in_testing

with warnings.catch_warnings():  # fvcore scripts two losses when it is imported
    warnings.simplefilter('ignore', FutureWarning)
    from fvcore.nn import FlopCountAnalysis, parameter_count

    from fgplugins.analysis.operators import FREE, HANDLERS, MAC_OPERATORS

__all__ = [
    'MAC_OPERATORS',
    'Complexity',
    'count_complexity',
    'paper_form',
    'set_paper_order',
]


@dataclass
class Complexity:
    """What a model costs.

    Attributes:
        parameters: number of weights.
        macs: multiply-adds of one forward pass.
        by_module: module name -> (parameters, macs).
        other: elementary operations that are not multiply-adds, by operator.
        uncounted: operators that nothing was counted for -> how often they run.
        operators: multiply-adds by operator.
        elementary: module name -> elementary operations.
        branches: part of the model -> (parameters, macs, elementary operations); the parts sum to
            the whole.
    """

    parameters: int
    macs: int
    by_module: dict[str, tuple[int, int]]
    other: dict[str, int] = field(default_factory=dict)
    uncounted: dict[str, int] = field(default_factory=dict)
    operators: dict[str, int] = field(default_factory=dict)
    elementary: dict[str, int] = field(default_factory=dict)
    branches: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def at_depth(self, depth: int) -> dict[str, tuple[int, int]]:
        """Modules at most ``depth`` names deep, in the model's order; '' is the whole model."""
        return {
            name: cost
            for name, cost in self.by_module.items()
            if (name.count('.') + 1 if name else 0) <= depth
        }


class _Forward(nn.Module):
    """A model seen through another forward function, so that fvcore can trace that."""

    def __init__(self, model: nn.Module, forward: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.model, self.function = model, forward

    def forward(self, x: Tensor) -> object:
        return self.function(x)


def set_paper_order(method: nn.Module) -> Callable[[], None]:
    """Make a method and its modules compute in the paper's order of operations, also in training.

    In every module that has a ``forward_paper``, ``forward`` is replaced by it. ``forward_paper``
    is replaced by a call of the module, so that fvcore counts its operations under its name. A
    module that was changed before is left as it is.

    Returns:
        A function that undoes the change.
    """
    changed = []
    for module in method.modules():
        written = getattr(type(module), 'forward_paper', Method.forward_paper)
        changed_before = 'forward_paper' in vars(module)
        if written is not Method.forward_paper and not changed_before:
            module.forward = module.forward_paper
            module.forward_paper = module.__call__
            changed.append(module)

    def restore() -> None:
        for module in changed:
            del module.forward, module.forward_paper

    return restore


def paper_form(loaded: LoadedModel) -> Callable[[Tensor], Tensor]:
    """The model's forward pass with its method in the paper's order of operations."""

    def forward(x: Tensor) -> Tensor:
        restore = set_paper_order(loaded.method)
        try:
            features, given = loaded.method.split(loaded.features(x))
            return loaded.method(features, **given)
        finally:
            restore()

    return forward


def count_complexity(
    model: nn.Module,
    input_size: tuple[int, int, int],
    forward: Callable[[Tensor], object] | None = None,
    method: nn.Module | None = None,
) -> Complexity:
    """Count a forward pass of one image.

    Args:
        model: is in eval mode during the count.
        input_size: (channels, height, width).
        forward: the function to count, if not the model's own forward.
        method: the module of the model whose branches are listed apart.
    """
    weight = next(model.parameters())
    x = torch.zeros(1, *input_size, device=weight.device, dtype=weight.dtype)
    logging.getLogger('fvcore.nn.jit_analysis').setLevel(logging.ERROR)
    traced = _Forward(model, forward or model)
    with torch.no_grad(), in_testing(model):
        analysis = FlopCountAnalysis(traced, x)
        analysis.set_op_handle(**HANDLERS, **dict.fromkeys(FREE))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings('none')
        counts = analysis.by_module_and_operator()
        uncounted = dict(analysis.unsupported_ops())

    parameters = parameter_count(model)
    by_module, elementary = {}, {}
    for name, _ in model.named_modules():
        counted = counts.get(f'model.{name}', Counter()) if name else counts['']
        macs = sum(counted[operator] for operator in MAC_OPERATORS)
        by_module[name] = (parameters.get(name, 0), int(macs))
        elementary[name] = int(sum(counted.values()) - macs)
    total = {name: int(count) for name, count in counts[''].most_common() if count}
    cost = Complexity(
        *by_module[''],
        by_module,
        {name: count for name, count in total.items() if name not in MAC_OPERATORS},
        uncounted,
        {name: count for name, count in total.items() if name in MAC_OPERATORS},
        elementary,
    )
    cost.branches = _branches(model, cost, method)
    return cost


def _parts(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules directly inside one; in place of a list or dictionary the modules in that."""
    for child_name, child in module.named_children():
        full = f'{name}.{child_name}' if name else child_name
        if type(child) in (nn.ModuleList, nn.ModuleDict):
            yield from _parts(full, child)
        else:
            yield full, child


def _branches(
    model: nn.Module, cost: Complexity, method: nn.Module | None
) -> dict[str, tuple[int, int, int]]:
    """The model in the parts that a paper names: what surrounds the method, and its branches.

    A module is replaced by the modules inside it if it contains the method or is the method. So is
    a module of the method that multiplies nothing itself and has several inside that do.
    """

    def whole(name: str) -> tuple[int, int, int]:
        return (*cost.by_module[name], cost.elementary[name])

    inside = next((name for name, module in model.named_modules() if module is method), None)
    rows: dict[str, tuple[int, int, int]] = {}

    def open_up(name: str, module: nn.Module) -> None:
        # a module that is in two places is counted in the first
        parts = [(part, child) for part, child in _parts(name, module) if part in cost.by_module]
        inside_parts = zip((0, 0, 0), *map(whole, dict(parts)), strict=True)
        rest = [a - sum(b) for a, b in zip(whole(name), inside_parts, strict=True)]
        for part, child in parts:
            inner = [whole(n)[1] for n, _ in _parts(part, child) if n in cost.by_module]
            encloses = inside is not None and (inside == part or inside.startswith(f'{part}.'))
            of_method = inside is not None and part.startswith(f'{inside}.')
            shared_out = sum(inner) == whole(part)[1] and sum(map(bool, inner)) > 1
            two_orders = hasattr(child, 'forward_paper')  # both are compared as one part
            closed = two_orders or isinstance(child, nn.Sequential)
            if encloses or (of_method and shared_out and not closed):
                open_up(part, child)
            elif any(whole(part)):
                rows[part] = whole(part)
        if any(rest):
            rows[f'{name}, itself' if name else 'between the modules'] = tuple(rest)

    open_up('', model)
    return rows
