"""What registering the suite costs, promises and survives, for every preset."""

import compileall
import copy
import json
import re
import subprocess
import sys
from typing import Dict

import pytest
import tyro
import yaml

from tests.conftest import REPOSITORY
from tests.contract.golden import GOLDEN_FILE, current_paths, golden_paths, resolve
from tests.contract.registered import DATAPARSER_GROUP, DATAPARSERS, METHOD_GROUP, METHODS, PACKAGES, registered

BUDGET_SECONDS = 0.5
# Comma-separated, as the measuring process takes them.
OPTIONAL_PACKAGES = (
    "anny,chumpy,clip,constriction,diffusers,imageio_ffmpeg,lpips,playwright,ray,roma,skvideo,smplx,spconv,"
    "transformers,warp"
)
HEAVY_PACKAGES = "cv2,IPython,jupyterlab,matplotlib,open3d,pandas,pymeshlab,scipy,skimage,sklearn,trimesh"

MEASURE = """
import importlib.abc, importlib.metadata, json, sys, time

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OPTIONAL:
            raise ModuleNotFoundError(f"{name} is blocked in this test", name=name)

OPTIONAL = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Blocker())
everything = importlib.metadata.entry_points

def without_ours(**selection):
    found = everything(**selection)
    if not selection.get("group", "").startswith("nerfstudio."):
        return found
    return importlib.metadata.EntryPoints(point for point in found if point.dist.name != "nerfstudio-ext")

importlib.metadata.entry_points = without_ours
import nerfstudio.configs.method_configs as host
from nerfstudio.plugins import registry, registry_dataparser

leaked = [name for name in sys.modules if name.split(".")[0] in sys.argv[2].split(",")]
before = set(sys.modules)
registry.entry_points = registry_dataparser.entry_points = everything
start = time.process_time()
methods, _ = registry.discover_methods()
parsers, _ = registry_dataparser.discover_dataparsers()
seconds = time.process_time() - start
print(json.dumps(dict(seconds=seconds, new=sorted(set(sys.modules) - before), leaked=leaked,
                      methods=sorted(methods), parsers=sorted(parsers))))
"""


def run_python(code: str, *arguments: str) -> str:
    """Standard output of a fresh interpreter, outside the repository's folder so that only what is installed counts."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=sys.prefix, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def registration() -> Dict:
    """Facts about discovering our entry points after the host is up, with every optional package blocked."""
    for package in PACKAGES:
        compileall.compile_dir(REPOSITORY / package, quiet=1)
    output = run_python(MEASURE, OPTIONAL_PACKAGES, ",".join(PACKAGES))
    return json.loads(output.splitlines()[-1])


def test_registering_the_suite_is_cheap(registration: Dict) -> None:
    assert not registration["leaked"], "the host imported us before discovery: nothing would be measured"
    assert any(name.startswith("nerfstudio_ext") for name in registration["new"])
    assert registration["seconds"] < BUDGET_SECONDS


def test_registering_the_suite_imports_no_heavy_package(registration: Dict) -> None:
    imported = {name.split(".")[0] for name in registration["new"]}
    assert not imported & {*OPTIONAL_PACKAGES.split(","), *HEAVY_PACKAGES.split(",")}


def test_everything_registers_without_optional_packages(registration: Dict) -> None:
    assert set(METHODS) <= set(registration["methods"])
    assert set(DATAPARSERS) <= set(registration["parsers"])


def test_our_modules_may_be_imported_before_the_host() -> None:
    values = {**registered(DATAPARSER_GROUP), **registered(METHOD_GROUP)}.values()
    modules = list(dict.fromkeys(value.split(":")[0] for value in values))
    host = ["nerfstudio.configs.method_configs"]
    run_python("import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)", *modules, *host)


def test_installed_entry_points_are_those_of_pyproject() -> None:
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for group, points in project["entry-points"].items():
        assert registered(group) == points, f"{group}: the installed package is older than pyproject.toml; make env"


def test_no_name_is_taken_by_another_package() -> None:
    """The later of two equal names silently replaces the earlier one, so equal names must not exist."""
    from importlib.metadata import entry_points

    for group, ours in ((METHOD_GROUP, METHODS), (DATAPARSER_GROUP, DATAPARSERS)):
        names = [point.name for point in entry_points(group=group)]
        assert [name for name in ours if names.count(name) != 1] == []


@pytest.mark.parametrize("name", METHODS)
def test_method_name_entry_point_and_attribute_agree(name: str, all_methods: Dict) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert all_methods[name].method_name == name
    module, attribute = registered(METHOD_GROUP)[name].split(":")
    assert module.split(".")[0] == "method_configs"
    assert attribute == name.replace("-", "_")
    assert name.endswith("-tiny") or f"{name}-tiny" in METHODS


@pytest.mark.parametrize("name", METHODS)
def test_default_dataparser_is_registered(name: str, all_methods: Dict) -> None:
    from nerfstudio.configs.dataparser_configs import all_dataparsers

    default = all_methods[name].pipeline.datamanager.dataparser
    assert type(default) in {type(config) for config in all_dataparsers.values()}


@pytest.mark.parametrize("name", METHODS)
def test_config_survives_yaml(name: str, all_methods: Dict) -> None:
    config = copy.deepcopy(all_methods[name])
    text = yaml.dump(config)
    again = yaml.load(text, Loader=yaml.Loader)
    assert again == config
    assert yaml.dump(again) == text


@pytest.mark.parametrize("name", METHODS)
def test_config_survives_the_command_line(name: str, all_methods: Dict) -> None:
    from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

    parsed = tyro.cli(AnnotatedBaseConfigUnion, args=[name])
    assert yaml.dump(parsed) == yaml.dump(all_methods[name])


def test_promised_paths_still_resolve() -> None:
    assert golden_paths(), f"{GOLDEN_FILE.name} is empty: python -m tests.contract.golden"
    for path in sorted(golden_paths()):
        assert resolve(path) is not None


def test_new_paths_are_promised() -> None:
    missing = sorted(current_paths() - golden_paths())
    assert not missing, f"not in {GOLDEN_FILE.name} (python -m tests.contract.golden adds them): {missing}"
