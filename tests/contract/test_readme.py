"""README's support matrix says what the tests have found."""

import re

from tests.conftest import REPOSITORY
from tests.contract.registered import METHODS
from tests.contract.support_matrix import COMMANDS, DEVICES, FIRST_FRAME, REFUSES, UNTESTED, WORKS, markdown, support

BETWEEN_MARKS = re.compile(r"<!-- support-matrix -->\n(.*?)\n<!-- /support-matrix -->", re.DOTALL)


def cells(table: str) -> list:
    """Rows of a markdown table, without spaces and alignment."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.strip().splitlines()]
    return [row for row in rows if not set("".join(row)) <= set(":- ")]


def test_matrix_covers_every_preset() -> None:
    for method in METHODS:
        for command in COMMANDS:
            for device in DEVICES:
                assert support(method, command, device) in (WORKS, FIRST_FRAME, REFUSES, UNTESTED)


def test_readme_shows_the_matrix() -> None:
    found = BETWEEN_MARKS.search((REPOSITORY / "README.md").read_text("utf8"))
    assert found, "README.md has no table between the marks support-matrix and /support-matrix"
    wanted = "README.md is behind: python -m tests.contract.support_matrix prints the table"
    assert cells(found[1]) == cells(markdown()), wanted
