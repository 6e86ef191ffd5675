"""The base pipeline: strict loads, numbers fit for JSON, and two processes that train as one."""

import json
import math
import multiprocessing
import re
import shutil
import socket

import pytest
import torch
import torch.multiprocessing as mp

from nerfstudio_ext.engine.errors import InputError
from tests.toys import toy_config, train_on_rank


def toy_pipeline(folder, **changes):
    return toy_config(folder, **changes).pipeline.setup(device="cpu", test_mode="val")


def test_numbers_too_small_for_full_precision_are_zero(tmp_path):
    torch.set_flush_denormal(False)
    toy_pipeline(tmp_path)
    assert not (torch.full((8,), 1e-39) * 1).any()


class TestLoading:
    def test_fits(self, tmp_path):
        torch.manual_seed(0)
        one, other = toy_pipeline(tmp_path), toy_pipeline(tmp_path)
        other.load_pipeline(one.state_dict(), step=3)
        assert torch.equal(one.model.network[0].weight, other.model.network[0].weight)

    def test_takes_the_distributed_layers_off(self, tmp_path):
        one, other = toy_pipeline(tmp_path), toy_pipeline(tmp_path)
        state = one.state_dict()
        for layered in (
            {key.replace("_model.", "_model.module.", 1): value for key, value in state.items()},
            {"module." + key: value for key, value in state.items()},
        ):
            with torch.no_grad():
                other.model.network[0].weight.zero_()
            other.load_pipeline(layered, step=0)
            assert torch.equal(one.model.network[0].weight, other.model.network[0].weight)

    @pytest.mark.parametrize("test_mode", ["val", "test", "inference"])
    def test_what_does_not_fit_is_named(self, tmp_path, test_mode):
        pipeline = toy_config(tmp_path).pipeline.setup(device="cpu", test_mode=test_mode)
        state = pipeline.state_dict()
        del state["_model.network.0.weight"]
        state["_model.head.bias"] = torch.zeros(1)
        state["_model.network.2.bias"] = torch.zeros(5)
        message = (
            "does not fit the model: 1 missing (network.0.weight); 1 unexpected (head.bias); "
            "1 of another shape (network.2.bias is (5,) instead of (3,))"
        )
        with pytest.raises(InputError, match=re.escape(message)):
            pipeline.load_pipeline(state, step=0)

    def test_modules_of_the_pipeline_itself_count_but_data_does_not(self, tmp_path):
        pipeline = toy_pipeline(tmp_path)
        state = pipeline.state_dict()
        state["datamanager.table"] = torch.zeros(2)
        pipeline.load_pipeline(state, step=0)
        pipeline.critic = torch.nn.Linear(1, 1)
        with pytest.raises(InputError, match=r"2 missing \(critic.weight, critic.bias\)"):
            pipeline.load_pipeline(state, step=0)

    def test_partial_load_only_on_demand_and_never_silent(self, tmp_path, capsys):
        pipeline = toy_pipeline(tmp_path)
        state = pipeline.state_dict()
        state["_model.network.2.weight"] = torch.full_like(state["_model.network.2.weight"], 5.0)
        state["_model.network.0.weight"] = torch.zeros(1)
        pipeline.load_state_dict(state, strict=False)
        assert "in part: 1 of another shape (network.0.weight" in capsys.readouterr().out
        assert torch.all(pipeline.model.network[2].weight == 5)

    def test_model_that_resizes_itself_loads(self, tmp_path):
        """Growing point sets and codebooks resize inside their own load_state_dict."""
        pipeline = toy_pipeline(tmp_path)
        load = pipeline.model.load_state_dict

        def resize_and_load(state, strict=True):
            pipeline.model.stored = torch.zeros_like(state["stored"])
            return load(state, strict=strict)

        pipeline.model.load_state_dict = resize_and_load
        state = pipeline.state_dict()
        state["_model.stored"] = torch.arange(4.0)
        pipeline.load_pipeline(state, step=0)
        assert pipeline.model.stored.tolist() == [0, 1, 2, 3]


def test_building_one_brings_ffmpeg(tmp_path, monkeypatch):
    """nerfstudio's renderer builds the pipeline first and then looks for the program."""
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("NERFSTUDIO_EXT_CACHE", str(tmp_path / "cache"))
    toy_pipeline(tmp_path)
    assert shutil.which("ffmpeg") == str(tmp_path / "cache" / "bin" / "ffmpeg")


