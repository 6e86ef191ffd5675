"""`ns-ext human ...`: captures of a moving person, from drawn ones to fitted bodies and new poses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union, cast

import tyro

from nerfstudio_ext.cli.keypoint_options import KeypointOptions


@dataclass
class Make:
    """Draw a person in motion and write it in the layout of ZJU-MoCap, with exact masks, vertices and key points."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Where to write; must be empty or new."""
    frames: int = 8
    """Frames of the motion."""
    cameras: int = 6
    """Cameras on the ring."""
    size: int = 128
    """Width and height of the pictures in pixels."""
    turn: float = 120.0
    """Degrees that the person turns over the motion."""
    gain: float = 0.0
    """Every frame's colours are multiplied by a number of its own within 1 +- gain, as exposure wanders."""
    loose: bool = False
    """The person wears a skirt that does not follow the skeleton."""
    naming: Literal["numbers", "long"] = "numbers"
    """How pictures are called: 000000.jpg, or as for the subjects 313 and 315."""

    def main(self) -> None:
        from nerfstudio_ext.cli.folders import require_empty
        from nerfstudio_ext.export.human_scene import write_human_scene
        from nerfstudio_ext.procedural.human import HumanSceneOptions, human_scene

        require_empty(self.folder)
        scene = human_scene(HumanSceneOptions(self.frames, self.cameras, self.size, self.turn, self.gain, self.loose))
        write_human_scene(scene, self.folder, self.naming)
        print(f"{self.frames} frames from {self.cameras} cameras: {self.folder}")
        body = self.folder / "body.npz"
        print(f"train on it with:  ns-train neural-body-tiny zju-mocap-data --data {self.folder} --body {body}")


@dataclass
class Check:
    """Lay the body over the pictures of a capture and say how well it agrees with the masks."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder in the layout of ZJU-MoCap or in the neutral one."""
    output: Optional[Path] = None
    """Folder for one overlay per camera; none: check/ in the working directory."""
    body: Optional[Path] = None
    """A body.npz for all frames; none: the folder's own fit."""
    fit: Literal["auto", "new", "first"] = "auto"
    """Which of the folder's fits."""
    frames: int = 6
    """How many frames to look at, evenly over the capture."""
    translation_unit: Literal["mm", "m"] = "mm"
    """Unit of T in annots.npy."""

    def main(self) -> int:
        from nerfstudio_ext.export.capture_report import write_report
        from nerfstudio_ext.human.neutral_layout import open_layout
        from nerfstudio_ext.human.zju_layout import capture_body

        layout = open_layout(self.data.expanduser(), self.translation_unit)
        motion = capture_body(layout, self.body, self.fit, range(len(layout.pictures)))
        output = self.output or Path("check")
        text, fits = write_report(layout, motion, output, self.frames)
        print(text)
        print(f"overlays: {output}")
        return 0 if fits else 1


@dataclass
class Fit(KeypointOptions):
    """Fit the free body model to a capture: triangulate 2-D key points, fit a build and a pose per frame, show it."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder in the layout of ZJU-MoCap or in the neutral one; a fitted body is not needed."""
    output: Annotated[Path, tyro.conf.Positional]
    """The body.npz to write; overlays go into a folder beside it."""
    weight: Optional[float] = None
    """How heavy the person is, 0 to 1; none: what agrees best with the masks, where there are any."""

    def main(self) -> None:
        import numpy as np

        from nerfstudio_ext.cli.folders import require_writable
        from nerfstudio_ext.export.capture_report import write_report
        from nerfstudio_ext.human.body_motion import write_body
        from nerfstudio_ext.human.capture import CapturedScene
        from nerfstudio_ext.human.fit import fill_out, fit_body
        from nerfstudio_ext.human.neutral_layout import open_layout

        require_writable(self.output, ".npz")
        layout = open_layout(self.data.expanduser(), self.translation_unit)
        joints = self.triangulated(layout)
        fitted = fit_body(joints, {} if self.weight is None else {"weight": self.weight}, self.steps)
        if self.weight is None and layout.has_masks():
            frames = np.unique(np.linspace(0, len(layout.pictures) - 1, 4).round().astype(int)).tolist()
            files, masks = layout.files(), layout.masks()
            scene = CapturedScene(layout.cameras, [files[f] for f in frames], [masks[f] for f in frames], 320)
            views = [[scene.view(k, c).mask for c in range(len(scene.cameras))] for k in range(len(frames))]
            fitted = fill_out(fitted, joints, scene.cameras, views, frames)
        print(f"body: {fitted.report()}")
        write_body(fitted.motion, self.output)
        text, _ = write_report(layout, fitted.motion, self.output.with_suffix(""), 6)
        print(f"{text}\nbody: {self.output}; overlays: {self.output.with_suffix('')}")
        parser = "zju-mocap-data" if (self.data.expanduser() / "annots.npy").is_file() else "multiview-human-data"
        print(f"train on it with:  ns-train neural-body-tiny {parser} --data {self.data} --body {self.output}")


