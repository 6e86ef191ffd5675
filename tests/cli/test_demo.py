"""The demo of a video method, of a surface method and of a moving person.

Their commands are called in this process: starting six programs would take minutes.
"""

import shlex
import sys
from importlib.metadata import entry_points
from typing import List

import av
import pytest

from nerfstudio_ext.cli import demo
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.human_scene import write_human_scene
from nerfstudio_ext.export.object_scene import write_object_scene
from nerfstudio_ext.procedural.human import HumanSceneOptions, human_scene
from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """Run the demo's commands here; returns the programs as they come."""
    programs = {point.name: point for point in entry_points(group="console_scripts")}
    ran: List[str] = []

    def run(command: List[str]) -> None:
        ran.append(shlex.join(command))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command)
            try:
                programs[command[0]].load()()
            except SystemExit as end:
                assert not end.code, f"{shlex.join(command)} ended with {end.code}"

    monkeypatch.setattr(demo, "run_command", run)
    return ran


def test_demo_ends_with_a_decoded_file(here, make_clip, tmp_path, capsys):
    demo.Demo("hnerv-tiny", make_clip(frames=4), steps=4, compress_epochs=1, output_dir=tmp_path / "out").main()
    assert [command.split()[0] for command in here] == ["ns-train", "ns-eval", *["ns-ext"] * 4]
    printed = capsys.readouterr().out
    renders = next((tmp_path / "out" / "clip" / "hnerv-tiny").glob("*/renders"))
    for name in ("clip.mp4", "clip_sheet.png", "clip.bnrv", "clip_from_bnrv.mp4"):
        assert (renders / name).stat().st_size > 0
    assert "psnr" in printed and str(renders / "clip_sheet.png") in printed
    size = next(line for line in printed.splitlines() if ".bnrv file" in line)
    assert str((renders / "clip.bnrv").stat().st_size) in size and "dB" in size


def test_demo_of_a_scene_ends_with_a_mesh(here, monkeypatch, tmp_path, capsys):
    """Data of the user's own, which another dataparser than the method's default reads; a small mesh, to save time."""
    data, whole = tmp_path / "ball", demo.run_command
    write_object_scene(ObjectScene(ObjectSceneOptions("spheres", num_views=10, size=16)), data)
    small = ["--resolution", "32"]
    monkeypatch.setattr(
        demo, "run_command", lambda c: whole([*c, *small] if c[:3] == ["ns-ext", "export", "mesh"] else c)
    )
    demo.Demo("coco-inr-tiny", data, "idr-data", steps=2, output_dir=tmp_path / "out").main()
    assert [command.split()[0] for command in here] == ["ns-train", "ns-eval", "ns-render", "ns-ext"]
    run = next((tmp_path / "out" / "scene" / "coco-inr-tiny").glob("*"))
    for name in ("metrics.json", "mesh.ply", "renders/orbit.mp4"):
        assert (run / name).stat().st_size > 0, name
    assert "psnr_masked" in capsys.readouterr().out


def test_unknown_method_is_refused(here):
    with pytest.raises(InputError, match="no method nerf-of-tomorrow"):
        demo.Demo("nerf-of-tomorrow").main()
    assert not here


@pytest.mark.extra("anny")
@pytest.mark.extra("embreex")
@pytest.mark.slow
def test_demo_of_a_person_shows_it_in_motion(here, monkeypatch, tmp_path):
    """From a camera that is made to stand still, what differs between two pictures is the pose."""
    data, whole = tmp_path / "person", demo.run_command
    write_human_scene(human_scene(HumanSceneOptions(frames=2, cameras=3, size=16)), data)
    more = {
        "orbit": ["--turns", "0", "--pictures", "4", "--size", "48", "--output-name", "body"],
        "mesh": ["--resolution", "16", "--level", "0.01"],
    }
    monkeypatch.setattr(demo, "run_command", lambda c: whole([*c, *(more.get(c[2], []) if c[0] == "ns-ext" else [])]))
    demo.Demo("neural-body-tiny", data, "zju-mocap-data", steps=2, output_dir=tmp_path / "out").main()
    assert [command.split()[0] for command in here] == ["ns-train", "ns-eval", "ns-ext", "ns-ext"]
    run = next((tmp_path / "out" / "scene" / "neural-body-tiny").glob("*"))
    with av.open(str(run / "renders" / "orbit.mp4")) as film:
        first, again, middle, _ = [frame.to_ndarray(format="gray").astype(int) for frame in film.decode(video=0)]
    changed = [float((abs(other - first) > 40).mean()) for other in (again, middle)]
    assert changed[0] < 0.005 < 0.02 < changed[1]
    assert (run / "mesh.ply").stat().st_size > 0
