"""`ns-ext keypoints photos`: from a recording with 2-D key points to photographs with 3-D ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Optional, Tuple

import tyro

from nerfstudio_ext.cli.human import FilmOptions


@dataclass
class Photos:
    """Cut photos with masks, cameras and 3-D keypoints out of a recording, for ns-ext keypoints condition.

    2-D key points are triangulated and the free body model is fitted to them: its joints are the keypoints.
    """

    data: Annotated[Path, tyro.conf.Positional]
    """Folder in the layout of ZJU-MoCap: annots.npy, pictures and masks; a fitted body is not needed."""
    folder: Annotated[Path, tyro.conf.Positional]
    """Where to write; must be empty or new."""
    frames: Tuple[int, ...] = (0,)
    """Frames of the recording, counted from 0; of several, each becomes a folder of its own: a moment."""
    keypoints: Optional[Path] = None
    """An .npz with kpts2d, or a folder with one entry per camera (OpenPose, COCO, MMPose); none: those in
    annots.npy."""
    skeleton: Optional[Literal["coco17", "body25", "body25b", "halpe26"]] = None
    """Order of the joints; none: by their number, where only one has it."""
    keypoint_scale: float = 1.0
    """Sides of the recording's pictures over sides of those that the key points were found in."""
    keypoint_begin: int = 0
    """Frame of the key points that the recording's first frame is."""
    keypoint_step: int = 1
    """Frames of the key points from one frame of the recording to the next."""
    threshold: Optional[float] = None
    """Largest reprojection error in pixels of a detection that is believed; none: 2% of the picture's longer side."""
    steps: int = 300
    """Steps of the fit."""
    translation_unit: Literal["mm", "m"] = "mm"
    """Unit of T in annots.npy."""

    def main(self) -> None:
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.export.person_photos import write_moment
        from nerfstudio_ext.human.capture import CapturedScene, picture_size
        from nerfstudio_ext.human.capture_keypoints import capture_keypoints
        from nerfstudio_ext.human.fit import fit_body
        from nerfstudio_ext.human.triangulation import triangulate
        from nerfstudio_ext.human.zju_layout import read_layout
        from nerfstudio_ext.procedural.person import BODY_KEYPOINTS

        if self.folder.exists() and any(self.folder.iterdir()):
            raise InputError(f"{self.folder} is not empty: name a new folder.")
        layout = read_layout(self.data.expanduser(), self.translation_unit)
        count = len(layout.pictures)
        if wrong := [frame for frame in self.frames if not 0 <= frame < count]:
            raise InputError(f"--frames {wrong[0]} is none of the {count} frames of {self.data}, counted from 0.")
        files, masks = layout.files(), layout.masks()
        found = capture_keypoints(layout, self.keypoints, self.skeleton, self.keypoint_scale, self.keypoint_begin,
                                  self.keypoint_step)  # fmt: skip
        size = picture_size(files[0][0])
        joints = triangulate(found, layout.cameras, self.threshold or 0.02 * max(size))
        print(f"key points: {joints.report()}")
        fitted = fit_body(joints, {}, self.steps)
        print(f"body: {fitted.report()}")
        points = fitted.joints(list(BODY_KEYPOINTS.values()))
        scene = CapturedScene(layout.cameras, files, masks, 10 * max(size))
        for frame in self.frames:
            folder = self.folder if len(self.frames) == 1 else self.folder / f"{layout.numbers[frame]:06d}"
            write_moment(scene, frame, points[frame], tuple(BODY_KEYPOINTS), folder)
        written = "a folder for each moment" if len(self.frames) > 1 else "overlay.jpg shows the keypoints"
        print(f"{len(self.frames)} x {len(layout.cameras)} photos: {self.folder} ({written})")
        print(f"look at new views of them with:  ns-ext keypoints condition default --photos {self.folder}")


@dataclass
class Orbit(FilmOptions):
    """Film a person of photos from a camera that walks around; moments pass in time, each made from its own photos."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder that ns-ext keypoints condition wrote, or its config.yml."""
    output: Annotated[Path, tyro.conf.Positional]
    """The video (.mp4); twelve of its pictures go beside it as a .png."""

    def main(self) -> None:
        import torch

        from nerfstudio_ext.data.people import PeopleDataset
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.engine.runs import open_run
        from nerfstudio_ext.export.turntable import film, orbit
        from nerfstudio_ext.human.body_motion import BodyMotion
        from nerfstudio_ext.human.keypoint_encoding import keypoint_box
        from nerfstudio_ext.models.keypoint_nerf import KeypointNeRFModel

        config, pipeline = open_run(self.run)
        model = pipeline.model
        if not isinstance(model, KeypointNeRFModel):
            raise InputError(f"{self.run} was trained with {config.method_name}, which makes no person from photos.")
        moments = model.moments
        if self.freeze is not None and not 0 <= self.freeze < len(moments):
            raise InputError(f"--freeze {self.freeze} is none of the {len(moments)} moments, counted from 0.")
        dataset = pipeline.datamanager.train_dataset
        assert isinstance(dataset, PeopleDataset)
        store = dataset.store
        # The corners of each moment's box stand for the body: the camera goes by its middle and its size.
        boxes = torch.stack([keypoint_box(store.subject(moment).keypoints, 0.05, 0.0) for moment in moments])
        still = torch.zeros(len(boxes), 3)
        motion = BodyMotion(boxes, torch.zeros(0, 3, dtype=torch.long), still, still)
        cameras = orbit(motion, store.cameras(moments[0]), self.pictures, self.size, self.turns, self.freeze)
        count = film(model.eval(), cameras, self.output_name, self.output, self.fps)
        print(f"{count} pictures: {self.output}, and some of them: {self.output.with_suffix('.png')}")
