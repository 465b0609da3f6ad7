"""The conformance list and the tests say the same."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conformance.items import COLUMNS, ITEMS, LANES, USUAL_COLUMNS, Column, items_of

FOLDER = Path(__file__).parent
PROJECT = FOLDER.parent.parent


def named_in(path: Path) -> dict[str, set[str]]:
    """The tests of a module, each with the names of its fixtures and parameters."""
    functions = [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    return {function.name: {argument.arg for argument in function.args.args} for function in functions}


def every_test() -> dict[str, set[str]]:
    return {name: uses for path in FOLDER.glob("test_*.py") for name, uses in named_in(path).items()}


@pytest.mark.parametrize("name", ITEMS)
def test_every_item_has_a_test_in_every_column(name: str) -> None:
    item = ITEMS[name]
    if item.elsewhere:
        path, _, test = item.elsewhere.partition("::")
        assert test in named_in(PROJECT / path)
    else:
        tests = [uses for test, uses in every_test().items() if name in items_of(test)]
        by_column = [
            uses for uses in tests if uses & {"by", "portal", "impatient", "strict", "upstream", "portable", "fast"}
        ]
        lanes = set().union(*(uses & set(LANES) or set(LANES) for uses in by_column))
        assert lanes >= set(LANES) - set(item.gaps)


def test_no_test_names_an_item_that_is_not_on_the_list() -> None:
    named = {item for test in every_test() for item in items_of(test)}
    assert named <= set(ITEMS)


def test_gaps_are_about_columns_that_exist_and_have_a_reason() -> None:
    parts = {part for column in COLUMNS for part in (column.lane, column.transport, column.address)}
    for item in ITEMS.values():
        assert set(item.gaps) <= parts
        assert all(reason for reason in item.gaps.values())


def test_what_usually_runs_goes_every_lane_transport_and_address() -> None:
    def parts(columns: tuple[Column, ...]) -> set[str]:
        return {part for column in columns for part in (column.lane, column.transport, column.address)}

    assert parts(USUAL_COLUMNS) == parts(COLUMNS)
