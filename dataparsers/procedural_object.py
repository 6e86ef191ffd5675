"""Objects that the suite draws itself, as nerfstudio data: nothing is read and nothing is written."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Type

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from dataparsers._common import ObjectDataParserConfig, split_views
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.mesh_object import Up
from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions
from nerfstudio_ext.procedural.rigs import RigName, square_cameras


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
    """Cameras around the object, those for testing included."""
    size: int = 128
    """Width and height of the pictures in pixels."""
    rig: RigName = "rings"
    """Where the cameras stand."""
    radius: float = 2.6
    """Distance of the cameras from the object's centre."""
    background: bool = True
    """Draw a coloured background far away; otherwise it is white."""
    seed: int = 0
    """Decides the background."""
    up: Up = "z"
    """Axis of a mesh file that points up."""
    num_views: Optional[int] = 6
    """How many views to train on; all others are held out."""
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
            )
        )
        views = split_views(
            scene.poses[:, :, 3],
            config.train_views,
            config.num_views,
            config.pick,
            config.max_test_views,
            f"the procedural object '{config.object}'",
        )
        indices = views.train if split == "train" else views.test
        cameras = square_cameras(scene.poses[indices], scene.focal, config.size)
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