@dataclass(kw_only=True)
class FilmOptions:
    """What films around a person have in common."""

    pictures: int = 48
    """How many pictures."""
    size: int = 384
    """Width and height in pixels."""
    fps: float = 12.0
    """Pictures per second."""
    turns: float = 1.0
    """Full circles."""
    freeze: Optional[int] = None
    """Stay in this frame of the motion; none: the motion plays once."""
    output_name: str = "rgb"
    """Which output of the model to show: rgb, accumulation, depth; of neural-body also body (the vertices over the
    picture), of keypoint-nerf sources (which photo each colour is from)."""


@dataclass
class Orbit(FilmOptions):
    """Film a trained person from a camera that walks around it, while its motion plays."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or its config.yml."""
    output: Annotated[Path, tyro.conf.Positional]
    """The video (.mp4), which replaces an old one; twelve of its pictures go beside it as NAME_sheet.png."""

    def main(self) -> None:
        _film(self, None)


@dataclass
class Repose(FilmOptions):
    """Film a trained person in poses that it was never seen in, from a camera that walks around it."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or its config.yml."""
    motion: Annotated[Path, tyro.conf.Positional]
    """A body.npz of the same body model in other poses."""
    output: Annotated[Path, tyro.conf.Positional]
    """The video (.mp4), which replaces an old one; twelve of its pictures go beside it as NAME_sheet.png."""

    def main(self) -> None:
        _film(self, self.motion)


@dataclass
class Meshes:
    """Write the surface of a trained person as one mesh per frame, with vertex colours, in metres."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or its config.yml."""
    folder: Annotated[Path, tyro.conf.Positional]
    """Where to write frame_0000.ply and so on."""
    motion: Optional[Path] = None
    """A body.npz with new poses; none: the captured ones."""
    step: int = 1
    """Write every so-manieth frame."""
    kind: Literal["ply", "glb", "obj"] = "ply"
    """Form of the files."""
    resolution: int = 160
    """Grid points along each side of the cube around the body."""
    level: float = 10.0
    """Density on the surface, per metre."""

    def main(self) -> None:
        from nerfstudio_ext.export.body_mesh import body_mesh
        from nerfstudio_ext.export.mesh_file import write_mesh

        model = _open(self.run, self.motion).model.eval()
        for number in range(0, model.num_frames, max(1, self.step)):
            path = self.folder / f"frame_{number:04d}.{self.kind}"
            mesh = body_mesh(model, number, self.resolution, self.level)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_mesh(mesh, path)
            print(f"{path}: {len(mesh.verts):,} vertices, {len(mesh.faces):,} faces", flush=True)


