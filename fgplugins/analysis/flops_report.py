"""What `tools/get_flops.py` prints: one model's costs, or two models' beside each other."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from fgplugins.analysis.complexity import Complexity, count_complexity, paper_form
from fgplugins.analysis.forms import ModelForm
from fgplugins.analysis.module_counters import count_layers
from fgplugins.analysis.tables import Table, to_csv
from fgplugins.errors import UserError

__all__ = ['Report', 'compare_text', 'make_report']

FORM_LABELS = {'ours': 'MACs', 'paper': "MACs in the paper's order"}
CSV_HEADER = ('model', 'form', 'part', 'name', 'parameters', 'macs', 'elementary')


@dataclass
class Report:
    """A model's costs in the forms it has.

    Attributes:
        name: the model's.
        input_size: (channels, height, width).
        forms: 'ours', and 'paper' for a method.
        layers: form -> operations as `module_counters` has them, if they were asked for.
    """

    name: str
    input_size: tuple[int, int, int]
    forms: dict[str, Complexity]
    layers: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def ours(self) -> Complexity:
        return self.forms['ours']

    def summary(self, everything: bool) -> str:
        """The totals, a line each; with ``everything`` elementary operations by operator too."""
        lines = [f'{self.name}, input {" x ".join(map(str, self.input_size))}', '']
        for form, cost in self.forms.items():
            lines.append(f'{FORM_LABELS[form]}: {cost.macs / 1e9:.3f} G ({cost.macs:,})')
        lines.append(f'parameters: {self.ours.parameters / 1e6:.3f} M ({self.ours.parameters:,})')
        for form, cost in self.forms.items():
            label = "elementary operations in the paper's order"
            label = label if form == 'paper' else 'elementary operations, not in the MACs'
            total = cost.elementary['']
            by = ''.join(f', {k} {v / 1e6:.2f} M' for k, v in cost.other.items()) * everything
            lines.append(f'{label}: {total / 1e6:.2f} M{by.replace(", ", ": ", 1)}')
        for form, counts in self.layers.items():
            label = "in the paper's order" if form == 'paper' else 'ours'
            lines.append(
                f'by layers, {label}: {counts["layers"] / 1e9:.2f} G without matrix products, '
                f'{counts["with_products"] / 1e9:.2f} G with them'
            )
        lines += [self._uncounted(form) for form, cost in self.forms.items() if cost.uncounted]
        return '\n'.join(lines)

    def _uncounted(self, form: str) -> str:
        listed = ', '.join(f'{k.removeprefix("aten::")} x{v}' for k, v in self.uncounted(form))
        return f'not counted{" in the paper order" * (form == "paper")}: {listed}'

    def uncounted(self, form: str) -> list[tuple[str, int]]:
        """The operators that have no handler, and how often they run."""
        return sorted(self.forms[form].uncounted.items())

    def branches(self, everything: bool) -> Table:
        """The parts around the method, and each branch of it, in both orders of operations."""
        header = ['branch', 'parameters', *(FORM_LABELS[f] for f in self.forms)]
        header += ['elementary'] * everything
        names = dict.fromkeys(name for cost in self.forms.values() for name in cost.branches)
        nothing = (0, 0, 0)
        rows = []
        for name in names:
            parts = [cost.branches.get(name, nothing) for cost in self.forms.values()]
            row = [name, max(part[0] for part in parts), *(part[1] for part in parts)]
            row += [parts[0][2]] * everything
            if any(row[1:]):
                rows.append(row)
        total = ['(model)', self.ours.parameters, *(c.macs for c in self.forms.values())]
        rows.append(total + [self.ours.elementary['']] * everything)
        return Table('', header, rows)

    def modules(self, depth: int, everything: bool) -> Table:
        """Modules at most ``depth`` names deep, in our order of operations."""
        header = ['module', 'parameters', 'MACs', *(['elementary'] * everything)]
        rows = [
            [name or '(model)', *cost, *([self.ours.elementary[name]] * everything)]
            for name, cost in self.ours.at_depth(depth).items()
        ]
        return Table('', header, rows)

    def render(self, kind: str, depth: int, everything: bool) -> str:
        """The report as 'text' or 'markdown'."""
        tables = [self.modules(depth, everything)]
        if len(self.forms) > 1:
            tables.insert(0, self.branches(everything))
        summary = self.summary(everything)
        if kind == 'markdown':
            title, _, *lines = summary.splitlines()
            bullets = '\n'.join(f'- {line}' for line in lines)
            return '\n\n'.join([f'## {title}', bullets, *(t.markdown() for t in tables)])
        return '\n\n'.join([summary, *(t.text() for t in tables)])

    def as_dict(self, depth: int) -> dict[str, object]:
        """Everything, for JSON."""
        content: dict[str, object] = {'model': self.name, 'input_size': self.input_size}
        for form, cost in self.forms.items():
            content[form] = {
                **self.layers.get(form, {}),
                'parameters': cost.parameters,
                'macs': cost.macs,
                'elementary': cost.elementary[''],
                'operators': cost.operators,
                'other': cost.other,
                'uncounted': cost.uncounted,
                'branches': {
                    name: dict(zip(CSV_HEADER[-3:], costs, strict=True))
                    for name, costs in cost.branches.items()
                },
                'modules': {
                    name: {'parameters': p, 'macs': m, 'elementary': cost.elementary[name]}
                    for name, (p, m) in cost.at_depth(depth).items()
                },
            }
        return content

    def csv_rows(self, depth: int) -> list[tuple[object, ...]]:
        """A row for the total, every branch, module and operator, and every one not counted."""
        rows: list[tuple[object, ...]] = []
        for form, cost in self.forms.items():
            start = self.name, form
            rows.append((*start, 'total', '', cost.parameters, cost.macs, cost.elementary['']))
            rows += [(*start, 'branch', name, *costs) for name, costs in cost.branches.items()]
            rows += [
                (*start, 'module', name, *costs, cost.elementary[name])
                for name, costs in cost.at_depth(depth).items()
                if name
            ]
            rows += [(*start, 'operator', k, None, v, None) for k, v in cost.operators.items()]
            rows += [(*start, 'operator', k, None, None, v) for k, v in cost.other.items()]
            rows += [
                (*start, 'uncounted', f'{k} x{v}', *[None] * 3) for k, v in self.uncounted(form)
            ]
        return rows


def make_report(model: ModelForm, input_size: tuple[int, int, int], layers: bool = False) -> Report:
    """Count a model, and if it has a method, in the paper's order of operations too.

    Args:
        model: in its form; one that is not ours is counted as it is.
        input_size: (channels, height, width).
        layers: also count as module counters do.

    Raises:
        UserError: if the model does not run on images of this size.
    """
    loaded = model.loaded
    forms = {'ours': None}
    if loaded.method is not None and model.kind == 'ours':
        forms['paper'] = paper_form(loaded)
    try:
        costs = {
            form: count_complexity(loaded.model, input_size, forward, loaded.method)
            for form, forward in forms.items()
        }
        by_layer = {}
        for form, forward in forms.items() if layers else ():
            alone, products = count_layers(loaded.model, input_size, forward)
            by_layer[form] = {'layers': alone, 'with_products': alone + products}
    except (AssertionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        size = ' x '.join(map(str, input_size))
        raise UserError(f'{model.label} does not run on {size}: {reason}') from error
    return Report(model.label, input_size, costs, by_layer)


def comparison(one: Report, other: Report) -> Table:
    """Two models beside each other, each in its own form."""
    rows = []
    for label, value in (
        ('parameters', lambda cost: cost.parameters),
        ('MACs', lambda cost: cost.macs),
        ('elementary operations', lambda cost: cost.elementary['']),
    ):
        a, b = value(one.ours), value(other.ours)
        rows.append([label, a, b, a - b, f'{a / b:.4f}' if b else ''])
    return Table('', ['', one.name, other.name, 'difference', 'ratio'], rows)


def compare_text(reports: list[Report], kind: str, depth: int, everything: bool) -> str:
    """One report, or two and their comparison, as 'text', 'markdown', 'json' or 'csv'."""
    one, *others = reports
    if kind == 'csv':
        return to_csv(CSV_HEADER, [row for report in reports for row in report.csv_rows(depth)])
    if kind == 'json':
        content = one.as_dict(depth)
        content['convention'] = 'all' if everything else 'paper'
        if others:
            content['versus'] = others[0].as_dict(depth)
            content['difference'] = {
                key: getattr(one.ours, key) - getattr(others[0].ours, key)
                for key in ('parameters', 'macs')
            }
        return json.dumps(content, indent=2) + '\n'
    parts = [report.render(kind, depth, everything) for report in reports]
    if others:
        table = comparison(one, others[0])
        parts.append(table.markdown() if kind == 'markdown' else table.text())
    return '\n\n'.join(parts) + '\n'
