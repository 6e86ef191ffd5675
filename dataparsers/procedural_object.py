"""Objects that the suite draws itself, as nerfstudio data: nothing is read and nothing is written."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Type

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from dataparsers._common import ObjectDataParserConfig, split_views
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.mesh_object import Up
from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions
from nerfstudio_ext.procedural.rigs import ObjectRigName


@dataclass
class ProceduralObjectDataParserConfig(ObjectDataParserConfig):
    """An object with exact pictures, masks, depth and normals."""

    _target: Type = field(default_factory=lambda: ProceduralObjectDataParser)
    data: Optional[Path] = None
    """Unused: the scene is drawn."""
    object: str = "torus-box"
    """What stands in the scene: spheres, torus-box, head, vase, lattice or coral, from easy to hard; or a mesh file
    (.obj, .ply, .glb, .stl, .off), brought into the unit sphere."""
    views: int = 40
    """Cameras around the object, those for testing included; of a camera path at most so many, evenly chosen."""
    size: int = 128
    """Width and height of the pictures in pixels; of a camera path's the longer side."""
    rig: ObjectRigName = "rings"
    """Where the cameras stand: rings (one 10 and one 40 degrees up), ring (20 degrees up), hemisphere, forward (before
    the object), or path (camera-path)."""
    camera_path: Optional[Path] = None
    """For the rig path: cameras as nerfstudio's viewer saves them (.json), the object inside the unit sphere."""
    radius: float = 2.6
    """Distance of the cameras from the object's centre, except of those of a camera path."""
    background: bool = True
    """Draw a coloured background far away; otherwise it is white."""
    seed: int = 0
    """Decides the background."""
    up: Up = "z"
    """Axis of a mesh file that points up."""
    num_views: Optional[int] = 6
    """How many views to train on unless train-views names them; all others are held out."""
    max_test_views: Optional[int] = 8
    """Most views to evaluate on, evenly chosen among those held out."""


@dataclass
class ProceduralObjectDataParser(DataParser):
    """`metadata["object_views"]` is the scene, which draws a view when asked; `metadata["view_indices"]` says which
    of its views these are."""

    config: ProceduralObjectDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        if config.data is not None:
            raise InputError(
                f"procedural-object-data draws its scene and reads no files: leave --data {config.data} out, or name "
                "the dataparser that reads it."
            )
        scene = ObjectScene(
            ObjectSceneOptions(
                config.object,
                config.views,
                config.size,
                config.rig,
                config.radius,
                config.background,
                config.seed,
                config.up,
                config.camera_path,
            )
        )
        # The default is no choice, beside which the views that are named would be a second one.
        usual = config.train_views is not None and config.num_views == ProceduralObjectDataParserConfig.num_views
        views = split_views(
            scene.poses[:, :, 3],
            config.train_views,
            None if usual else config.num_views,
            config.pick,
            config.max_test_views,
            f"the procedural object '{config.object}'",
        )
        indices = views.train if split == "train" else views.test
        focals = torch.tensor([[scene.focals[k]] for k in indices])
        cameras = Cameras(
            camera_to_worlds=scene.poses[indices],
            fx=focals,
            fy=focals,
            cx=scene.width / 2,
            cy=scene.height / 2,
            width=scene.width,
            height=scene.height,
            camera_type=CameraType.PERSPECTIVE,
        )
        return DataparserOutputs(
            image_filenames=[Path("views") / f"view_{k:03d}.png" for k in indices],
            cameras=cameras,
            scene_box=SceneBox(aabb=torch.tensor([[-1.5, -1.5, -1.5], [1.5, 1.5, 1.5]])),
            metadata={"object_views": scene, "view_indices": indices},
        )


procedural_object_data = DataParserSpecification(
    config=ProceduralObjectDataParserConfig(),
    description="A procedural object with exact pictures, masks, depth and normals.",
)
