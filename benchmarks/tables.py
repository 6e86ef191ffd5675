"""Tables of the documentation, drawn from benchmarks/results:  python -m benchmarks.tables

A page marks a table with `<!-- table: FILE [CLAIM ...] -->` and `<!-- /table -->`; what stands between them is
replaced. Claims choose rows, by whole name (`boosting-nerv/1`); without any, all rows of the file are shown.
"""

import json
import re
from pathlib import Path
from typing import Any, Dict, List, Optional

from benchmarks._harness import RESULTS, ROOT

TABLE = re.compile(r"(<!-- table: (\S+)((?: \S+)*) -->\n).*?(<!-- /table -->)", re.DOTALL)
HEADER = ("claim", "what", "ours", "baseline", "spread", "seeds", "gate", "met")


def _number(value: Optional[float], unit: str = "") -> str:
    if value is None:
        return "–"
    digits = f"{value:.0f}" if value == int(value) and abs(value) >= 10 else f"{value:.2f}"
    return f"{digits} {unit}".strip()


def _cells(row: Dict[str, Any]) -> List[str]:
    never = "never" if row["unit"] == "epochs" else "–"
    return [
        row["claim"].partition("/")[2],
        row["what"],
        never if row["value"] is None else _number(row["value"], row["unit"]),
        _number(row["baseline"], row["unit"]),
        _number(row["spread"]),
        str(row["seeds"]),
        row["gate"] or "–",
        {True: "yes", False: "**no**", None: "–"}[row["passed"]],
    ]


def table(name: str, claims: List[str], results: Path = RESULTS) -> str:
    """One table in Markdown.

    Raises:
        LookupError: No row has one of the claims.
    """
    rows = json.loads((results / f"{name}.json").read_text())["rows"]
    for claim in claims:
        if not any(row["claim"] == claim for row in rows):
            raise LookupError(f"{name}.json has no row of claim {claim}")
    shown = [_cells(row) for row in rows if not claims or row["claim"] in claims]
    lines = [HEADER, ["---", "---", "---:", "---:", "---:", "---:", "---", "---"], *shown]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_tables(text: str, results: Path = RESULTS) -> str:
    """The text of a page with all its tables drawn anew."""
    return TABLE.sub(lambda m: f"{m[1]}{table(m[2], m[3].split(), results)}{m[4]}", text)


def main() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        old = page.read_text()
        if (new := with_tables(old)) != old:
            page.write_text(new)
            print(f"{page.relative_to(ROOT)}: tables drawn anew")


if __name__ == "__main__":
    main()
