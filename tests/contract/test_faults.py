"""What goes wrong for a user ends in one sentence, and what was trained is never lost."""

import re
import shlex
import sys
from pathlib import Path
from typing import Callable, List

import pytest
import torch
from nerfstudio.scripts import train as train_script

from nerfstudio_ext.engine.errors import InputError
from tests.contract.commands import Command

METHOD = "hnerv-boost-tiny"
CLIP = ["video-data", "--procedural-frames", "6", "--procedural-size", "66", "46"]


def nothing_there(folder: Path) -> Path:
    return folder / "nothing.mp4"


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def no_video(folder: Path) -> Path:
    (folder / "letter.mp4").write_text("Dear reader, this is not a video. " * 50)
    return folder / "letter.mp4"


def folder_without_pictures(folder: Path) -> Path:
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("no picture")
    return folder / "notes"


@pytest.mark.parametrize("make", [nothing_there, empty_folder, no_video, folder_without_pictures])
@pytest.mark.parametrize("before_parser", [True, False], ids=["method's --data", "parser's --data"])
def test_bad_data_is_one_sentence(
    make: Callable[[Path], Path], before_parser: bool, tmp_path: Path, monkeypatch, capsys
) -> None:
    data = make(tmp_path)
    flag = ["--data", str(data)]
    options = [*flag, "video-data"] if before_parser else ["video-data", *flag]
    command = ["ns-train", METHOD, "--output-dir", str(tmp_path / "out"), *options]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(InputError) as refusal:
        train_script.entrypoint()
    capsys.readouterr()
    sys.excepthook(refusal.type, refusal.value, refusal.tb)
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and said.count("\n") == 1
    assert data.name in said
    assert not list((tmp_path / "out").rglob("*.ckpt"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_bad_data_from_the_command_line(tmp_path: Path) -> None:
    with Command(["ns-train", METHOD, "video-data", "--data", str(no_video(tmp_path))], tmp_path) as training:
        assert training.finish() == 1
    assert len(re.findall(r"^Error: .*letter\.mp4", training.output, re.MULTILINE)) == 1
    assert "Traceback" not in training.output


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A training that Ctrl-C ended long before its last step."""
    options = ["--vis", "tensorboard", "--max-num-iterations", "1000000", "--pipeline.model.width", "8"]
    with Command(["ns-train", METHOD, *options, *CLIP], tmp_path_factory.mktemp("interrupted")) as training:
        training.wait_for(lambda: re.search(r"^50 \(", training.output, re.MULTILINE) is not None, "step 50")
        training.interrupt()
    return training


def resume_command(training: Command) -> List[str]:
    (line,) = re.findall(r"Go on with:\s+(ns-train .*)", training.output)
    return shlex.split(line)


def checkpoints(folder: Path) -> List[Path]:
    return sorted(folder.rglob("*.ckpt"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_saves_and_says_how_to_go_on(interrupted: Command) -> None:
    assert interrupted.process.returncode == 130
    assert "Traceback" not in interrupted.output
    (checkpoint,) = checkpoints(interrupted.folder)
    step = int(re.search(r"Stopped after step (\d+) and saved", interrupted.output)[1])
    assert checkpoint.name == f"step-{step:09d}.ckpt" and step >= 50
    assert torch.load(checkpoint, map_location="cpu")["step"] == step
    assert resume_command(interrupted)[:3] == ["ns-train", METHOD, "--load-dir"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_printed_command_does_the_remaining_steps(interrupted: Command, tmp_path: Path) -> None:
    (stopped,) = checkpoints(interrupted.folder)
    last = torch.load(stopped, map_location="cpu")["step"]
    command = resume_command(interrupted)
    command[command.index("--max-num-iterations") + 1] = str(last + 4)
    # The command is printed for the folder that it was started in.
    command[command.index("--load-dir") + 1] = str(interrupted.folder / command[command.index("--load-dir") + 1])
    with Command(command, tmp_path) as training:
        assert training.finish() == 0
    assert f"going on at step {last + 1}" in training.output
    (finished,) = checkpoints(tmp_path)
    assert torch.load(finished, map_location="cpu")["step"] == last + 3
