"""A drawn person as files, in the layout of ZJU-MoCap."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from nerfstudio_ext.human.body_model import anny_keypoints
from nerfstudio_ext.human.body_motion import write_body
from nerfstudio_ext.human.capture import CaptureCamera
from nerfstudio_ext.human.keypoints import SKELETONS
from nerfstudio_ext.human.zju_layout import FACES
from nerfstudio_ext.procedural.human import HumanScene

NamingName = Literal["numbers", "long"]
"""How pictures are called: 000000.jpg from 0, or as for the subjects 313 and 315, with dates and counted from 1."""


def write_human_scene(scene: HumanScene, folder: Path, naming: NamingName = "numbers") -> None:
    """Write annots.npy, pictures, mask_cihp/, new_params/ and new_vertices/, and beside the layout faces.npy, body.npz,
    depth/ (.npy, metres along the unit ray) and kpts3d.npy ([frames, 17, 3], metres, world frame, COCO's joints).

    The kpts2d in annots.npy ([cameras, 17, 3] for each frame) are those joints in the pictures, in pixels with centres
    at integers; their confidence is 1, also where the body hides a joint from the camera.

    Args:
        scene: What to write.
        folder: Created where it is missing.
        naming: Of pictures and body files.

    Raises:
        InputError: The package of the body model is missing.
    """
    frames, cameras, height, width = scene.mask.shape
    # Pixel centres at integers, as files of this kind have them.
    calibration = np.array([[scene.focal, 0, width / 2 - 0.5], [0, scene.focal, height / 2 - 0.5], [0, 0, 1]])
    rotations, translations = [], []
    weights, vertices = anny_keypoints(), scene.motion.vertices
    joints = torch.stack([weights[name] @ vertices for name in SKELETONS["coco17"]], dim=1).double().numpy()
    for pose in scene.poses.double().numpy():
        rotations.append((pose[:, :3] * [1.0, -1.0, -1.0]).T)
        translations.append(-1000 * rotations[-1] @ pose[:, 3:])
    views = [CaptureCamera(calibration, np.zeros(5), r, t[:, 0] / 1000) for r, t in zip(rotations, translations)]
    pixels = np.stack([camera.project(joints) for camera in views], axis=1)
    keypoints = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)
    names = [[_name(naming, frame, camera) for camera in range(cameras)] for frame in range(frames)]
    for frame in range(frames):
        for camera in range(cameras):
            _write_view(scene, folder, names[frame][camera], frame, camera)
        _write_fit(scene, folder, frame, frame + (1 if naming == "long" else 0))
    annots = {
        "cams": {
            "K": [calibration] * cameras,
            "D": [np.zeros((5, 1))] * cameras,
            "R": rotations,
            "T": translations,
        },
        "ims": [{"ims": row, "kpts2d": seen} for row, seen in zip(names, keypoints)],
    }
    np.save(folder / "annots.npy", np.array(annots, dtype=object), allow_pickle=True)
    np.save(folder / "kpts3d.npy", joints)
    np.save(folder / FACES, scene.motion.faces.numpy())
    write_body(scene.motion, folder / "body.npz")


def _name(naming: NamingName, frame: int, camera: int) -> str:
    if naming == "numbers":
        return f"Camera_B{camera + 1}/{frame:06d}.jpg"
    return f"Camera ({camera + 1})/Drawn_000_Camera_({camera + 1})_{frame + 1:04d}_2000-01-01_00-00-00.000.jpg"


def _write_view(scene: HumanScene, folder: Path, name: str, frame: int, camera: int) -> None:
    view, depth = scene.view(frame, camera), scene.depth[frame, camera]
    places = {kind: folder / kind / name for kind in ("", "mask_cihp", "depth")}
    for place in places.values():
        place.parent.mkdir(parents=True, exist_ok=True)
    # As little loss as JPEG allows.
    Image.fromarray(view.rgb).save(places[""], quality=100, subsampling=0)
    Image.fromarray(view.mask.astype(np.uint8)).save(places["mask_cihp"].with_suffix(".png"))
    np.save(places["depth"].with_suffix(".npy"), depth.numpy())


def _write_fit(scene: HumanScene, folder: Path, frame: int, number: int) -> None:
    motion = scene.motion
    for kind in ("new_params", "new_vertices"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    params = {
        # A body of another family has no SMPL pose or shape; readers of vertices do not ask for them.
        "poses": np.zeros((1, 72), dtype=np.float32),
        "shapes": np.zeros((1, 10), dtype=np.float32),
        "Rh": motion.root_rotation[frame : frame + 1].numpy(),
        "Th": motion.root_translation[frame : frame + 1].numpy(),
    }
    np.save(folder / "new_params" / f"{number}.npy", np.array(params, dtype=object), allow_pickle=True)
    np.save(folder / "new_vertices" / f"{number}.npy", motion.vertices[frame].numpy())
