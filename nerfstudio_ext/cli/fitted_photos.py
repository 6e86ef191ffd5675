"""`ns-ext keypoints from-fit`: photos of one moment of a capture, with keypoints from the body fitted to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass
class FromFit:
    """Write the photos of one frame of a capture, cut out, with cameras and the fitted body's joints as keypoints."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder in the layout of ZJU-MoCap, with masks."""
    body: Annotated[Path, tyro.conf.Positional]
    """The body.npz that `ns-ext human fit` made of it."""
    folder: Annotated[Path, tyro.conf.Positional]
    """Where to write; must be empty or new."""
    frame: int = 0
    """Position of the frame in the capture."""
    max_side: int = 1024
    """Photos are shrunk until neither side has more pixels."""
    translation_unit: Literal["mm", "m"] = "mm"
    """Unit of T in annots.npy."""

    def main(self) -> None:
        from nerfstudio_ext.cli.folders import require_empty
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.human.body_keypoints import body_keypoints
        from nerfstudio_ext.human.body_motion import read_body
        from nerfstudio_ext.human.capture import CapturedScene
        from nerfstudio_ext.human.neutral_layout import open_layout
        from nerfstudio_ext.human.photos import write_photos
        from nerfstudio_ext.procedural.person import BODY_KEYPOINTS

        require_empty(self.folder)
        layout, motion = open_layout(self.data.expanduser(), self.translation_unit), read_body(self.body)
        count = min(len(layout.pictures), len(motion.vertices))
        if not 0 <= self.frame < count:
            raise InputError(f"--frame {self.frame}: capture and body share the frames 0 to {count - 1}.")
        files, masks = layout.files()[self.frame], layout.masks()[self.frame]
        scene = CapturedScene(layout.cameras, [files], [masks], self.max_side)
        if len(set(scene.sizes)) > 1:
            raise InputError(f"The cameras of {self.data} differ in the size of their pictures: lower --max-side.")
        keypoints = body_keypoints(motion.vertices[self.frame], tuple(BODY_KEYPOINTS.values()))
        count = len(scene.cameras)
        write_photos(scene.subject(0, self.folder.name, keypoints), range(count), tuple(BODY_KEYPOINTS), self.folder)
        print(f"{count} photos of frame {self.frame}: {self.folder}")
        print(
            f"make a mesh with:  ns-ext keypoints reconstruct {self.folder}/images/00.png person.glb --keypoints "
            f"{self.folder}/transforms.json --mask {self.folder}/masks/00.png"
        )
