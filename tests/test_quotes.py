"""Numbers in the documentation are those of benchmarks/results/, character for character.

A quoted number is followed by a comment that names its origin; CONTRIBUTING.md explains the syntax:
`+0.92 dB<!-- row: FILE CLAIM FIELD FORMAT -->`, and ` | WHAT` before the end where rows share a claim.
"""

import json
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest

from benchmarks.tables import with_tables
from tests.conftest import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
ROW_KEYS = {"claim", "what", "value", "baseline", "unit", "spread", "seeds", "gate", "passed"}
CLAIM = re.compile(r"[a-z0-9-]+/(?:\d+[a-z]?|[a-z0-9-]+|speed/[\w.-]+)")
QUOTE = re.compile(
    r"(?P<before>[^\n]{0,60}?)<!-- row: (?P<file>\S+) (?P<claim>\S+) (?P<field>\S+) (?P<format>\S+?)"
    r"(?: \| (?P<what>[^\n]+?))? -->"
)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def quote_errors(text: str, results: Path = RESULTS) -> List[str]:
    """What is wrong with the quoted numbers of one page; empty when all are right."""
    text = CODE.sub("", text)
    quotes = list(QUOTE.finditer(text))
    errors = []
    if len(quotes) != text.count("<!-- row:"):
        errors.append("a row comment is not of the form <!-- row: FILE CLAIM FIELD FORMAT -->")
    for quote in quotes:
        where = f"{quote['file']} {quote['claim']} {quote['field']}"
        try:
            row = find_row(results / f"{quote['file']}.json", quote["claim"], quote["what"])
            expected = format(row[quote["field"]], quote["format"])
        except (OSError, LookupError, TypeError, ValueError) as error:
            errors.append(f"{where}: {error}")
            continue
        # The number must stand alone: 7.75 does not quote 37.75.
        if not re.search(rf"(?<![\d.]){re.escape(expected)}(?: ?[^\W\d]\S*| ?%)?$", quote["before"].rstrip("*_ ")):
            errors.append(f"{where}: the page says …{quote['before'][-20:]!r}, the row {expected!r}")
    return errors


def find_row(path: Path, claim: str, what: Any = None) -> Dict[str, Any]:
    """The one row of a results file with this claim (and, where given, this description)."""
    rows = [row for row in json.loads(path.read_text())["rows"] if row["claim"] == claim]
    rows = [row for row in rows if what is None or row["what"] == what]
    if len(rows) != 1:
        raise LookupError(f"{len(rows)} rows match; name one by adding ' | WHAT'")
    return rows[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_pages_quote_results_right(page: Path) -> None:
    assert quote_errors(page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_tables_show_their_rows(page: Path) -> None:
    text = page.read_text()
    assert text == with_tables(text), "the page is behind: python -m benchmarks.tables draws its tables anew"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.name)
def test_results_have_the_agreed_form(path: Path) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    result = json.loads(path.read_text(), parse_constant=refuse)
    assert {"command", "machine", "rows"} <= set(result) and result["rows"]
    for row in result["rows"]:
        assert set(row) == ROW_KEYS
        assert CLAIM.fullmatch(row["claim"]), row["claim"]
        assert row["passed"] is None if row["gate"] is None else isinstance(row["passed"], bool)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [
        {"claim": "boosting-nerv/1", "what": "PSNR gain", "value": 0.9231, "seeds": 3},
        {"claim": "boosting-nerv/2", "what": "A", "value": 37.75},
        {"claim": "boosting-nerv/2", "what": "B at 320 x 180", "value": 36.0},
    ]
    (tmp_path / "bench.json").write_text(json.dumps({"rows": rows}))
    return tmp_path


def test_tables_are_drawn_from_rows(tmp_path: Path) -> None:
    row = {"claim": "x/1", "what": "gain", "value": 0.927, "baseline": 40.0, "unit": "dB", "spread": None, "seeds": 3}
    rows = [{**row, "gate": "> 1 dB", "passed": False}, {**row, "claim": "x/2", "gate": None, "passed": None}]
    (tmp_path / "bench.json").write_text(json.dumps({"rows": rows}))
    drawn = with_tables("a\n<!-- table: bench x/1 -->\nold\n<!-- /table -->\nb", tmp_path)
    assert drawn.splitlines()[4] == "| 1 | gain | 0.93 dB | 40 dB | – | 3 | > 1 dB | **no** |"
    assert drawn.count("\n|") == 3 and drawn.startswith("a\n") and drawn.endswith("<!-- /table -->\nb")
    with pytest.raises(LookupError):
        with_tables("<!-- table: bench x/3 -->\n<!-- /table -->", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "| gain | +0.92<!-- row: bench boosting-nerv/1 value +.2f --> |",
        "| gain | **+0.92 dB**<!-- row: bench boosting-nerv/1 value +.2f --> |",
        "3<!-- row: bench boosting-nerv/1 seeds d --> seeds, 37.75 dB<!-- row: bench boosting-nerv/2 value .2f | A -->",
        "36.0 dB<!-- row: bench boosting-nerv/2 value .1f | B at 320 x 180 -->",
        "written as `1.0<!-- row: FILE CLAIM FIELD FORMAT -->`",
        "no number",
    ],
)
def test_right_quotes_pass(text: str, results: Path) -> None:
    assert quote_errors(text, results) == []


@pytest.mark.parametrize(
    "text",
    [
        "+0.93<!-- row: bench boosting-nerv/1 value +.2f -->",
        "7.75<!-- row: bench boosting-nerv/2 value .2f | A -->",
        "137.75<!-- row: bench boosting-nerv/2 value .2f | A -->",
        "37.75<!-- row: bench boosting-nerv/2 value .2f -->",
        "37.75<!-- row: bench boosting-nerv/2 value .2f | C -->",
        "37.75<!-- row: bench boosting-nerv/3 value .2f -->",
        "37.75<!-- row: nowhere boosting-nerv/2 value .2f | A -->",
        "0.92<!-- row: bench boosting-nerv/1 -->",
        "0.92<!-- row: bench boosting-nerv/1 gain .2f -->",
        "three<!-- row: bench boosting-nerv/1 what d -->",
    ],
)
def test_wrong_quotes_are_found(text: str, results: Path) -> None:
    assert len(quote_errors(text, results)) == 1
