"""A person that the suite draws itself: a body model that walks on the spot, raises its arms and turns, seen by a ring
of cameras, with exact pictures, masks, depth and vertices. Metres; +z up; light fixed in the world."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Dict

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.host import cache_dir
from nerfstudio_ext.human.body_model import BodyModel, anny_body
from nerfstudio_ext.human.body_motion import BodyMotion, Build
from nerfstudio_ext.human.capture import HumanView
from nerfstudio_ext.human.skinning import rotation_matrix
from nerfstudio_ext.procedural.casting import MeshCaster
from nerfstudio_ext.procedural.kept import kept_arrays
from nerfstudio_ext.procedural.loose_clothes import skirt
from nerfstudio_ext.procedural.rigs import rig_poses

VERSION = 2
"""Of what is drawn; raise it when the same options give other pictures."""
RADIUS = 2.8
FIELD_OF_VIEW = math.radians(42)
PHENOTYPE = {"gender": 0.4, "muscle": 0.6, "weight": 0.4}
LIGHT = (0.5, -0.6, 0.62)
ARRAYS = ("vertices", "faces", "rest", "Rh", "Th", "rgb", "mask", "depth")
"""Of a scene in the cache."""


@dataclass(frozen=True)
class HumanSceneOptions:
    """Everything that decides what a drawn person looks like."""

    frames: int = 8
    cameras: int = 6
    size: int = 128
    turn: float = 120.0
    """Degrees that the person turns from the first frame to the last."""
    gain: float = 0.0
    """Every frame's colours are multiplied by a number of its own within 1 +- gain, as exposure wanders."""
    loose: bool = False
    """The person wears a skirt that does not follow the skeleton; the body's vertices stay the body's."""


@dataclass(frozen=True)
class HumanScene:
    """The drawn capture; view (f, c) is frame f seen by camera c."""

    motion: BodyMotion
    rgb: Float[Tensor, "frames cameras height width 3"]
    """In [0, 1], black beside the person."""
    mask: Bool[Tensor, "frames cameras height width"]
    depth: Float[Tensor, "frames cameras height width"]
    """Along the unit ray, 0 beside the person."""
    poses: Float[Tensor, "cameras 3 4"]
    """Camera to world, OpenGL axes."""
    focal: float

    def view(self, frame: int, camera: int) -> HumanView:
        """One picture with mask and depth."""
        rgb = (self.rgb[frame, camera] * 255).round().to(torch.uint8)
        return HumanView(rgb.numpy(), self.mask[frame, camera].numpy(), self.depth[frame, camera].numpy())

    def __deepcopy__(self, memo: dict) -> "HumanScene":
        return self  # datasets copy their metadata; what is drawn once serves all of them


def human_scene(options: HumanSceneOptions) -> HumanScene:
    """Draw a scene, or read it from the user's cache folder.

    Raises:
        InputError: The numbers describe no scene, or a package of the extra `human` is missing.
    """
    if options.frames < 1 or options.cameras < 2 or options.size < 8:
        raise InputError(
            f"A drawn person needs a frame, two cameras and 8 pixels at least, not {options.frames} frames, "
            f"{options.cameras} cameras and {options.size} pixels."
        )
    if not 0 <= options.gain < 1:
        raise InputError(f"The gain of a drawn person is at least 0 and below 1, not {options.gain:g}.")
    # Exposure comes after the drawing, which is kept without it.
    drawn = {name: value for name, value in asdict(options).items() if name not in ("gain", "loose")}
    if options.loose:
        drawn["loose"] = True  # scenes without keep the place that they have always had
    key = hashlib.sha256(json.dumps([VERSION, PHENOTYPE, drawn]).encode()).hexdigest()[:16]
    path = cache_dir() / "human" / f"{key}.npz"

    def draw() -> Dict[str, Tensor]:
        motion = walk(anny_body(PHENOTYPE), options.frames, options.turn).check("The drawn person")
        return _arrays(draw_motion(motion, options))

    scene = _scene(kept_arrays(path, ARRAYS, draw), options)
    return replace(scene, rgb=(scene.rgb * gains(options)[:, None, None, None, None]).clamp(max=1))


def gains(options: HumanSceneOptions) -> Float[Tensor, "frames"]:
    """What every frame's colours are multiplied by."""
    random = np.random.default_rng(options.frames)
    return torch.from_numpy(1 + options.gain * random.uniform(-1, 1, options.frames)).float()


