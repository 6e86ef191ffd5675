"""The architecture, held by tests: who imports whom, the stem rule, file sizes, and what tracked text may not say."""

import ast
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, Set, Tuple

import pytest

from tests.conftest import REPOSITORY

PACKAGES = ("nerfstudio_ext", "method_configs", "dataparsers")
FAMILIES = {"human", "codebook", "video", "surface", "priors"}
EVERYTHING = {
    "engine",
    "procedural",
    "export",
    "data",
    "fields",
    "models",
    "pipelines",
    "cli",
    "dataparsers",
    *FAMILIES,
}
# Room -> rooms that it may import besides itself. A family that is plainly built on another one is added by name.
MAY_IMPORT: Dict[str, Set[str]] = {
    "engine": set(),
    # A drawn person is a body model in motion, so here the family comes first.
    "procedural": {"engine", "human"},
    **{family: {"engine", "procedural"} for family in FAMILIES - {"human"}},
    "human": {"engine"},
    "export": {"engine", "procedural", *FAMILIES},
    "dataparsers": {"engine", "procedural", *FAMILIES},
    "data": {"engine", "procedural", "dataparsers", *FAMILIES},
    "fields": {"engine", *FAMILIES},
    "models": {"engine", "fields", *FAMILIES},
    "pipelines": {"engine", "models", "fields", "data", *FAMILIES},
    "cli": EVERYTHING,
    "method_configs": EVERYTHING - {"cli"},
}
# Host modules that may be loaded while nerfstudio discovers dataparsers; anything else closes an import circle.
DATAPARSER_HOST = (
    "nerfstudio.cameras",
    "nerfstudio.data.dataparsers",
    "nerfstudio.data.scene_box",
    "nerfstudio.plugins.registry_dataparser",
    "nerfstudio.utils",
)
FAMILY_HOST = ("nerfstudio.cameras", "nerfstudio.data.scene_box", "nerfstudio.field_components", "nerfstudio.utils")
MAX_LINES = 500
PUBLIC_FUNCTIONS = {"nerfstudio_ext.video"}
"""Packages whose `__init__` offers a function to users; what it needs is imported when it is called."""
# The brackets keep these patterns from matching their own text.
FOREIGN_TEXT = {
    "a package index": r"python[h]osted\.org|pyp[i]\.org|download\.p[y]torch\.org|deb\.d[e]bian\.org",
    "an index option": r"--(?:extra-)?i[n]dex-url|--f[i]nd-links|PIP_(?:INDEX|EXTRA_INDEX|FIND_LINKS)",
    "a path of one machine": r"(?<![\w.\-/}])/(?:w[o]rk|r[o]ot|t[m]p|home/\w+)(?:/|\b(?![\w.-]))",
}


@cache
def project_files(*suffixes: str) -> Tuple[Path, ...]:
    """Files that git tracks or would track, with one of the suffixes (none: all)."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [REPOSITORY / line for line in listing.stdout.splitlines()]
    return tuple(path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes))


@cache
def imports() -> Dict[str, FrozenSet[str]]:
    """Module name -> dotted names that it imports anywhere in its text, for all modules that we ship."""
    found = {}
    for path in project_files(".py"):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        if parts[0] in PACKAGES:
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = frozenset(imported_names(ast.parse(path.read_text())))
    return found


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Dotted names in import statements; `from a import b` gives `a.b`, since b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_at_start(module: str) -> Set[str]:
    """What a package's `__init__` imports outside its functions."""
    tree = ast.parse((REPOSITORY / module.replace(".", "/") / "__init__.py").read_text())
    tree.body = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    return set(imported_names(tree))


def room(dotted: str) -> str:
    """Where a module of ours lives: the folder below nerfstudio_ext, or the top-level package; empty for others."""
    parts = dotted.split(".")
    if parts[0] == "nerfstudio_ext":
        return parts[1] if len(parts) > 1 else ""
    return parts[0] if parts[0] in PACKAGES else ""


def reach(start: str) -> Set[str]:
    """Modules of ours that importing one of them loads, itself included."""
    seen, waiting = set(), [start]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in imports()[module]:
            waiting.extend(candidate for candidate in (name, name.rpartition(".")[0]) if candidate in imports())
    return seen


def host_imports_outside(module: str, allowed: Tuple[str, ...]) -> List[str]:
    """What a module imports from nerfstudio beside the allowed parts."""
    names = [name for name in imports()[module] if name.split(".")[0] == "nerfstudio"]
    return [name for name in names if not any(f"{name}.".startswith(f"{part}.") for part in allowed)]


def test_modules_are_found() -> None:
    assert {"nerfstudio_ext.engine.errors", "dataparsers.video_frames"} <= set(imports())


