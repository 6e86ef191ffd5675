"""`ns-ext doctor`: what works on this machine, and what would bring the rest."""

import json
import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, Iterator, List, Set
from urllib.parse import unquote, urlparse

from nerfstudio_ext.cli.listing import DISTRIBUTION

CODECS = {"h264": "h264", "hevc": "hevc", "vp9": "vp9", "av1": "libdav1d", "gif": "gif", "yuv": "rawvideo"}
"""Formats that clips come in, and the decoder of PyAV that reads each."""


@dataclass
class Finding:
    """One line of the report."""

    what: str
    """What was looked for."""
    works: bool
    """Whether it is there."""
    detail: str = ""
    """Which one, if it is there."""
    gives: str = ""
    """What the user has from it."""
    command: str = ""
    """The one command that brings it."""
    required: bool = False
    """Whether the suite cannot do without it."""


@dataclass
class Doctor:
    """Say what works on this machine, what a missing thing would give, and the command that brings it."""

    def main(self) -> int:
        """Print the report; 1 when something required is missing."""
        from rich.console import Console
        from rich.text import Text

        findings = list(examine())
        console = Console(highlight=False)
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            mark, style = (
                ("ok", "green") if finding.works else ("MISSING", "red") if finding.required else ("-", "yellow")
            )
            line = Text(f"{mark:>7}  ", style=style).append(f"{finding.what:<{width}}  ", style="bold")
            console.print(
                line.append(finding.detail if finding.works else finding.gives, style="default"), soft_wrap=True
            )
            if not finding.works:
                console.print(Text(f"{'':>9}{'':<{width}}  $ {finding.command}", style="cyan"), soft_wrap=True)
        missing = [finding.what for finding in findings if finding.required and not finding.works]
        if missing:
            console.print(f"\nRequired and missing: {', '.join(missing)}.", style="red")
        else:
            console.print("\nEverything required is here; lines marked - are optional.", style="green")
        return int(bool(missing))


def examine() -> Iterator[Finding]:
    """Look at everything that the suite can use, required things first."""
    yield Finding(
        "Python",
        (3, 10) <= sys.version_info[:2] <= (3, 12),
        sys.version.split()[0],
        f"needs 3.10, 3.11 or 3.12; this is {sys.version.split()[0]}",
        "python3.11 -m venv .venv",
        required=True,
    )
    for package in ("nerfstudio", "torch", "torchvision", "av"):
        yield _package(package)
    yield _cuda()
    yield Finding(
        "tiny-cuda-nn",
        find_spec("tinycudann") is not None,
        "installed",
        "faster hash grids on an NVIDIA GPU; without it PyTorch does the same",
        f"{_pip()} 'git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch'",
    )
    yield _ffmpeg()
    yield _codecs()
    yield _lpips()
    yield from _extras()
    yield from _cache()


def _package(name: str) -> Finding:
    title = {"av": "PyAV"}.get(name, name)
    try:
        return Finding(title, True, version(name), required=True)
    except PackageNotFoundError:
        return Finding(title, False, gives="nothing works without it", command=f"{_pip()} {name}", required=True)


def _cuda() -> Finding:
    gives = "training tens of times faster than on the CPU, which also works"
    command = "nvidia-smi    # must list a GPU; if it does, install the CUDA build of torch"
    try:
        import torch.version

        name = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if torch.cuda.is_available() else ""
    except (ImportError, OSError):
        name = ""
    return Finding("CUDA device", bool(name), name, gives, command)


def _ffmpeg() -> Finding:
    gives, command = "ns-render, which insists on a program of that name", f"{_pip()} imageio-ffmpeg"
    found = shutil.which("ffmpeg")
    if found:
        return Finding("ffmpeg", True, found)
    try:
        from nerfstudio_ext.engine.host import carried_ffmpeg

        carried = carried_ffmpeg()
    except (ImportError, OSError):
        carried = None
    return Finding("ffmpeg", carried is not None, "carried by imageio-ffmpeg; put on PATH when needed", gives, command)


def _codecs() -> Finding:
    try:
        import av
    except (ImportError, OSError):
        present: Set[str] = set()
    else:
        present = set(av.codecs_available)
    reads = [name for name, codec in CODECS.items() if {name, codec} & present]
    lacks = [name for name in CODECS if name not in reads]
    return Finding(
        "video codecs",
        not lacks and "libx264" in present,
        f"reads {', '.join(reads)}; writes h264",
        f"PyAV here cannot read {', '.join(lacks)} or write h264" if lacks else "PyAV here cannot write h264",
        f"{_pip()} --force-reinstall --only-binary=:all: av",
        required="h264" in lacks,
    )


def _lpips() -> Finding:
    gives = "the LPIPS metric; PSNR, SSIM and MS-SSIM need nothing"
    command = f"{_python()} -c \"import torchvision; torchvision.models.alexnet(weights='DEFAULT')\""
    try:
        from nerfstudio_ext.engine.metrics import lpips_weights_path

        path = lpips_weights_path()
        return Finding("LPIPS weights", path.is_file(), str(path), gives, command)
    except (ImportError, OSError):
        return Finding("LPIPS weights", False, "", gives, command)


def _cache() -> Iterator[Finding]:
    try:
        from nerfstudio_ext.engine.host import cache_dir
    except (ImportError, OSError):  # no torch: said above
        return
    size = sum(path.lstat().st_size for path in cache_dir().rglob("*"))
    yield Finding("cache folder", True, f"{cache_dir()}: {size / 1e9:.2f} GB, made again where it is deleted")


def _extras() -> Iterator[Finding]:
    """The optional parts of the package, as its installed metadata lists them."""
    try:
        package = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        gives = "the methods, for nerfstudio finds them through the installed package"
        yield Finding(DISTRIBUTION, False, "", gives, f"{_pip()} -e .", required=True)
        return
    wanted = {"video": "rendering videos", "human": "body models", "demo": "the demo clip", "dev": "tests and checks"}
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    checkout = unquote(urlparse(origin["url"]).path) if origin.get("dir_info", {}).get("editable") else ""
    for extra, packages in packages_by_extra(package.requires or []).items():
        missing = [name for name in packages if not _installed(name)]
        gives = f"{wanted.get(extra, 'an optional part')}; lacks {', '.join(missing)}"
        target = f"-e {shlex.quote(f'{checkout}[{extra}]')}" if checkout else shlex.quote(f"{DISTRIBUTION}[{extra}]")
        yield Finding(f"extra {extra}", not missing, ", ".join(packages), gives, f"{_pip()} {target}")


def packages_by_extra(requirements: List[str]) -> Dict[str, List[str]]:
    """Names of the packages that each extra brings, from lines like `imageio-ffmpeg>=0.4; extra == "video"`.

    Extras that only bundle other extras of the same distribution are left out.
    """
    extras: Dict[str, List[str]] = {}
    for line in requirements:
        extra = re.search(r"""extra\s*==\s*['"]([\w.-]+)['"]""", line)
        name = re.match(r"[\w.-]+", line)
        if extra and name and name[0].lower().replace("_", "-") != DISTRIBUTION:
            extras.setdefault(extra[1], []).append(name[0])
    return extras


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _python() -> str:
    """This interpreter as the user would type it, activated or not."""
    path = Path(sys.executable)
    return shlex.quote(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))


def _pip() -> str:
    return f"{_python()} -m pip install"
