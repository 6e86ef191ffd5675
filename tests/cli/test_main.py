"""The command ns-ext: finds its commands, lists everything, tells mistakes in a sentence, starts fast."""

import subprocess
import sys
import warnings
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from nerfstudio_ext.cli import main as cli
from nerfstudio_ext.engine.errors import InputError
from tests.conftest import REPOSITORY

ENTRY = "from nerfstudio_ext.cli.main import main; main()"


@dataclass
class Toy:
    """Say a number.

    And more.
    """

    number: int = 3
    """Which one."""

    def main(self) -> int:
        if self.number < 0:
            raise InputError("A negative number cannot be said: give --number 0 or more.")
        if self.number == 99:
            raise KeyboardInterrupt
        if self.number == 7:
            for module in ("nerfstudio.field_components.activations", "mine"):
                warnings.warn_explicit("old", FutureWarning, f"{module}.py", 1, module=module)
        print(f"said {self.number}")
        return 4 if self.number == 4 else 0


@pytest.fixture
def ns_ext(monkeypatch, capsys):
    """Run the command in this process; returns exit code, stdout and stderr."""
    monkeypatch.setitem(sys.modules, "toy_commands", SimpleNamespace(Toy=Toy))
    monkeypatch.setattr(cli, "COMMANDS", {"say": "toy_commands:Toy", "loud say": "toy_commands:Toy"})

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main(args)
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return run


@pytest.mark.parametrize("words", [["say"], ["loud", "say"]])
def test_runs_a_command_with_flags(ns_ext, words):
    assert ns_ext(*words) == (0, "said 3\n", "")
    assert ns_ext(*words, "--number", "8") == (0, "said 8\n", "")
    assert ns_ext(*words, "--number", "4")[0] == 4


def test_the_hosts_use_of_old_functions_is_not_told(ns_ext):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert ns_ext("say", "--number", "7")[0] == 0
    assert [warning.filename for warning in told] == ["mine.py"]


def test_a_mistake_is_one_sentence(ns_ext):
    assert ns_ext("say", "--number", "-1") == (
        1,
        "",
        "Error: A negative number cannot be said: give --number 0 or more.\n",
    )


def test_interrupt(ns_ext):
    assert ns_ext("say", "--number", "99") == (130, "", "")


@pytest.mark.parametrize("args", [["--help"], ["-h"], []])
def test_help_lists_everything(ns_ext, args):
    code, out, _ = ns_ext(*args)
    assert code == 0
    assert "  say       Say a number.\n  loud say  Say a number.\n" in out
    assert "methods (ns-train METHOD):" in out and "dataparsers (ns-train METHOD DATAPARSER):" in out


@pytest.mark.parametrize("args", [["loud"], ["loud", "--help"]])
def test_help_of_a_group(ns_ext, args):
    code, out, _ = ns_ext(*args)
    assert code == 0 and "loud say  Say a number." in out and "methods" not in out


def test_help_of_a_command(ns_ext):
    code, out, _ = ns_ext("loud", "say", "--help")
    assert code == 0 and "usage: ns-ext loud say" in out and "Which one." in out


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["sya"], "did you mean 'ns-ext say'?"),
        (["loud", "sai"], "did you mean 'ns-ext loud say'?"),
        (["xyzzy"], "'ns-ext --help' lists"),
        (["--bogus"], "'ns-ext --help' lists"),
    ],
)
def test_unknown_command(ns_ext, args, hint):
    code, out, err = ns_ext(*args)
    assert code == 2 and out == "" and err.startswith("Error: There is no command 'ns-ext") and hint in err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_there_and_can_run(name):
    command = cli.command_class(name)
    assert command.__doc__ and callable(command.main)


def test_help_imports_neither_torch_nor_nerfstudio():
    code = f"import sys\ntry:\n    {ENTRY}\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, cwd=REPOSITORY, timeout=60
    )
    assert done.returncode == 0 and "ns-ext list" in done.stdout
    assert not {"torch", "nerfstudio", "numpy", "av"} & set(done.stderr.split())
