"""`ns-ext human refine-cameras`: a weak calibration made better by the person that the cameras filmed."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, List, Literal, Optional, Sequence, Tuple

import tyro

if TYPE_CHECKING:
    from nerfstudio_ext.human.capture import CaptureCamera, Size


@dataclass
class RefineCameras:
    """Refine a weak calibration by the 2-D key points of a person who moves: where cameras stand and look, not their
    lenses. Every fifth stretch of frames is held out and tells whether it has become better."""

    calibration: Annotated[Path, tyro.conf.Positional]
    """What to refine: an annots.npy, EasyMocap's intri.yml with its extri.yml, a .toml of Pose2Sim, Anipose or
    Caliscope, a .qca.txt of Qualisys, or the folder of a capture."""
    output: Annotated[Path, tyro.conf.Positional]
    """Folder for intri.yml and extri.yml, which 'human masks --calibration' reads, cameras.jpg, which shows a moment,
    and of a capture its file with the new cameras; must be empty or new."""
    keypoints: Path
    """2-D key points of every frame of the videos, as for 'human fit': an .npz with kpts2d, or a folder with one entry
    per camera, in the order of the calibration."""
    skeleton: Optional[Literal["coco17", "body25", "body25b", "halpe26"]] = None
    """Order of the joints; none: by their number, where only one has it."""
    keypoint_scale: float = 1.0
    """Sides of the pictures that the calibration is for over sides of those that the key points were found in."""
    size: Optional[Tuple[int, int]] = None
    """Width and height of the pictures that the calibration is for; none: what it says itself."""
    begin: int = 0
    """First frame of the key points."""
    frames: Optional[int] = None
    """How many frames; none: to the end."""
    step: int = 1
    """Take every so-manieth frame."""
    focal: bool = False
    """Refine the focal lengths, too, of each camera by one factor."""
    videos: Tuple[Path, ...] = ()
    """One video (or folder of frames) per camera, on which cameras.jpg is drawn; none: on grey."""
    translation_unit: Literal["mm", "m"] = "mm"
    """Unit of T in an annots.npy; in other files it is told from its size."""

    def main(self) -> None:
        from nerfstudio_ext.cli.folders import drafted, require_empty
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.export.refined_calibration import write_capture_file, write_sheet
        from nerfstudio_ext.human.camera_files import write_easymocap
        from nerfstudio_ext.human.camera_refinement import refine
        from nerfstudio_ext.human.keypoints import Keypoints2D, read_keypoints
        from nerfstudio_ext.video.reader import open_source

        require_empty(self.output)
        names, cameras = self._cameras()
        if self.videos and len(self.videos) != len(cameras):
            raise InputError(f"There are {len(self.videos)} videos and {len(cameras)} cameras: one each, or none.")
        videos = [open_source(video.expanduser()) for video in self.videos]
        size = self._size(names, cameras)
        found = read_keypoints(self.keypoints.expanduser(), self.skeleton).scaled(self.keypoint_scale)
        numbers = list(range(self.begin, len(found.values), self.step)) if self.begin >= 0 and self.step > 0 else []
        if not numbers or not 0 < (len(numbers) if self.frames is None else self.frames) <= len(numbers):
            raise InputError(f"{self.keypoints} has {len(found.values)} frames, too few for --begin {self.begin} "
                             f"--frames {self.frames} --step {self.step}.")  # fmt: skip
        numbers = numbers[: self.frames]
        keypoints = Keypoints2D(found.values[numbers], found.names)
        refined = refine(keypoints, cameras, names, max(size), self.focal, str(self.keypoints))
        with drafted(self.output) as draft:
            write_easymocap(draft, names, refined.cameras)
            again = write_capture_file(draft, self.calibration.expanduser(), refined.cameras, self.translation_unit)
            shown = write_sheet(draft / "cameras.jpg", refined, keypoints, numbers, size, videos)
        old, new = refined.held_out_error()
        print(f"pixels between detected and reprojected joints, all detections counted:\n{refined.report(names)}")
        print(f"{refined.held_out.sum()} of {len(numbers)} frames were held out: median {old:.1f} -> {new:.1f} pixels, "
              f"{old / max(size):.2%} -> {new / max(size):.2%} of the longer side")  # fmt: skip
        print(f"frame {shown}, detected, before (pink), refined (blue): {self.output / 'cameras.jpg'}")
        if again is not None:
            print(f"the capture's {again.name} with the new cameras: {self.output / again.name}")
        films = [str(video) for video in self.videos] or ["VIDEOS"]
        options = ["--calibration", self.output / "intri.yml", "--size", *size, "--keypoints", self.keypoints]
        options += ["--keypoint-scale", f"{self.keypoint_scale:g}"] if self.keypoint_scale != 1 else []
        command = ["ns-ext", "human", "masks", *films, *map(str, options), "--output", "person"]
        print(f"take pictures with it:  {shlex.join(command)}")

    def _cameras(self) -> Tuple[List[str], List["CaptureCamera"]]:
        """Names and calibrations."""
        from nerfstudio_ext.human.camera_files import read_cameras
        from nerfstudio_ext.human.neutral_layout import TRANSFORMS, open_layout

        path = self.calibration.expanduser()
        if (path / TRANSFORMS).is_file() and not (path / "annots.npy").is_file():
            cameras = open_layout(path).cameras
            return [f"camera_{k}" for k in range(len(cameras))], cameras
        return read_cameras(path, self.translation_unit)

    def _size(self, names: Sequence[str], cameras: Sequence["CaptureCamera"]) -> "Size":
        """Of the pictures.

        Raises:
            InputError: Nothing tells it, or the calibration is for another one.
        """
        from nerfstudio_ext.engine.errors import InputError

        known = {camera.size for camera in cameras}
        size = self.size or (known.pop() if len(known) == 1 else None)
        if size is None:
            raise InputError(f"{self.calibration} does not say one size of pictures for all its cameras: give it with "
                             "--size WIDTH HEIGHT.")  # fmt: skip
        for name, camera in zip(names, cameras):
            camera.require_fitting(f"camera {name}", size, "give the size that it was made for with --size")
        return size