@dataclass
class Smpl:
    """Make a body.npz from fitted parameters of the SMPL family and the user's own licensed body file."""

    model: Annotated[Path, tyro.conf.Positional]
    """The body: .npz or .pkl as its makers give it."""
    params: Annotated[Path, tyro.conf.Positional]
    """Folder of one file per frame: ZJU-MoCap's params/ (.npy) or EasyMocap's smpl/ (.json); or one .npz of a whole
    motion with poses, trans and betas, as of AMASS."""
    output: Annotated[Path, tyro.conf.Positional]
    """The body.npz to write."""
    blend_shapes: bool = True
    """Bend the surface with the pose; ZJU-MoCap's first fit (params, not new_params) was made without."""
    convention: Optional[Literal["easymocap", "smpl"]] = None
    """What Rh and Th are: a turn about the origin and a shift (easymocap, and ZJU-MoCap), or global_orient and transl
    of SMPL's makers, a turn about the pelvis (smpl); none: smpl for an .npz, easymocap for a folder."""
    fps: Optional[float] = None
    """Of an .npz that says its frame rate, so many frames per second; none: all of them."""

    def main(self) -> None:
        import numpy as np

        from nerfstudio_ext.cli.folders import require_other, require_writable
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.human.body_motion import write_body
        from nerfstudio_ext.human.smpl_body import easymocap_motion, from_smplx, read_smpl
        from nerfstudio_ext.human.smpl_params import read_motion, read_params

        require_writable(self.output, ".npz")
        require_other(self.output, self.model)
        require_other(self.output, self.params)
        one = self.params.suffix == ".npz"
        if self.fps is not None and not one:
            raise InputError(f"--fps {self.fps:g} is for one .npz of a whole motion, which {self.params} is not.")
        params = read_motion(self.params, self.fps) if one else read_params(self.params)
        body = read_smpl(self.model)
        root, shift = params.root_rotation, params.root_translation
        if (self.convention or ("smpl" if one else "easymocap")) == "smpl":
            root, shift = from_smplx(body, params.betas, root, shift)
        motion = easymocap_motion(body, params.poses, params.betas, root, shift,
                                  self.blend_shapes, params.expressions).check(str(self.params))  # fmt: skip
        write_body(motion, self.output, frame_ids=np.asarray(params.numbers))
        print(f"{len(motion.vertices)} frames of {motion.vertices.shape[1]} vertices: {self.output}")
        if params.gender is not None:
            print(f"{self.params} says that its parameters are for the body of gender '{params.gender}'")


@dataclass
class Walk:
    """Write a walk with hanging arms for a person that was drawn or fitted here, to repose a trained run with."""

    like: Annotated[Path, tyro.conf.Positional]
    """Whose build and place it takes: the folder of a trained run, or a body.npz."""
    output: Annotated[Path, tyro.conf.Positional]
    """The body.npz to write."""
    frames: int = 24
    """Frames of two steps."""
    turn: float = 0.0
    """Degrees that the person turns."""

    def main(self) -> None:
        from nerfstudio_ext.cli.folders import require_other, require_writable
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.human.body_motion import read_body, write_body
        from nerfstudio_ext.procedural.new_poses import walk_like

        require_writable(self.output, ".npz")
        require_other(self.output, self.like)
        if self.frames < 1:
            raise InputError(f"--frames {self.frames}: a walk has one frame at least.")
        from_file = self.like.suffix == ".npz"
        like = read_body(self.like) if from_file else _open(self.like, None).model.motion
        motion = walk_like(like, str(self.like), self.frames, self.turn).check("The walk")
        write_body(motion, self.output)
        print(f"{self.frames} frames: {self.output}")
        run = "RUN" if from_file else self.like
        print(f"show it with:  ns-ext human repose {run} {self.output} reposed.mp4")


def _open(run: Path, motion: Optional[Path]) -> Any:
    """Pipeline of a trained run, in the poses of a motion where one is given."""
    from nerfstudio_ext.engine.errors import InputError
    from nerfstudio_ext.engine.runs import open_run
    from nerfstudio_ext.human.body_motion import read_body

    poses = None if motion is None else read_body(motion)
    config, pipeline = open_run(run)
    if not hasattr(pipeline.model, "set_motion"):
        raise InputError(f"{run} was trained with {config.method_name}, which knows no body to pose.")
    if poses is not None:
        cast(Any, pipeline.model).set_motion(poses)
    return pipeline


def _film(command: Union[Orbit, Repose], motion: Optional[Path]) -> None:
    from nerfstudio_ext.engine.errors import InputError
    from nerfstudio_ext.export.turntable import film, orbit
    from nerfstudio_ext.export.video import sheet_path

    pipeline = _open(command.run, motion)
    model = pipeline.model.eval()
    if command.freeze is not None and not 0 <= command.freeze < model.num_frames:
        raise InputError(f"--freeze {command.freeze} is none of the {model.num_frames} frames, counted from 0.")
    captured = pipeline.datamanager.train_dataset.cameras
    cameras = orbit(model.motion, captured, command.pictures, command.size, command.turns, command.freeze)
    count = film(model, cameras, command.output_name, command.output, command.fps)
    print(f"{count} pictures: {command.output}, and some of them: {sheet_path(command.output)}")
