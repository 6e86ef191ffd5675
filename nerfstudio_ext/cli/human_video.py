"""`ns-ext human masks` and `snapshot`: from videos to a capture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Optional, Tuple

import tyro


@dataclass
class Masks:
    """Take pictures from the videos of cameras that stand still, and find the person in them: what differs from the
    background of the whole clip. Written in the layout of ZJU-MoCap, with a sheet per camera to look at."""

    videos: Annotated[Tuple[Path, ...], tyro.conf.Positional]
    """One video (or folder of frames) per camera, all from the same moment on."""
    output: Path
    """Folder to write; must be empty or new."""
    calibration: Optional[Path] = None
    """The cameras, in the order of the videos: an annots.npy, EasyMocap's intri.yml with its extri.yml, a .toml of
    Pose2Sim, Anipose or Caliscope, or a .qca.txt of Qualisys; none: annots.npy is not written."""
    size: Optional[Tuple[int, int]] = None
    """Width and height that the calibration was made for: pictures are scaled to cover it and cut about the middle;
    none: that of the videos."""
    begin: int = 0
    """First frame."""
    frames: Optional[int] = None
    """How many frames; none: to the end of the shortest video."""
    step: int = 1
    """Take every so-manieth frame."""
    keypoints: Optional[Path] = None
    """2-D key points of every frame of the videos (as for 'human fit'). Without them the person must leave every place
    for half of the clip, or turns into background there."""
    skeleton: Optional[Literal["coco17", "body25", "body25b", "halpe26"]] = None
    """Order of the joints; none: by their number, where only one has it."""
    keypoint_scale: float = 1.0
    """Sides of the written pictures over sides of those that the key points were found in."""
    strictness: float = 5.0
    """Standard deviations of the background's noise that are no difference yet."""
    translation_unit: Literal["mm", "m"] = "mm"
    """Unit of T in an annots.npy; in other files it is told from its size."""

    def main(self) -> None:
        from nerfstudio_ext.cli.folders import drafted, require_empty
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.export.video_capture import Selection, write_video_capture
        from nerfstudio_ext.human.camera_files import read_cameras
        from nerfstudio_ext.human.keypoints import read_keypoints

        require_empty(self.output)
        if not self.videos:
            raise InputError("Name the videos, one per camera.")
        cameras = None
        if self.calibration is not None:
            names, cameras = read_cameras(self.calibration.expanduser(), self.translation_unit)
            stems = [video.stem for video in self.videos]
            if set(stems) == set(names) and stems != names:
                raise InputError(
                    f"The videos come as {', '.join(stems)}, but {self.calibration} has its cameras as "
                    f"{', '.join(names)}: name the videos in that order."
                )
            print(f"calibration: {', '.join(f'{name} for {v.name}' for name, v in zip(names, self.videos))}")
        keypoints = None
        if self.keypoints is not None:
            keypoints = read_keypoints(self.keypoints.expanduser(), self.skeleton).scaled(self.keypoint_scale)
        selection = Selection(self.begin, self.frames, self.step, self.size)
        with drafted(self.output) as draft:
            lines = write_video_capture(self.videos, draft, selection, self.strictness, keypoints, cameras)
        print("\n".join(lines))
        print(f"look at: {self.output / 'sheets'}")
        if cameras is None:
            print(f"without --calibration there is no annots.npy: {self.output} holds pictures and masks alone")
        elif keypoints is not None:
            print(f"fit a body with:  ns-ext human fit {self.output} body.npz{self._with_skeleton()}")

    def _with_skeleton(self) -> str:
        return "" if self.skeleton is None else f" --skeleton {self.skeleton}"


@dataclass
class Snapshot:
    """Write a subject of People-Snapshot (one camera, a person who turns) in the layout of ZJU-MoCap, with a body.npz
    made of its poses and the user's own licensed body file."""

    subject: Annotated[Path, tyro.conf.Positional]
    """Folder with the video, camera.pkl, masks.hdf5 and reconstructed_poses.hdf5."""
    model: Annotated[Path, tyro.conf.Positional]
    """The body: SMPL's .npz or .pkl as its makers give it."""
    output: Annotated[Path, tyro.conf.Positional]
    """Folder to write; must be empty or new."""
    begin: int = 0
    """First frame."""
    frames: Optional[int] = None
    """How many frames; none: to the end."""
    step: int = 1
    """Take every so-manieth frame."""

    def main(self) -> None:
        from nerfstudio_ext.cli.folders import drafted, require_empty
        from nerfstudio_ext.export.video_capture import Selection, write_snapshot
        from nerfstudio_ext.human.people_snapshot import read_snapshot
        from nerfstudio_ext.human.smpl_body import read_smpl

        require_empty(self.output)
        snapshot, body = read_snapshot(self.subject), read_smpl(self.model)
        with drafted(self.output) as draft:
            count = write_snapshot(snapshot, body, draft, Selection(self.begin, self.frames, self.step))
        print(f"{count} pictures and a body of {len(body.template)} vertices: {self.output}")
        print(f"train on it with:  ns-train neural-body-tiny zju-mocap-data --data {self.output} --body "
              f"{self.output / 'body.npz'}")  # fmt: skip
