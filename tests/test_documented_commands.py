"""Every command line that README and docs show is one that the programs accept."""

import re
import shlex
from pathlib import Path
from typing import List, Tuple
from unittest import mock

import pytest
import tyro

from nerfstudio_ext.cli.main import COMMANDS, command_class
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELLS = ("", "bash", "sh", "console")


def documented(page: Path) -> List[str]:
    """Command lines of the suite's and the host's programs, without comments, continued lines joined."""
    found = BLOCK.findall(page.read_text("utf8"))
    blocks = "\n".join(text for language, text in found if language in SHELLS).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in blocks.splitlines()]
    return [line for line in lines if line.startswith("ns-")]


def parse(line: str) -> None:
    """Read the line as its program does; a usage error ends in SystemExit."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "ns-ext":
        name = next(n for n in (" ".join(arguments[:2]), arguments[0]) if n in COMMANDS)
        tyro.cli(command_class(name), args=arguments[len(name.split()) :])
    elif program == "ns-train":
        from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

        tyro.cli(AnnotatedBaseConfigUnion, args=arguments)
    else:
        from nerfstudio.scripts import eval as scoring
        from nerfstudio.scripts import exporter, process_data, render
        from nerfstudio.scripts.viewer.run_viewer import RunViewer
        from nerfstudio.utils import install_checks

        programs = {
            "ns-eval": scoring.ComputePSNR,
            "ns-render": render.Commands,
            "ns-export": exporter.Commands,
            "ns-process-data": process_data.Commands,
            "ns-viewer": RunViewer,
        }
        # ns-process-data looks for COLMAP and ffmpeg as soon as its arguments are read.
        with mock.patch.multiple(
            install_checks, check_ffmpeg_installed=mock.DEFAULT, check_colmap_installed=mock.DEFAULT
        ):
            tyro.cli(programs[program], args=arguments)


CASES: List[Tuple[str, str]] = [(page.name, line) for page in PAGES for line in documented(page)]


def test_pages_show_commands() -> None:
    assert {"ns-train", "ns-eval", "ns-render", "ns-ext"} <= {line.split()[0] for _, line in CASES}


@pytest.mark.parametrize("page, line", CASES)
def test_command_is_accepted(page: str, line: str) -> None:
    parse(line)


def test_a_wrong_flag_is_found() -> None:
    with pytest.raises(SystemExit):
        parse("ns-ext video render RUN --no-such-flag 3")
