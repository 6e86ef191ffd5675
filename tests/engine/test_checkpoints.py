"""Checkpoints are whole or absent, reports name what differs, and moved runs load."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from nerfstudio_ext.engine import checkpoints
from nerfstudio_ext.engine.checkpoints import (
    atomic_save,
    find_checkpoint,
    load_report,
    read_checkpoint,
    relocate_run,
    write_config,
    write_text,
)
from nerfstudio_ext.engine.errors import InputError
from tests.toys import ToyDataManagerConfig, toy_config


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class TestAtomicSave:
    def test_writes_what_torch_reads(self, tmp_path):
        path = tmp_path / "run" / "nerfstudio_models" / "step-000000001.ckpt"
        atomic_save({"step": 1, "x": torch.arange(3)}, path)
        assert torch.load(path, weights_only=True)["step"] == 1
        assert files_below(tmp_path) == ["run/nerfstudio_models/step-000000001.ckpt"]

    def test_nothing_foreign_ever_lies_in_the_checkpoint_folder(self, tmp_path):
        """nerfstudio reads every name in that folder as a step number, also while a save is going on."""
        folder = tmp_path / "nerfstudio_models"
        seen = []

        class Watcher:
            def __reduce__(self):
                seen.append(os.listdir(folder))
                return (int, ())

        atomic_save(Watcher(), folder / "step-000000001.ckpt")
        assert seen == [[]]

    def test_on_a_mount_point_the_parts_read_as_step_zero(self, tmp_path, monkeypatch):
        folder = tmp_path / "nerfstudio_models"
        folder.mkdir()
        real = os.stat

        def stat(path, *args, **kwargs):
            facts = list(real(path, *args, **kwargs))
            facts[2] += Path(path) == folder  # st_dev: another file system
            return os.stat_result(facts)

        monkeypatch.setattr(checkpoints.os, "stat", stat)
        name = checkpoints._staging_beside_folder(folder / "step-000000009.ckpt")
        assert name.parent == folder
        assert int(name.name[name.name.find("-") + 1 : name.name.find(".")]) == 0  # nerfstudio's own parsing

    def test_full_disk_keeps_the_old_file_and_leaves_no_part(self, tmp_path):
        """A real write that the system refuses (file size limit), in a process of its own."""
        path = tmp_path / "nerfstudio_models" / "step-000000002.ckpt"
        atomic_save(torch.zeros(4), path)
        old = path.read_bytes()
        code = (
            "import resource, sys, torch\n"
            "from pathlib import Path\n"
            "from nerfstudio_ext.engine.checkpoints import atomic_save\n"
            "from nerfstudio_ext.engine.errors import InputError\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
            "try:\n"
            "    atomic_save(torch.zeros(1_000_000), Path(sys.argv[1]))\n"
            "except InputError as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
        assert done.stdout.startswith(f"Could not write {path} (File too large): free some space"), done.stderr
        assert path.read_bytes() == old
        assert files_below(tmp_path) == ["nerfstudio_models/step-000000002.ckpt"]

    def test_full_disk_at_the_very_end(self, tmp_path, monkeypatch):
        """Some file systems only report that they are full when the data is forced out."""

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoints.os, "fsync", full)
        with pytest.raises(InputError, match=r"\(No space left on device\)"):
            atomic_save(torch.zeros(4), tmp_path / "models" / "step-000000002.ckpt")
        assert files_below(tmp_path) == []

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "run").touch()
        for write in (atomic_save, write_text):
            with pytest.raises(InputError, match=r"Could not write .*\(Not a directory\).* choose another folder"):
                write("x", tmp_path / "run" / "models" / "a")

    def test_bugs_are_not_taken_for_a_full_disk(self, tmp_path):
        with pytest.raises((TypeError, AttributeError)):
            atomic_save(lambda: None, tmp_path / "models" / "step-000000002.ckpt")
        assert files_below(tmp_path) == []

    def test_text_too(self, tmp_path):
        path = tmp_path / "config.yml"
        path.write_text("old")
        previous = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, previous[1]))
        try:
            with pytest.raises(InputError, match="File too large"):
                write_text("x" * 5000, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, previous)
        assert path.read_text() == "old" and files_below(tmp_path) == ["config.yml"]


class TestFindAndRead:
    @pytest.fixture
    def run(self, tmp_path):
        for step in (9, 10):
            atomic_save({"step": step, "pipeline": {}}, tmp_path / "nerfstudio_models" / f"step-{step:09d}.ckpt")
        (tmp_path / "nerfstudio_models" / "codebook.pt").touch()  # a stray file that would stop nerfstudio
        return tmp_path

    def test_run_folder_and_checkpoint_folder(self, run):
        for folder in (run, run / "nerfstudio_models"):
            assert read_checkpoint(find_checkpoint(folder))["step"] == 10
            assert read_checkpoint(find_checkpoint(folder, step=9))["step"] == 9

    def test_says_which_steps_there_are(self, run):
        with pytest.raises(InputError, match="no checkpoint of step 11; it has 9, 10"):
            find_checkpoint(run, step=11)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(InputError, match="No checkpoint"):
            find_checkpoint(tmp_path / "nowhere")
        with pytest.raises(InputError, match="There is no checkpoint"):
            read_checkpoint(tmp_path / "no.ckpt")

    def test_damaged(self, run):
        path = find_checkpoint(run)
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(InputError, match="cannot be read"):
            read_checkpoint(path)

    def test_foreign(self, tmp_path):
        torch.save({"epoch": 3}, tmp_path / "a.ckpt")
        with pytest.raises(InputError, match="not a checkpoint of nerfstudio"):
            read_checkpoint(tmp_path / "a.ckpt")


def test_load_report_names_all_three_kinds():
    wanted = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    report = load_report(wanted, {"a": torch.zeros(2), "b": torch.zeros(4), "d": torch.zeros(1)})
    assert report and (report.missing, report.unexpected, report.mismatched) == (("c",), ("d",), ("b",))
    assert str(report) == "1 missing (c); 1 unexpected (d); 1 of another shape (b is (4,) instead of (3,))"
    assert not load_report(wanted, wanted)


def test_load_report_stays_short():
    report = load_report({f"layer{index}": torch.zeros(1) for index in range(30)}, {})
    assert str(report).endswith("layer7 and 22 more)")


class TestRelocateRun:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        """A run made with relative paths in one place, with the data beside it."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "clip.mp4").touch()
        config = toy_config(Path("outputs"))
        config.data = config.pipeline.datamanager.data = Path("clip.mp4")
        write_config(config, self.made(config.get_base_dir()) / "config.yml")
        atomic_save({"step": 1, "pipeline": {}}, config.get_checkpoint_dir() / "step-000000001.ckpt")
        return tmp_path / config.get_base_dir()

    @staticmethod
    def made(folder):
        folder.mkdir(parents=True)
        return folder

    @staticmethod
    def load(path):
        """As nerfstudio loads it."""
        return yaml.load(path.read_text(), Loader=yaml.Loader)

    def check(self, run, config_path):
        os.chdir("/")  # monkeypatch.chdir of the fixture takes us back
        config = self.load(config_path)
        assert config_path == run / "config.yml"
        assert find_checkpoint(config.get_checkpoint_dir()).name == "step-000000001.ckpt"
        assert (config.get_base_dir() / "config.yml").samefile(config_path)
        assert config.get_checkpoint_dir().is_absolute() and config.method_name == "toy"
        return config

    def test_in_place(self, run):
        config = self.check(run, relocate_run(run))
        assert config.pipeline.datamanager.data == config.data == run.parents[3] / "clip.mp4"
        assert isinstance(config.pipeline.datamanager, ToyDataManagerConfig) and config.timestamp == "run"

    def test_everything_else_is_untouched(self, run):
        before = self.load(run / "config.yml")
        after = self.check(run, relocate_run(run / "config.yml"))
        after.output_dir, after.relative_model_dir = before.output_dir, before.relative_model_dir
        after.data = after.pipeline.datamanager.data = before.data
        assert after == before

    def test_whole_outputs_folder_moved(self, run, tmp_path):
        moved = tmp_path / "archive" / "2026"
        shutil.move(tmp_path / "outputs", self.made(moved))
        place = moved / "outputs" / run.relative_to(tmp_path / "outputs")
        assert self.check(place, relocate_run(place)).experiment_name == "clip"

    def test_run_folder_alone_moved_under_another_name(self, run, tmp_path):
        place = tmp_path / "my best run"
        shutil.move(run, place)
        assert self.check(place, relocate_run(place)).experiment_name == "my best run"
        # Once more, as after a second move.
        again = tmp_path / "again"
        shutil.move(place, again)
        self.check(again, relocate_run(again))

    def test_new_data(self, run, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        config = self.check(run, relocate_run(run, data=Path("elsewhere")))
        assert config.data == config.pipeline.datamanager.data == tmp_path / "elsewhere"

    def test_data_that_is_gone_stays_as_it_was(self, run, tmp_path):
        (tmp_path / "clip.mp4").unlink()
        assert self.check(run, relocate_run(run)).data == Path("clip.mp4")

    def test_mistakes(self, run, tmp_path):
        with pytest.raises(InputError, match=r"has no config\.yml"):
            relocate_run(tmp_path)
        with pytest.raises(InputError, match="no data at"):
            relocate_run(run, data=tmp_path / "no.mp4")
        shutil.rmtree(run / "nerfstudio_models")
        with pytest.raises(InputError, match="No checkpoint"):
            relocate_run(run)