class TestAverages:
    def test_are_strict_json_and_right(self, tmp_path):
        pipeline = toy_pipeline(tmp_path)
        averages = pipeline.get_average_eval_image_metrics(get_std=True)
        text = json.dumps(averages, allow_nan=False)
        assert set(json.loads(text)) == {
            *("error", "error_std", "fps", "fps_std", "num_rays_per_sec", "num_rays_per_sec_std", "parameters")
        }
        errors = []
        for camera, batch in pipeline.datamanager.fixed_indices_eval_dataloader:
            errors.append(float((pipeline.model.get_outputs(camera)["rgb"] - batch["image"]).abs().mean()))
        mean = sum(errors) / len(errors)
        assert averages["error"] == pytest.approx(mean)
        assert averages["error_std"] == pytest.approx(math.sqrt(sum((e - mean) ** 2 for e in errors) / len(errors)))
        assert averages["num_rays_per_sec"] > 0 and averages["parameters"] == 35

    def test_without_deviations_on_demand(self, tmp_path):
        assert "error_std" not in toy_pipeline(tmp_path).get_average_eval_image_metrics()

    def test_one_image_deviates_by_zero(self, tmp_path):
        config = toy_config(tmp_path)
        config.pipeline.datamanager.num_frames = 1
        pipeline = config.pipeline.setup(device="cpu", test_mode="test")
        assert pipeline.get_average_eval_image_metrics(get_std=True)["error_std"] == 0.0

    def test_not_a_number_is_named(self, tmp_path):
        with pytest.raises(InputError, match="Metric 'error' of evaluation image 0 is inf"):
            toy_pipeline(tmp_path, offset=math.inf).get_average_eval_image_metrics()
        pipeline = toy_pipeline(tmp_path)
        pipeline.model.get_run_metrics = lambda: {"bits": math.nan}
        with pytest.raises(InputError, match="Metric 'bits' of the evaluation is nan"):
            pipeline.get_average_eval_image_metrics()

    def test_no_images(self, tmp_path):
        with pytest.raises(InputError, match="no image to evaluate"):
            toy_pipeline(tmp_path).get_average_image_metrics([], "eval")

    def test_images_are_saved_and_the_mode_is_kept(self, tmp_path):
        pipeline = toy_pipeline(tmp_path)
        for training in (True, False):
            pipeline.train(training)
            pipeline.get_average_eval_image_metrics(output_path=tmp_path / "png")
            assert pipeline.training is training
        assert sorted(path.name for path in (tmp_path / "png").iterdir()) == [f"eval_img_{i:04d}.png" for i in range(4)]
        assert pipeline.model.calls == ["prepare_eval", "prepare_eval"]

    def test_stock_models_have_no_hooks(self, tmp_path):
        pipeline = toy_pipeline(tmp_path)
        for name in ("prepare_eval", "prepare_checkpoint", "get_run_metrics"):
            setattr(pipeline.model, name, None)
        pipeline.prepare_checkpoint()
        assert set(pipeline.get_average_eval_image_metrics()) == {"error", "fps", "num_rays_per_sec"}


@pytest.mark.slow
def test_psnr_of_a_held_out_image_reaches_the_terminal(tmp_path, monkeypatch):
    from nerfstudio.utils import writer  # the host cannot import it first

    pipeline = toy_pipeline(tmp_path)
    monkeypatch.setattr(pipeline.model, "get_image_metrics_and_images", lambda outputs, batch: ({"psnr": 31.5}, {}))
    monkeypatch.setattr(writer, "EVENT_STORAGE", [])
    pipeline.get_eval_image_metrics_and_images(step=7)
    shown = [(event["name"], event["event"], event["step"]) for event in writer.EVENT_STORAGE]
    assert shown == [(writer.EventName.CURR_TEST_PSNR.value, 31.5, 7)]


def test_two_processes_on_cpu_train_one_model(tmp_path):
    """Equal weights on both, one guarded NaN that only one of them saw, and one checkpoint that loads alone."""
    # The server imports nerfstudio once, and unlike this process has run nothing that a fork would break.
    multiprocessing.set_forkserver_preload(["tests.toys"])
    mp.start_processes(train_on_rank, args=(2, tmp_path, free_port()), nprocs=2, start_method="forkserver")
    (one, halvings), (other, other_halvings) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert halvings == other_halvings == 1
    for name in one:
        if name.startswith("network"):
            assert torch.equal(one[name], other[name]), name
    state = torch.load(next(tmp_path.rglob("*.ckpt")), weights_only=True)
    assert state["step"] == 5 and any(key.startswith("_model.module.") for key in state["pipeline"])
    alone = toy_pipeline(tmp_path)
    alone.load_pipeline(state["pipeline"], step=5)
    assert torch.equal(alone.model.network[0].weight, one["network.0.weight"])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
