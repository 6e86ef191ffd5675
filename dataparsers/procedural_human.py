"""A moving person that the suite draws itself, as nerfstudio data: a ring of cameras, one of them held out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Type

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.human import HumanSceneOptions, human_scene
from nerfstudio_ext.procedural.rigs import square_cameras


@dataclass
class ProceduralHumanDataParserConfig(DataParserConfig):
    """A person in motion with exact pictures, masks, depth and vertices."""

    _target: Type = field(default_factory=lambda: ProceduralHumanDataParser)
    data: Optional[Path] = None
    """Unused: the scene is drawn."""
    frames: int = 8
    """Frames of the motion."""
    cameras: int = 6
    """Cameras on the ring, the held-out one included."""
    held_out: int = 2
    """The camera that is never trained on."""
    size: int = 128
    """Width and height of the pictures in pixels."""
    turn: float = 120.0
    """Degrees that the person turns over the motion."""
    gain: float = 0.0
    """Every frame's colours are multiplied by a number of its own within 1 +- gain, as exposure wanders."""
    loose: bool = False
    """The person wears a skirt that does not follow the skeleton."""
    novel_frames: int = 0
    """Last frames that are never trained on and scored apart, as novel poses."""


@dataclass
class ProceduralHumanDataParser(DataParser):
    """`metadata["human_scene"]` holds pictures, masks and the body's motion; `metadata["views"]` says which frame and
    camera each picture is; `metadata["trained_frames"]` says which frames are no novel poses."""

    config: ProceduralHumanDataParserConfig
    includes_time: bool = True

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        if config.data is not None:
            raise InputError(
                f"procedural-human-data draws its scene and reads no files: leave --data {config.data} out, or name "
                "the dataparser that reads it."
            )
        if not 0 <= config.held_out < config.cameras:
            raise InputError(f"--held-out {config.held_out} is none of the {config.cameras} cameras, 0 to "
                             f"{config.cameras - 1}.")  # fmt: skip
        trained = config.frames - config.novel_frames
        if not 0 < trained <= config.frames:
            raise InputError(
                f"--novel-frames {config.novel_frames} of --frames {config.frames}: one frame at least is trained on."
            )
        scene = human_scene(
            HumanSceneOptions(config.frames, config.cameras, config.size, config.turn, config.gain, config.loose)
        )
        chosen = [c for c in range(config.cameras) if (c == config.held_out) != (split == "train")]
        frames = trained if split == "train" else config.frames
        views = [(frame, camera) for frame in range(frames) for camera in chosen]
        times = torch.tensor([[frame / max(config.frames - 1, 1)] for frame, _ in views])
        cameras = square_cameras(scene.poses[[camera for _, camera in views]], scene.focal, config.size, times)
        vertices = scene.motion.vertices.reshape(-1, 3)
        return DataparserOutputs(
            image_filenames=[Path(f"camera_{camera:02d}") / f"frame_{frame:04d}.png" for frame, camera in views],
            cameras=cameras,
            scene_box=SceneBox(aabb=torch.stack([vertices.amin(0) - 0.1, vertices.amax(0) + 0.1])),
            metadata={
                "human_scene": scene,
                "views": views,
                "body_motion": scene.motion,
                "trained_frames": list(range(trained)),
            },
        )


procedural_human_data = DataParserSpecification(
    config=ProceduralHumanDataParserConfig(),
    description="A drawn person in motion, seen by a ring of cameras; needs the extra `human`.",
)