@pytest.mark.parametrize("module", sorted(imports()))
def test_imports_follow_the_direction(module: str) -> None:
    home = room(module)
    if module in PUBLIC_FUNCTIONS:
        assert imports_at_start(module) == set()
        return
    if not home:
        assert not imports()[module], "a package's __init__ imports nothing"
        return
    assert home in MAY_IMPORT, f"{home} is a new room: say in MAY_IMPORT what it may import"
    wrong = {name for name in imports()[module] if room(name) and room(name) not in MAY_IMPORT[home] | {home}}
    assert not wrong


@pytest.mark.parametrize("module", [name for name in sorted(imports()) if room(name) == "dataparsers"])
def test_dataparsers_do_not_close_an_import_circle(module: str) -> None:
    wrong = {name: host_imports_outside(name, DATAPARSER_HOST) for name in reach(module)}
    assert not {name: found for name, found in wrong.items() if found}


@pytest.mark.parametrize("module", [name for name in sorted(imports()) if room(name) in FAMILIES])
def test_families_know_no_host_model(module: str) -> None:
    assert not host_imports_outside(module, FAMILY_HOST)


def test_only_commands_read_the_registry_of_the_host() -> None:
    """Importing it from a registered module fails when our module comes first, and it is incomplete at that moment."""
    readers = [name for name in imports() if any("nerfstudio.configs.method_configs" in i for i in imports()[name])]
    assert [name for name in readers if room(name) != "cli"] == []


def test_nothing_imports_method_configs() -> None:
    wrong = [name for name in imports() if any(room(found) == "method_configs" for found in imports()[name])]
    assert [name for name in wrong if room(name) != "method_configs"] == []


def test_third_party_imports_are_declared() -> None:
    """A module that we import without declaring its distribution is there only by luck."""
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    declared = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements}
    providers = packages_distributions()
    undeclared = {}
    for module, names in imports().items():
        for top in {name.split(".")[0] for name in names} - set(PACKAGES) - set(sys.stdlib_module_names):
            if not declared & {name.lower() for name in providers.get(top, [top])}:
                undeclared.setdefault(top, []).append(module)
    assert not undeclared
    assert not [r for r in project["dependencies"] if re.search(r"==|<|~=", r)], "no pin stricter than the host's"


@pytest.mark.parametrize(
    "config", [p for p in project_files(".py") if p.parent.name == "method_configs"], ids=lambda p: p.stem
)
def test_stem_rule(config: Path) -> None:
    stem = config.stem
    if stem.startswith("_"):
        return
    expected = (
        f"nerfstudio_ext/models/{stem}.py",
        f"nerfstudio_ext/fields/{stem}_field.py",
        f"tests/models/test_{stem}.py",
        f"docs/methods/{stem.replace('_', '-')}.md",
    )
    assert [name for name in expected if not (REPOSITORY / name).is_file()] == []


def test_no_file_is_too_long() -> None:
    lengths = {str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines()) for path in project_files(".py")}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_packages_have_empty_init_files() -> None:
    """An `__init__` that imports drags models into registration; a folder without one is left out of the wheel."""
    ours = [path for path in project_files(".py") if path.relative_to(REPOSITORY).parts[0] in PACKAGES]
    assert [str(path) for path in ours if not (path.parent / "__init__.py").is_file()] == []
    offering = {REPOSITORY / name.replace(".", "/") / "__init__.py" for name in PUBLIC_FUNCTIONS}
    filled = [path for path in project_files(".py") if path.name == "__init__.py" and path.read_text()]
    assert [str(path) for path in filled if path not in offering] == []


def foreign_text(text: str) -> List[str]:
    """Lines that name something of one machine or one network."""
    patterns = {what: re.compile(pattern) for what, pattern in FOREIGN_TEXT.items()}
    return [
        f"line {number}: {what}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in patterns.items()
        if pattern.search(line)
    ]


def test_tracked_text_names_no_machine() -> None:
    found = {}
    for path in project_files():
        try:
            lines = foreign_text(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue
        if lines:
            found[str(path.relative_to(REPOSITORY))] = lines
    assert found == {}


@pytest.mark.parametrize("line", ["see /{}rk/main", "cd /{}rk", "'/{}rk/x.mp4'", "run --root=/{}rk"])
def test_foreign_text_is_recognised(line: str) -> None:
    assert foreign_text(line.format("wo"))
    assert not foreign_text(line.format("network/wo"))


def test_lock_is_plain_and_complete() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)] == []
    locked = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
    needed = {"nerfstudio", "torch", "setuptools", "imageio-ffmpeg", "scikit-video", "pytest", "ruff", "basedpyright"}
    assert needed <= locked