def walk(body: BodyModel, frames: int, turn: float) -> BodyMotion:
    """One stride on the spot with swinging arms that rise, while the whole person turns and drifts a little."""
    phase = torch.linspace(0, 2 * math.pi, frames + 1)[:-1]
    progress = torch.linspace(0, 1, frames)
    swing, lift = torch.sin(phase), 0.5 - 0.5 * torch.cos(phase)
    zero = torch.zeros(frames)

    def about(x: Tensor = zero, y: Tensor = zero, z: Tensor = zero) -> Tensor:
        return torch.stack([x, y, z], dim=-1)

    rotations = body.rotations(
        {
            "upperleg01.L": about(x=-0.45 * swing),
            "upperleg01.R": about(x=0.45 * swing),
            "lowerleg01.L": about(x=0.5 * (1 + swing) / 2),
            "lowerleg01.R": about(x=0.5 * (1 - swing) / 2),
            "upperarm01.L": about(x=0.35 * swing, y=-0.9 * lift),
            "upperarm01.R": about(x=-0.35 * swing, y=0.5 * lift),
            "lowerarm01.L": about(z=0.4 * lift),
            "spine02": about(z=0.12 * swing),
        }
    )
    root = about(z=math.radians(turn) * progress)
    shift = about(x=0.15 * (progress - 0.5), y=0.05 * swing)
    vertices = body.pose(rotations) @ rotation_matrix(root).transpose(1, 2) + shift[:, None]
    return BodyMotion(vertices, body.faces, root, shift, body.rest_vertices)


def paint(rest: Float[Tensor, "vertices 3"]) -> Float[Tensor, "vertices 3"]:
    """Vertex colours from rest positions: warm left, cool right, light front, dark back, striped along the height."""
    x, y, z = ((rest - rest.amin(0)) / (rest.amax(0) - rest.amin(0))).unbind(-1)
    left, front = torch.sigmoid(40 * (x - 0.5)), torch.sigmoid(25 * (0.55 - y))
    warm, cool = torch.tensor([0.95, 0.55, 0.20]), torch.tensor([0.20, 0.50, 0.95])
    base = left[:, None] * warm + (1 - left[:, None]) * cool
    stripes = 0.8 + 0.2 * torch.tanh(4 * torch.sin(2 * math.pi * 9 * z))
    shade = (0.45 + 0.55 * front) * stripes
    skin = torch.tensor([0.90, 0.72, 0.60])
    head = torch.sigmoid(120 * (z - 0.87))[:, None]
    return ((1 - head) * base * shade[:, None] + head * skin * (0.5 + 0.5 * front[:, None])).clamp(0.05, 1)


def draw_motion(motion: BodyMotion, options: HumanSceneOptions) -> HumanScene:
    """The drawn person, without the gain of its exposure, in the poses of a motion of her body that says how it rests.

    Args:
        motion: Metres; +z is up.
        options: Of which cameras, size and clothes count.
    """
    assert motion.rest is not None, "colours lie on the body at rest"
    colours, light = paint(motion.rest), np.asarray(LIGHT)
    poses = rig_poses("ring", options.cameras, RADIUS)
    focal = 0.5 * options.size / math.tan(FIELD_OF_VIEW / 2)
    shown, faces = motion.vertices, motion.faces
    if options.loose:
        cloth = skirt(motion)
        shown = torch.cat([shown, cloth.vertices], dim=1)
        faces = torch.cat([faces, cloth.faces + len(colours)])
        colours = torch.cat([colours, cloth.colours])
    casters = [MeshCaster(vertices, faces, colours, light) for vertices in shown]
    views = [[caster.view(pose, focal, options.size) for pose in poses] for caster in casters]
    rgb, mask, depth = (
        torch.stack([torch.stack([getattr(view, name) for view in row]) for row in views])
        for name in ("rgb", "mask", "depth")
    )
    return HumanScene(motion, rgb, mask, depth, poses, focal)


def _arrays(scene: HumanScene) -> Dict[str, Tensor]:
    """What is kept of a scene, under `ARRAYS`."""
    motion, rgb = scene.motion, (scene.rgb * 255).round().to(torch.uint8)
    assert motion.rest is not None, "drawn bodies know their rest"
    parts = (motion.vertices, motion.faces, motion.rest, motion.root_rotation, motion.root_translation, rgb)
    return dict(zip(ARRAYS, (*parts, scene.mask, scene.depth)))


def _scene(arrays: Dict[str, Tensor], options: HumanSceneOptions) -> HumanScene:
    vertices, faces, rest, root, shift, rgb, mask, depth = (arrays[name] for name in ARRAYS)
    motion = BodyMotion(vertices, faces, root, shift, rest, Build(PHENOTYPE))
    focal = 0.5 * options.size / math.tan(FIELD_OF_VIEW / 2)
    return HumanScene(motion, rgb.float() / 255, mask, depth, rig_poses("ring", options.cameras, RADIUS), focal)
