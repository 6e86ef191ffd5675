"""`ns-ext video encode`, `decode`, `info` and `play` from a tiny run to a video with sound, and their refusals."""

import av
import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_ext.cli.bnrv import Decode, Encode, Info
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.runs import open_run
from nerfstudio_ext.models.stored_video import read_video
from tests.contract.runs import FRAMES, HEIGHT, WIDTH, tiny_config, train
from tests.export.test_audio import with_sound

pytestmark = pytest.mark.extra("constriction")


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tiny_config("hnerv-boost-tiny", tmp_path_factory.mktemp("run"))).folder


@pytest.fixture(scope="module")
def clip(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "clip.bnrv"
    Encode(run, path, bits=8).main()
    return path


def test_encode_describes_what_it_wrote(run, clip, tmp_path, capsys):
    Encode(run, tmp_path / "again.bnrv", bits=8).main()
    printed = capsys.readouterr().out
    assert (tmp_path / "again.bnrv").read_bytes() == clip.read_bytes()
    assert f"{clip.stat().st_size} bytes" in printed and f"{FRAMES} frames of {WIDTH}x{HEIGHT} at 25 fps" in printed
    Info(clip).main()
    told = capsys.readouterr().out.splitlines()
    assert told[1:] == [line for line in printed.splitlines() if line.startswith("  ")]


def test_decode_to_pictures(run, clip, tmp_path):
    Decode(clip, tmp_path / "frames").main()
    files = sorted((tmp_path / "frames").iterdir())
    assert [file.name for file in files] == [f"frame_{k:05d}.png" for k in range(FRAMES)]
    video = read_video(clip)
    assert all(np.array_equal(np.asarray(Image.open(file)), video[k]) for k, file in enumerate(files))
    expected = open_run(run)[1].model.decode_frame(3).permute(1, 2, 0).numpy()
    assert np.abs(video[3] / 255 - expected).mean() < 0.02


def test_decode_to_a_video_with_sound(clip, tmp_path):
    Decode(clip, tmp_path / "out.mp4", keep_audio=with_sound(tmp_path / "source.mp4", seconds=2)).main()
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams.audio) == 1 and float(container.streams.video[0].average_rate) == 25
        assert sum(1 for _ in container.decode(video=0)) == FRAMES
        assert container.duration / 1e6 < 0.5


def test_what_is_read_is_never_written_over(clip, tmp_path):
    source = with_sound(tmp_path / "source.mp4", seconds=1)
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "coded.mp4").write_bytes(clip.read_bytes())
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for video, output, sound in (
        (clip, source, source),
        (clip, tmp_path / "link.mp4", source),
        (tmp_path / "coded.mp4", tmp_path / "coded.mp4", None),
    ):
        with pytest.raises(InputError, match="would be lost"):
            Decode(video, output, keep_audio=sound).main()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("method, pictures", [("hnerv-boost-interp-tiny", 2 * FRAMES - 1), ("nerv-boost-tiny", FRAMES)])
def test_decode_at_twice_the_rate(method, pictures, tmp_path):
    Encode(train(tiny_config(method, tmp_path)).folder, tmp_path / "clip.bnrv", bits=8).main()
    Decode(tmp_path / "clip.bnrv", tmp_path / "out.mp4", fps=50.0).main()
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == 50
        assert sum(1 for _ in container.decode(video=0)) == pictures


@pytest.mark.parametrize(
    "command, told",
    [
        (lambda run, clip, folder: Encode(run, folder / "a.mp4", bits=8), "end in .bnrv"),
        (lambda run, clip, folder: Encode(run, folder / "a.bnrv"), "give --bits 8"),
        (lambda run, clip, folder: Encode(folder, folder / "a.bnrv"), "not a trained run"),
        (lambda run, clip, folder: Decode(clip, folder / "a.wmv"), "must end in"),
        (lambda run, clip, folder: Decode(clip, folder / "a", keep_audio=clip), "--keep-audio"),
        (lambda run, clip, folder: Decode(clip, folder / "a.mp4", fps=0.0), "--fps"),
        (lambda run, clip, folder: Decode(clip, folder / "a", fps=float("inf")), "--fps"),
        (lambda run, clip, folder: Decode(clip, folder.parent), "is not empty"),
        (lambda run, clip, folder: Decode(run / "config.yml", folder / "a"), "no readable .bnrv video"),
        (lambda run, clip, folder: Info(folder / "none.bnrv"), "cannot be read"),
    ],
)
def test_mistakes_are_told(run, clip, tmp_path, command, told):
    with pytest.raises(InputError, match=told):
        command(run, clip, tmp_path).main()
    assert not list(tmp_path.iterdir())
