"""The doctor's report: complete, one screen, with a command for whatever is missing."""

import builtins
import json
import shlex
import sys

import pytest

import nerfstudio_ext
from nerfstudio_ext.cli import doctor


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed distribution of our name: one extra complete, one not, one that only bundles."""
    folder = tmp_path / "nerfstudio_ext-9.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: nerfstudio-ext\nVersion: 9.9\n"
        "Requires-Dist: torch\n"
        'Requires-Dist: rich>=13; extra == "demo"\n'
        'Requires-Dist: no-such-package==1.0; extra == "human"\n'
        "Requires-Dist: rich; python_version > '3' and extra == 'human'\n"
        'Requires-Dist: nerfstudio-ext[demo,human]; extra == "all"\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def absent(name):
    raise doctor.PackageNotFoundError(name)


def findings():
    return {finding.what: finding for finding in doctor.examine()}


def test_this_machine_has_what_is_required(package, capsys):
    assert doctor.Doctor().main() == 0
    out = capsys.readouterr().out
    assert "Everything required is here" in out and "MISSING" not in out
    assert len(out.splitlines()) <= 40
    for what in (
        "Python",
        "torch",
        "CUDA device",
        "tiny-cuda-nn",
        "ffmpeg",
        "video codecs",
        "LPIPS weights",
        "extra demo",
    ):
        assert what in out


def test_missing_things_say_what_they_give_and_bring_one_command(package):
    for finding in doctor.examine():
        assert finding.works or (finding.gives and shlex.split(finding.command)), finding


def test_extras(package):
    found = findings()
    assert found["extra demo"].works and found["extra demo"].detail == "rich"
    assert not found["extra human"].works and "lacks no-such-package" in found["extra human"].gives
    assert shlex.split(found["extra human"].command)[-1] == "nerfstudio-ext[human]"
    assert "extra all" not in found and not found["extra human"].required


def test_extras_of_a_checkout_are_installed_from_there(package):
    origin = {"url": "file:///opt/my%20code", "dir_info": {"editable": True}}
    (package / "direct_url.json").write_text(json.dumps(origin))
    assert shlex.split(findings()["extra human"].command)[-2:] == ["-e", "/opt/my code[human]"]


def test_a_package_that_is_not_installed_is_required(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "distribution", absent)
    assert doctor.Doctor().main() == 1
    out = capsys.readouterr().out
    assert "MISSING  nerfstudio-ext" in out and "Required and missing: nerfstudio-ext." in out and "-e ." in out


@pytest.mark.parametrize("error", [ImportError("gone"), OSError("libcudart.so: cannot open")])
def test_survives_a_machine_without_torch_and_av(package, monkeypatch, error):
    real = builtins.__import__

    def broken(name, *args, **kwargs):
        if name.split(".")[0] in ("torch", "av"):
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.setattr(nerfstudio_ext, "engine", nerfstudio_ext.engine)  # importing anew sets it too: put back after
    for name in list(sys.modules):
        if name.startswith("nerfstudio_ext.engine"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(doctor, "version", absent)
    monkeypatch.setattr(builtins, "__import__", broken)
    found = findings()
    monkeypatch.undo()
    assert [name for name, finding in found.items() if finding.required and not finding.works] == [
        *("nerfstudio", "torch", "torchvision", "PyAV", "video codecs")
    ]
    assert not found["CUDA device"].works and not found["LPIPS weights"].works


def test_ffmpeg_on_path_or_carried_or_none(package, monkeypatch, tmp_path):
    from nerfstudio_ext.engine import host

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(host, "carried_ffmpeg", lambda: None)
    assert not findings()["ffmpeg"].works
    monkeypatch.setattr(host, "carried_ffmpeg", lambda: tmp_path / "x")
    assert "carried" in findings()["ffmpeg"].detail
    (tmp_path / "ffmpeg").write_text("")
    (tmp_path / "ffmpeg").chmod(0o755)
    assert findings()["ffmpeg"].detail == str(tmp_path / "ffmpeg")


def test_cache_folder_tells_its_size(package, tmp_path, monkeypatch):
    monkeypatch.setenv("NERFSTUDIO_EXT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "frames").mkdir(parents=True)
    (tmp_path / "cache" / "frames" / "clip.npy").write_bytes(bytes(30_000_000))
    assert findings()["cache folder"].detail.startswith(f"{tmp_path / 'cache'}: 0.03 GB")
