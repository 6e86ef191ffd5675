"""Optional packages: the missing ones are named together with the extra that brings them."""

import sys

import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.packages import MissingPackageError, require_packages


def test_the_missing_ones_are_named(monkeypatch):
    require_packages("Counting", "video", "numpy", "json")
    monkeypatch.setitem(sys.modules, "json", None)
    with pytest.raises(MissingPackageError, match=r"^Counting needs the package json: pip install .*ext\[video\]'\.$"):
        require_packages("Counting", "video", "numpy", "json")
    with pytest.raises(InputError, match="packages json and no_such_module"):
        require_packages("Counting", "video", "json", "no_such_module")
