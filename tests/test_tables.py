"""The page of the papers' tables: every row has a config that loads, or says what is missing."""

from __future__ import annotations

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

from pathlib import Path

from helpers import load_config

from fgplugins.utils.arguments import parse_setting
from fgplugins.utils.shipped import shipped_configs
from fgplugins.zoo_mmpretrain.heads import MethodHead
from fgplugins.zoo_mmpretrain.registry import MODELS
from paper_results import TABLES, Row, Table, make_page

DOCS = Path(__file__).parent.parent / 'docs'
RUNS = {(name, row.options) for table in TABLES for row, name in table.runs()}
# of ours alone: no paper prints a row of these
OWN = (
    '_digits', '_mobilenetv2_cub', '_efficientnetlite0_cub', 'gap_r50_cub', 'warn_r50_cub',
    '_r110_cifar10', '_dp_cub',
)  # fmt: skip


def test_the_page_is_as_the_configs_say() -> None:
    assert (DOCS / 'tables.md').read_text(encoding='utf-8') == make_page(), (
        'python scripts/make_tables.py'
    )


@pytest.mark.parametrize('table', TABLES, ids=lambda t: f'{t.paper} {t.number}')
def test_no_row_misses_a_line(table: Table) -> None:
    for row in table.rows:
        assert len(row.printed) == len(table.columns), row.label
        assert row.config or row.note, row.label
        method_is_ours = row.label.startswith(('WARN', 'Ours', 'CRA', 'CLAN', 'CLCA', '(VGG-att'))
        assert row.config or not method_is_ours, row.label
    assert len({row.label for row in table.rows}) == len(table.rows)


def test_every_table_is_there() -> None:
    numbers = {'WARN': 4, 'att2': 4, 'CRA-CNN': 3, 'ICASC': 6, 'CLAN': 6}
    assert [(t.paper, t.number) for t in TABLES] == [
        (paper, number + 1) for paper, count in numbers.items() for number in range(count)
    ]


def test_every_config_is_in_a_table_or_of_our_own() -> None:
    named = {name for name, _ in RUNS}
    assert {name for name in shipped_configs() if not name.endswith(OWN)} == named


def options_of(text: str) -> dict[str, object]:
    return {
        key: parse_setting(value) for key, value in (pair.split('=', 1) for pair in text.split())
    }


@pytest.mark.parametrize(('name', 'options'), sorted(RUNS), ids=str)
def test_rows_can_be_run(name: str, options: str) -> None:
    plain, cfg = load_config(name), load_config(name, **options_of(options))
    assert (cfg.to_dict() != plain.to_dict()) == bool(options)
    head = MODELS.get(cfg.model.head.type)
    assert issubclass(head, MethodHead)
    assert set(cfg.model.head) <= {*head.arguments(), 'type'}


@pytest.mark.parametrize('row', [r for t in TABLES for r in t.rows if 'branches' in r.test])
def test_branches_of_clan_are_there(row: Row) -> None:
    options = options_of(row.test.split('"')[1])
    head = load_config('clan_vgg16_3scale_cub', **options).model.head
    method = MODELS.get(head.type).method_class
    assert method([8, 8, 8], 2, branches=head.branches).classifier.branches == head.branches
