"""What a comparison says of the costs of its rows; no time is judged."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm

from fgplugins.analysis.complexity import count_complexity
from fgplugins.compare import cost
from fgplugins.compare.cost import measure_costs

BACKBONE = 'resnet10t'
NUMBERS = ('params', 'macs', 'deployed_params', 'deployed_macs')


def recipe(**arguments: object) -> dict[str, object]:
    return {'arguments': arguments, 'size': 64}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, 'ROUNDS', 2)
    monkeypatch.setattr(cost, 'SECONDS', 1e-4)


def test_costs_are_those_of_what_is_deployed(tmp_path: Path) -> None:
    rows = {'gap': recipe(), 'warn:heads=2': recipe(heads=2), 'siou': recipe()}
    said: list[str] = []
    costs = measure_costs(tmp_path, BACKBONE, rows, 5, 'cpu', said.append)
    assert said == [f'measuring {row} on {BACKBONE}' for row in rows]
    plain = timm.create_model(BACKBONE, num_classes=5)
    counted = count_complexity(plain, (3, 64, 64))
    network = [counted.parameters, counted.macs] * 2
    assert [costs['gap'][key] for key in NUMBERS] == network
    assert [costs['siou'][key] for key in NUMBERS] == network
    warn = timm.create_model('warn', backbone=BACKBONE, num_classes=5, heads=2)
    parameters = sum(p.numel() for p in warn.parameters())
    assert costs['warn:heads=2']['params'] == costs['warn:heads=2']['deployed_params'] == parameters
    assert costs['warn:heads=2']['macs'] > counted.macs
    for found in costs.values():
        one, eight = found['batches']
        assert (one['batch'], eight['batch']) == (1, 8)
        assert all(found[key] == value > 0 for key, value in one.items() if key != 'quartiles')
        low, high = one['quartiles']
        assert low <= one['latency_times_control'] <= high
        assert found['hardware']['threads'] >= 1
    assert costs['siou']['batches'] == costs['gap']['batches']  # the same network


def test_costs_are_measured_once_on_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {'gap': recipe()}
    first = measure_costs(tmp_path, BACKBONE, rows, 5, 'cpu')
    said: list[str] = []
    assert measure_costs(tmp_path, BACKBONE, rows, 5, 'cpu', said.append) == first
    assert said == []
    monkeypatch.setattr(cost, 'machine_record', lambda device: {'cpu': 'another'})
    again = measure_costs(tmp_path, BACKBONE, rows, 5, 'cpu', said.append)
    assert len(said) == 1
    assert again['gap']['hardware'] == {'cpu': 'another'}


def test_a_row_without_a_cost_has_a_reason(tmp_path: Path) -> None:
    rows = {'gap': recipe(), 'warn:taps=9': recipe(taps=9)}
    for _ in range(2):
        said: list[str] = []
        costs = measure_costs(tmp_path, BACKBONE, rows, 5, 'cpu', said.append)
        assert list(costs['warn:taps=9']) == ['reason']
        assert costs['warn:taps=9']['reason'].startswith(f'warn:taps=9 on {BACKBONE}: ')
        assert said[-1] == f'measuring warn:taps=9 on {BACKBONE}'
    assert 'reason' not in costs['gap']
