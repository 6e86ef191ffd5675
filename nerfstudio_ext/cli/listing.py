"""`ns-ext list`: the methods and dataparsers that the suite adds."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution
from typing import Dict, List

DISTRIBUTION = "nerfstudio-ext"

TITLES: Dict[str, str] = {
    "nerfstudio.method_configs": "methods (ns-train METHOD)",
    "nerfstudio.dataparser_configs": "dataparsers (ns-train METHOD DATAPARSER)",
}
"""Entry-point groups of nerfstudio that the suite fills."""


@dataclass
class ListRegistered:
    """List the methods and dataparsers that the suite adds, with descriptions."""

    def main(self) -> None:
        """Load them all, which takes as long as nerfstudio needs to start, and print one line each."""
        from rich.console import Console
        from rich.table import Table

        console = Console()
        for group, entries in entry_points().items():
            table = Table(
                "name", "what it is", title=TITLES[group], title_justify="left", box=None, padding=(0, 2, 0, 0)
            )
            for entry in entries:
                table.add_row(entry.name, entry.load().description or "", style=None)
            console.print(table, "")


def entry_points() -> Dict[str, List[EntryPoint]]:
    """What the installed suite registers with nerfstudio, by group and sorted by name; empty when not installed."""
    try:
        registered = distribution(DISTRIBUTION).entry_points
    except PackageNotFoundError:
        registered = ()
    return {group: sorted((e for e in registered if e.group == group), key=lambda e: e.name) for group in TITLES}


def entry_point_names() -> Dict[str, List[str]]:
    """Names of the registered methods and dataparsers under a title each, without loading them."""
    return {TITLES[group]: [entry.name for entry in entries] for group, entries in entry_points().items()}
