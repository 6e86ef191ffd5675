"""Dotted paths that saved runs contain. Names on disk are forever: the file only grows.

Regenerate after adding a preset or a config class: ``.venv/bin/python -m tests.contract.golden``
"""

import dataclasses
import re
import typing
from importlib import import_module
from pathlib import Path
from typing import Any, Iterator, Set

import yaml

from tests.contract.registered import DATAPARSER_GROUP, METHODS, PACKAGES, registered

GOLDEN_FILE = Path(__file__).with_name("golden_paths.txt")
_TAG = re.compile(r"python/(?:object|object/apply|object/new|name|module):([\w.]+)")


def dumped_paths(config: Any) -> Set[str]:
    """Dotted paths of classes and functions in the YAML form of a config; builtins stay where they are."""
    return {path for path in _TAG.findall(yaml.dump(config)) if not path.startswith("builtins.")}


def optional_paths(config: Any) -> Set[str]:
    """Dotted paths of our dataclasses that a field may hold although its default is None: runs fill them in."""
    found = set()
    for node in _dataclass_nodes(config):
        for hint in typing.get_type_hints(type(node)).values():
            for kind in _flatten(hint):
                if dataclasses.is_dataclass(kind) and kind.__module__.split(".")[0] in PACKAGES:
                    found.add(f"{kind.__module__}.{kind.__qualname__}")
    return found


def current_paths() -> Set[str]:
    """Every dotted path that a run of any preset or dataparser can write today."""
    from nerfstudio.configs.method_configs import all_methods

    configs = [all_methods[name] for name in METHODS]
    for value in registered(DATAPARSER_GROUP).values():
        module, attribute = value.split(":")
        configs.append(getattr(import_module(module), attribute).config)
    return set().union(*(dumped_paths(config) | optional_paths(config) for config in configs))


def golden_paths() -> Set[str]:
    """The paths promised so far."""
    return set(GOLDEN_FILE.read_text().split()) if GOLDEN_FILE.exists() else set()


def resolve(path: str) -> Any:
    """The object behind a dotted path; raises AttributeError or ImportError when it has moved."""
    parts = path.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            node = import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            node = getattr(node, part)
        return node
    return import_module(path)


def _dataclass_nodes(config: Any) -> Iterator[Any]:
    if isinstance(config, dict):
        children = list(config.values())
    elif isinstance(config, (list, tuple)):
        children = list(config)
    elif dataclasses.is_dataclass(config) and not isinstance(config, type):
        yield config
        children = list(vars(config).values())
    else:
        return
    for child in children:
        yield from _dataclass_nodes(child)


def _flatten(hint: Any) -> Iterator[Any]:
    arguments = typing.get_args(hint)
    if not arguments:
        yield hint
    for argument in arguments:
        yield from _flatten(argument)


if __name__ == "__main__":
    GOLDEN_FILE.write_text("\n".join(sorted(golden_paths() | current_paths())) + "\n")
