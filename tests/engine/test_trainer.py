"""The trainer on a toy: how long it trains, what it saves, how it resumes, and how it stops."""

import os
import shlex
import signal
import sys
import threading

import pytest
import torch
import yaml
from nerfstudio.viewer.render_state_machine import RenderStateMachine

from nerfstudio_ext.engine import checkpoints
from nerfstudio_ext.engine import trainer as trainer_module
from nerfstudio_ext.engine.errors import InputError
from tests.toys import interrupt_after, toy_config, toy_trainer


def saved(folder):
    return sorted(path.name for path in folder.rglob("*.ckpt"))


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.pipeline.model.network.parameters()])


class Rendering(RenderStateMachine):
    """The thread that the viewer has for each visitor, without a visitor."""

    def __init__(self):
        threading.Thread.__init__(self, daemon=True)
        self.running, self.render_trigger = True, threading.Event()

    def run(self):
        while self.running:
            self.render_trigger.wait(0.1)


@pytest.fixture
def termination_handler():
    """Lets a test set what SIGTERM does; whatever was there (Ray puts its own) comes back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class TestLength:
    def test_epochs_times_steps(self, tmp_path):
        trainer = toy_trainer(tmp_path, epochs=3)
        trainer.train()
        assert saved(tmp_path) == ["step-000000011.ckpt"]
        assert trainer.optimizers.optimizers["fields"].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)

    def test_iterations_win_over_epochs(self, tmp_path):
        assert toy_trainer(tmp_path, epochs=3, max_num_iterations=5).config.max_num_iterations == 5

    def test_stored_config_knows_the_length_and_still_follows_it(self, tmp_path):
        toy_trainer(tmp_path)
        config = yaml.load((tmp_path / "clip/toy/run/config.yml").read_text(), Loader=yaml.Loader)
        assert config.max_num_iterations == 12
        assert config.optimizers["fields"]["scheduler"].max_steps is None

    @pytest.mark.parametrize(
        ("changes", "message"), [({"epochs": None}, "not set"), ({"epochs": 0}, "at least one step")]
    )
    def test_mistakes(self, tmp_path, changes, message):
        with pytest.raises(InputError, match=message):
            toy_trainer(tmp_path, **changes)

    def test_a_run_that_cannot_begin_leaves_nothing(self, tmp_path):
        config = toy_config(tmp_path, epochs=0)
        config.save_config()
        trainer = config.setup()
        with pytest.raises(InputError, match="at least one step"):
            trainer.setup()
        assert not list(tmp_path.iterdir())

    def test_missing_data_is_told_before_anything_is_written(self, tmp_path):
        config = toy_config(tmp_path, data=tmp_path / "nope.mp4")
        with pytest.raises(InputError, match=r"no data at .*nope\.mp4"):
            config.print_to_terminal()
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(("steps", "often"), [(5, 1), (200, 25), (100_000, 50)])
    def test_short_trainings_print_more_often(self, tmp_path, steps, often):
        config = toy_config(tmp_path, max_num_iterations=steps)
        config.logging.steps_per_log = 50
        config.setup().setup()
        assert config.logging.steps_per_log == often

    def test_data_without_epochs(self, tmp_path, monkeypatch):
        trainer = toy_trainer(tmp_path)
        del trainer.pipeline.datamanager.steps_per_epoch
        trainer.config.max_num_iterations = None
        with pytest.raises(InputError, match="--max-num-iterations instead of --epochs"):
            trainer.setup_optimizers()


class TestSaving:
    def test_loads_with_the_safe_loader_and_holds_what_the_model_prepared(self, tmp_path):
        trainer = toy_trainer(tmp_path)
        trainer.train()
        state = torch.load(next(tmp_path.rglob("*.ckpt")), weights_only=True)
        assert state["step"] == 11 and float(state["pipeline"]["_model.stored"]) == 7
        assert set(state) == {"step", "pipeline", "optimizers", "schedulers", "scalers"}
        assert type(state["schedulers"]["fields"]["_last_lr"][0]) is float

    def test_keeps_all_or_only_the_latest(self, tmp_path):
        toy_trainer(tmp_path / "one", steps_per_save=4).train()
        assert saved(tmp_path / "one") == ["step-000000011.ckpt"]
        toy_trainer(tmp_path / "all", steps_per_save=4, save_only_latest_checkpoint=False).train()
        assert saved(tmp_path / "all") == ["step-000000004.ckpt", "step-000000008.ckpt", "step-000000011.ckpt"]

    def test_full_disk_on_the_way_goes_on_and_keeps_the_older(self, tmp_path, monkeypatch, capsys):
        trainer = toy_trainer(tmp_path, steps_per_save=4)
        real, calls = trainer_module.atomic_save, []

        def full_at_the_second(obj, path):
            calls.append(saved(tmp_path))
            if len(calls) == 2:
                raise InputError(f"Could not write {path} (No space left on device): free some space there.")
            real(obj, path)

        monkeypatch.setattr(trainer_module, "atomic_save", full_at_the_second)
        trainer.train()
        assert calls == [[], ["step-000000004.ckpt"], ["step-000000004.ckpt"]]
        assert saved(tmp_path) == ["step-000000011.ckpt"]
        assert "No space left on device): free some space there. Training goes on" in capsys.readouterr().out

    def test_full_disk_at_the_end_is_an_error(self, tmp_path, monkeypatch):
        trainer = toy_trainer(tmp_path, steps_per_save=4)
        real = os.fsync
        monkeypatch.setattr(checkpoints.os, "fsync", lambda fd: self.full() if trainer.step == 11 else real(fd))
        with pytest.raises(InputError, match="No space left on device"):
            trainer.train()
        assert saved(tmp_path) == ["step-000000008.ckpt"]
        assert not list(tmp_path.rglob("*.partial"))

    @staticmethod
    def full():
        raise OSError(28, "No space left on device")


class TestResuming:
    def test_does_the_remaining_steps_and_ends_where_a_straight_run_ends(self, tmp_path):
        straight = toy_trainer(tmp_path / "a", max_num_iterations=20)
        straight.train()
        first = toy_trainer(tmp_path / "b", max_num_iterations=20)
        interrupt_after(first, 8)
        with pytest.raises(SystemExit):
            first.train()
        for load_dir in (first.checkpoint_dir, first.base_dir):
            second = toy_trainer(tmp_path / "c", max_num_iterations=20, load_dir=load_dir)
            assert second._start_step == 8
            second.train()
            assert torch.equal(weights(second), weights(straight))
            assert saved(tmp_path / "c") == ["step-000000019.ckpt"]

    def test_from_a_checkpoint_file(self, tmp_path):
        first = toy_trainer(tmp_path / "a", max_num_iterations=5)
        first.train()
        path = first.checkpoint_dir / "step-000000004.ckpt"
        assert toy_trainer(tmp_path / "b", max_num_iterations=7, load_checkpoint=path)._start_step == 5

    def test_complete_run_says_so_and_changes_nothing(self, tmp_path, capsys):
        first = toy_trainer(tmp_path)
        first.train()
        before = next(tmp_path.rglob("*.ckpt")).stat().st_mtime_ns
        second = toy_trainer(tmp_path, load_dir=first.checkpoint_dir)
        second.train()
        assert "This run is complete: it has done 12 of 12 steps" in capsys.readouterr().out
        assert next(tmp_path.rglob("*.ckpt")).stat().st_mtime_ns == before

    def test_halved_rate_stays_halved(self, tmp_path):
        first = toy_trainer(tmp_path / "a", nan_at=(2,), max_num_iterations=5)
        first.train()
        second = toy_trainer(tmp_path / "b", max_num_iterations=9, load_dir=first.checkpoint_dir)
        assert second.optimizers.schedulers["fields"].base_lrs == [0.005]

    def test_other_model(self, tmp_path):
        first = toy_trainer(tmp_path / "a", max_num_iterations=2)
        first.train()
        with pytest.raises(InputError, match=r"network.0.weight is \(8, 1\) instead of \(16, 1\)"):
            toy_trainer(tmp_path / "b", width=16, load_dir=first.checkpoint_dir)

    def test_other_groups(self, tmp_path):
        first = toy_trainer(tmp_path / "a", max_num_iterations=2)
        first.train()
        path = next((tmp_path / "a").rglob("*.ckpt"))
        state = torch.load(path, weights_only=True)
        state["optimizers"]["critic"] = state["optimizers"]["fields"]
        torch.save(state, path)
        with pytest.raises(InputError, match=r"groups \['critic', 'fields'\]"):
            toy_trainer(tmp_path / "b", load_dir=first.checkpoint_dir)


class TestInterrupt:
    def test_finishes_the_step_saves_and_says_how_to_go_on(self, tmp_path, capsys):
        trainer = toy_trainer(tmp_path)
        interrupt_after(trainer, 6)
        with pytest.raises(SystemExit) as stop:
            trainer.train()
        assert stop.value.code == 130
        state = torch.load(next(tmp_path.rglob("*.ckpt")), weights_only=True)
        assert state["step"] == 5 and state["optimizers"]["fields"]["state"][0]["step"] == 6
        folder = trainer.checkpoint_dir
        assert (
            f"Stopped after step 5 and saved. Go on with:  ns-train toy --load-dir {folder}\n"
            in capsys.readouterr().out
        )

    def test_before_the_first_step_saves_nothing(self, tmp_path, capsys):
        trainer = toy_trainer(tmp_path)
        trainer.pipeline.train = lambda: os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(SystemExit) as stop:
            trainer.train()
        assert stop.value.code == 130 and saved(tmp_path) == []
        assert "nothing to save" in capsys.readouterr().out

    def test_during_setup(self, tmp_path, monkeypatch, capsys):
        trainer = toy_config(tmp_path).setup()
        monkeypatch.setattr(trainer, "_load_checkpoint", lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(SystemExit) as stop:
            trainer.setup()
        assert stop.value.code == 130
        assert "nothing to save" in capsys.readouterr().out

    def test_after_the_end_it_is_no_interruption(self, tmp_path):
        """With the viewer left open, Ctrl-C is the way out."""
        trainer = toy_trainer(tmp_path)
        trainer._train_complete_viewer = lambda: os.kill(os.getpid(), signal.SIGINT)
        trainer.train()
        assert saved(tmp_path) == ["step-000000011.ckpt"]

    @pytest.mark.parametrize("interrupted", [False, True])
    def test_nobody_renders_any_more(self, tmp_path, interrupted):
        """A render thread inside torch would abort the process when the interpreter goes away."""
        trainer, rendering = toy_trainer(tmp_path), Rendering()
        rendering.start()
        if interrupted:
            interrupt_after(trainer, 4)
            with pytest.raises(SystemExit):
                trainer.train()
        else:
            trainer.train()
        assert not rendering.is_alive()

    @pytest.mark.parametrize("handler", [signal.SIG_DFL, lambda number, frame: sys.exit(9)], ids=["none", "a host's"])
    def test_termination_does_the_same(self, tmp_path, capsys, termination_handler, handler):
        signal.signal(signal.SIGTERM, handler)
        trainer = toy_trainer(tmp_path)
        interrupt_after(trainer, 4, signal.SIGTERM)
        with pytest.raises(SystemExit) as stop:
            trainer.train()
        assert stop.value.code == 130 and saved(tmp_path) == ["step-000000003.ckpt"]
        assert "Stopped after step 3 and saved" in capsys.readouterr().out
        assert signal.getsignal(signal.SIGTERM) == handler

    def test_termination_tears_no_step(self, termination_handler):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        done = False
        ended, whole = trainer_module._termination_as_interrupt(1), trainer_module._whole_or_not_at_all()
        with pytest.raises(KeyboardInterrupt), ended, whole:
            os.kill(os.getpid(), signal.SIGTERM)
            done = True
        assert done

    def test_a_second_one_goes_through_at_once(self):
        with pytest.raises(KeyboardInterrupt), trainer_module._whole_or_not_at_all():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second Ctrl-C was swallowed")

    def test_handler_is_given_back(self):
        before = signal.getsignal(signal.SIGINT)
        with trainer_module._whole_or_not_at_all():
            assert signal.getsignal(signal.SIGINT) is not before
        assert signal.getsignal(signal.SIGINT) is before

    def test_command_repeats_what_was_typed(self, tmp_path, monkeypatch):
        trainer = toy_trainer(tmp_path)
        typed = "/bin/ns-train toy --load_dir=old --epochs 9 --load-step 4 video-data --crop 0 1 --data 'my clip.mp4'"
        monkeypatch.setattr(sys, "argv", shlex.split(typed))
        rest = "--epochs 9 video-data --crop 0 1 --data 'my clip.mp4'"
        assert trainer._resume_command() == f"ns-train toy --load-dir {trainer.checkpoint_dir} {rest}"


def test_nerfstudios_launcher_prints_no_traceback_either(tmp_path, monkeypatch, capsys):
    """For a bare Ctrl-C it would."""
    from nerfstudio.scripts.train import launch, train_loop  # loads every registered method, so only here

    setup = trainer_module.ExtTrainer.setup

    def setup_and_interrupt(self, *args):
        setup(self, *args)
        interrupt_after(self, 4)

    monkeypatch.setattr(trainer_module.ExtTrainer, "setup", setup_and_interrupt)
    with pytest.raises(SystemExit) as stop:
        launch(train_loop, 1, config=toy_config(tmp_path), device_type="cpu")
    printed = capsys.readouterr()
    assert stop.value.code == 130 and saved(tmp_path) == ["step-000000003.ckpt"]
    assert "Traceback" not in printed.out + printed.err


def test_evaluates_while_training_and_on_cpu_when_there_is_no_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = toy_config(tmp_path, steps_per_eval_all_images=5, steps_per_eval_image=5, steps_per_eval_batch=5)
    config.machine.device_type = "cuda"
    config.mixed_precision = True
    trainer = config.setup()
    trainer.setup()
    trainer.train()
    assert trainer.device == "cpu" and not trainer.grad_scaler.is_enabled()
    assert trainer.pipeline.model.calls.count("prepare_eval") == 2
    said = capsys.readouterr().out
    assert "No CUDA device here" in said and f"{config.method_name}-tiny is made for a CPU" in said
