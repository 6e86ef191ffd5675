"""`ns-ext video render --fps`: pictures between the frames where time codes are smooth, another speed elsewhere."""

import av
import pytest
import torch

from nerfstudio_ext.cli.video import Render
from nerfstudio_ext.engine.errors import InputError
from tests.contract.runs import FRAMES, tiny_config, train


@pytest.mark.parametrize("base, pictures", [(1.05, 2 * FRAMES - 1), (1.25, FRAMES)])
def test_twice_the_rate(base, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = tiny_config("nerv-boost-tiny", tmp_path)
    config.pipeline.model.field.frequency_base = base
    Render(train(config).folder, tmp_path / "out.mp4", fps=50.0).main()
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == 50
        assert sum(1 for _ in container.decode(video=0)) == pictures


def test_the_source_is_never_written_over(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run, kept = train(tiny_config("nerv-tiny", tmp_path, data=tiny_clip)).folder, tiny_clip.read_bytes()
    with pytest.raises(InputError, match="would be lost"):
        Render(run, tiny_clip).main()
    assert tiny_clip.read_bytes() == kept


def test_a_rate_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="--fps nan"):
        Render(tmp_path, fps=float("nan")).main()
