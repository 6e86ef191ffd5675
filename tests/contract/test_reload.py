"""A run opens again as it was: after training, elsewhere, and without the video it was trained on."""

import json
import shutil
from pathlib import Path
from typing import Callable, Dict

import pytest
import torch
import yaml
from nerfstudio.scripts import render
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.utils.eval_utils import eval_setup
from nerfstudio.viewer.viewer import Viewer

from nerfstudio_ext.engine.checkpoints import relocate_run
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.host import ensure_ffmpeg
from tests.contract.registered import METHODS
from tests.contract.runs import STEPS, Run, free_port, parameters, shown, tiny_config, train
from tests.contract.test_commands import camera_path, pictures

GetRun = Callable[[str, str], Run]


def change_checkpoint(run: Path, change: Callable[[Dict], None]) -> None:
    (path,) = (run / "nerfstudio_models").iterdir()
    state = torch.load(path, map_location="cpu")
    change(state["pipeline"])
    torch.save(state, path)


@pytest.mark.parametrize("name", METHODS)
def test_opens_as_it_was_saved(name: str, device: str, trained: GetRun) -> None:
    run = trained(name, device)
    _, pipeline, path, step = eval_setup(run.config_path)
    assert (path, step) == (run.checkpoint, STEPS - 1)
    saved = torch.load(path, map_location="cpu")["pipeline"]
    loaded = parameters(pipeline)
    for key, value in saved.items():
        assert torch.equal(loaded[key], value), key
    assert loaded.keys() - saved.keys() <= {key for key in loaded if key.startswith("datamanager.")}


@pytest.mark.parametrize("name", METHODS)
def test_config_of_a_run_survives_yaml(name: str, device: str, trained: GetRun) -> None:
    text = trained(name, device).config_path.read_text()
    config = yaml.load(text, Loader=yaml.Loader)
    assert yaml.dump(config) == text
    assert yaml.load(yaml.dump(config), Loader=yaml.Loader) == config


@pytest.mark.parametrize("name", METHODS)
def test_missing_parameter_is_named(name: str, device: str, trained: GetRun, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(trained(name, device).folder, tmp_path / "run"))
    config = relocate_run(moved)
    lost = next(key for key in torch.load(trained(name, device).checkpoint)["pipeline"] if "_model.field." in key)
    change_checkpoint(moved, lambda state: state.pop(lost))
    with pytest.raises(InputError, match=f"1 missing.*{lost.removeprefix('_model.')}"):
        eval_setup(config)


@pytest.mark.parametrize("name", METHODS)
def test_moved_run_opens_from_anywhere(name: str, device: str, trained: GetRun, opened, tmp_path, monkeypatch) -> None:
    moved = Path(shutil.copytree(trained(name, device).folder, tmp_path / "shelf" / "my run"))
    monkeypatch.chdir(tmp_path)
    pipeline = eval_setup(relocate_run(moved))[1]
    assert torch.equal(shown(pipeline), shown(opened(name, device)))


@pytest.mark.parametrize("name", ["hnerv-boost-tiny", "nerv-tiny"])
def test_opens_without_its_video(name: str, device: str, make_clip, tmp_path: Path) -> None:
    ensure_ffmpeg()
    video = make_clip(frames=5, size=(32, 48))
    run = train(tiny_config(name, tmp_path / "runs", data=video, device=device))
    before = shown(run.open())
    video.unlink()

    pipeline = run.open("inference")
    assert torch.equal(shown(pipeline), before)
    outputs = pipeline.model.get_outputs_for_camera(pipeline.datamanager.train_dataset.cameras[:1])
    assert list(outputs) == ["rgb", "accumulation", "depth"]
    (tmp_path / "path.json").write_text(json.dumps(camera_path([1.0, 0.0])))
    options = dict(camera_path_filename=tmp_path / "path.json", output_format="images", image_format="png")
    render.RenderCameraPath(run.config_path, tmp_path / "out.mp4", **options).main()
    assert len(pictures(tmp_path / "out")) == 2

    config, pipeline, _, step = eval_setup(run.config_path)
    config.viewer.websocket_port = free_port()
    viewer = Viewer(config.viewer, tmp_path / "log.txt", pipeline.datamanager.get_datapath(), pipeline)
    viewer.init_scene(pipeline.datamanager.train_dataset, "completed", pipeline.datamanager.eval_dataset)
    viewer.update_scene(step)
    viewer.viser_server.stop()

    with pytest.raises(InputError, match=f"{video.name}.*gone.*--data"):
        ComputePSNR(run.config_path, tmp_path / "scores.json").main()
    assert not (tmp_path / "scores.json").exists()
