"""`ns-ext keypoints photos`: from a recording with 2-D key points to photographs with 3-D ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Tuple

import tyro

from nerfstudio_ext.cli.human import FilmOptions
from nerfstudio_ext.cli.keypoint_options import KeypointOptions


@dataclass
class Photos(KeypointOptions):
    """Cut photos with masks, cameras and 3-D keypoints out of a recording, for ns-ext keypoints condition.

    2-D key points are triangulated and the free body model is fitted to them: its joints are the keypoints.
    """

    data: Annotated[Path, tyro.conf.Positional]
    """Folder in the layout of ZJU-MoCap: annots.npy, pictures and masks; a fitted body is not needed."""
    folder: Annotated[Path, tyro.conf.Positional]
    """Where to write; must be empty or new."""
    frames: Tuple[int, ...] = (0,)
    """Frames of the recording, counted from 0; of several, each becomes a folder of its own: a moment."""

    def main(self) -> None:
        from nerfstudio_ext.cli.folders import require_empty
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.export.person_photos import write_moment
        from nerfstudio_ext.human.capture import CapturedScene, picture_size
        from nerfstudio_ext.human.fit import fit_body
        from nerfstudio_ext.human.neutral_layout import open_layout
        from nerfstudio_ext.procedural.person import BODY_KEYPOINTS

        require_empty(self.folder)
        layout = open_layout(self.data.expanduser(), self.translation_unit)
        count = len(layout.pictures)
        if wrong := [frame for frame in self.frames if not 0 <= frame < count]:
            raise InputError(f"--frames {wrong[0]} is none of the {count} frames of {self.data}, counted from 0.")
        files, masks = layout.files(), layout.masks()
        fitted = fit_body(self.triangulated(layout), {}, self.steps)
        print(f"body: {fitted.report()}")
        points = fitted.joints(list(BODY_KEYPOINTS.values()))
        scene = CapturedScene(layout.cameras, files, masks, 10 * max(picture_size(files[0][0])))
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
    person: int = 0
    """Whom to film, where the photos are of several people; counted from 0."""

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
        dataset = pipeline.datamanager.train_dataset
        assert isinstance(dataset, PeopleDataset)
        model.show(self.person, dataset.metadata["sources"].get(self.person, ()))
        moments = model.moments
        if self.freeze is not None and not 0 <= self.freeze < len(moments):
            raise InputError(f"--freeze {self.freeze} is none of the {len(moments)} moments, counted from 0.")
        store = dataset.store
        # The corners of each moment's box stand for the body: the camera goes by its middle and its size.
        boxes = torch.stack([keypoint_box(store.subject(moment).keypoints, 0.05, 0.0) for moment in moments])
        still = torch.zeros(len(boxes), 3)
        motion = BodyMotion(boxes, torch.zeros(0, 3, dtype=torch.long), still, still)
        cameras = orbit(motion, store.cameras(moments[0]), self.pictures, self.size, self.turns, self.freeze)
        count = film(model.eval(), cameras, self.output_name, self.output, self.fps)
        print(f"{count} pictures: {self.output}, and some of them: {self.output.with_suffix('.png')}")
