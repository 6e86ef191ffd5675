"""What the installed package says that it adds."""

import sys
from types import SimpleNamespace

import pytest

from nerfstudio_ext.cli import listing


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installed distribution of our name, with two methods and one dataparser."""
    folder = tmp_path / "nerfstudio_ext-9.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: nerfstudio-ext\nVersion: 9.9\n")
    (folder / "entry_points.txt").write_text(
        "[console_scripts]\nns-ext = toy_specs:main\n"
        "[nerfstudio.method_configs]\nzebra = toy_specs:zebra\nant = toy_specs:ant\n"
        "[nerfstudio.dataparser_configs]\nzoo-data = toy_specs:zoo\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    specs = {name: SimpleNamespace(description=f"About {name}.") for name in ("zebra", "ant")}
    monkeypatch.setitem(sys.modules, "toy_specs", SimpleNamespace(**specs, zoo=SimpleNamespace(description=None)))


def test_names_are_sorted_and_need_no_loading(installed, monkeypatch):
    monkeypatch.delitem(sys.modules, "toy_specs")
    assert listing.entry_point_names() == {
        "methods (ns-train METHOD)": ["ant", "zebra"],
        "dataparsers (ns-train METHOD DATAPARSER)": ["zoo-data"],
    }


def test_list_describes_them(installed, capsys):
    listing.ListRegistered().main()
    words = capsys.readouterr().out.split("\n")
    assert [line.split() for line in words if "About" in line] == [
        ["ant", "About", "ant."],
        ["zebra", "About", "zebra."],
    ]
    assert any(line.strip() == "zoo-data" for line in words)


def test_not_installed(monkeypatch):
    def absent(name):
        raise listing.PackageNotFoundError(name)

    monkeypatch.setattr(listing, "distribution", absent)
    assert all(names == [] for names in listing.entry_point_names().values())
