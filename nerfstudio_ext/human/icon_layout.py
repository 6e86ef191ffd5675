"""Scanned people in the layouts that ICON's authors prepare: THuman2.0 and RenderPeople to train on, CAPE to test with.

Beside `NAME/` (scans, joints) lies `NAME_36views/` or the like, with a folder for each person:
`{render,normal_F,normal_B}/{yaw:03d}.png`, RGBA with the mask as alpha unless `mask/{yaw:03d}.png` has it, as in CAPE,
normals as (n + 1) / 2; and
`calib/{yaw:03d}.txt`, eight rows of four: extrinsic and intrinsic matrix, whose product brings the scan, in
centimetres, into a cube from -1 to 1 that the picture fills (x right, y down, z towards the camera; orthographic).
Written from the plan's description and tried on synthetic folders alone: the real sets need a signed form.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import List, Literal, Optional, Tuple

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.photo_camera import PhotoCamera

Source = Literal["thuman2", "renderpeople", "cape"]
CENTIMETRES = {"thuman2": 100.0, "renderpeople": 1.0, "cape": 100.0}
"""Of a unit of the scans and of their joints."""
SMPLX_JOINTS = (*range(22), 68, 73)
"""Joints of SMPL-X that parallel SMPL's 24, which end with the hands: both middle finger tips."""
UP = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""From the scans' world, +y up, to ours, +z up."""
KEPT = 16
"""Meshes that stay in memory."""


@dataclass(frozen=True)
class ScanView:
    """One picture of a scanned person; metres, +z up."""

    rgb: Float[Tensor, "3 size size"]
    """In [0, 1], black beside the person."""
    mask: Float[Tensor, "1 size size"]
    normals: Optional[Float[Tensor, "3 size size"]]
    """Of the near side, frame of the camera (x right, y down, z forward), unit length; where the layout has them."""
    back_normals: Optional[Float[Tensor, "3 size size"]]
    camera: PhotoCamera
    """A batch of one, weak perspective."""
    keypoints: Float[Tensor, "24 3"]


class IconLayout:
    """People of one prepared set.

    Args:
        folder: Holds `scans`, `smplx` or `smpl`, and a list of names.
        source: Whose scans they are.
        names: List of names in the folder, one a line; none: train.txt, or all.txt where there is none.

    Raises:
        InputError: A list, the pictures or the joints of somebody are missing.
    """

    def __init__(self, folder: Path, source: Source, names: Optional[str] = None) -> None:
        self.folder, self._metres = folder, CENTIMETRES[source] / 100
        lists = [names] if names else ["train.txt", "all.txt"]
        path = next((folder / name for name in lists if (folder / name).is_file()), None)
        if path is None:
            raise InputError(f"{folder} has no {' and no '.join(lists)} with the names of its people, one a line.")
        self.names: List[str] = [line.strip().split("/")[-1] for line in path.read_text().splitlines() if line.strip()]
        own = folder.resolve().name
        beside = [(int(number), path) for path in folder.resolve().parent.glob(f"{own}_*views")
                  if (number := path.name[len(own) + 1 : -len("views")]).isdigit()]  # fmt: skip
        if not self.names or not beside:
            raise InputError(f"{path} names {len(self.names)} people, whose pictures belong in {folder.name}_36views.")
        self._pictures = max(beside)[1]  # the one with most views
        self.mesh = lru_cache(KEPT)(self._mesh)

    def __len__(self) -> int:
        return len(self.names)

    def yaws(self, index: int) -> List[str]:
        """Names of a person's pictures.

        Raises:
            InputError: There are none.
        """
        found = sorted(path.stem for path in (self._pictures / self.names[index] / "calib").glob("*.txt"))
        if not found:
            raise InputError(f"{self._pictures / self.names[index]} has no calib/000.txt, ...: render the scans first.")
        return found

    def view(self, index: int, yaw: str) -> ScanView:
        """One picture of a person.

        Raises:
            InputError: A file is missing or is not what it should be.
        """
        folder = self._pictures / self.names[index]
        rgb, mask = _picture(folder / "render" / f"{yaw}.png")
        own = folder / "mask" / f"{yaw}.png"
        if own.is_file():
            white, opaque = _picture(own)
            mask = (white.mean(0, keepdim=True) > 0.5).float() * opaque
        if mask.shape[1:] != rgb.shape[1:]:
            raise InputError(f"{own} and {folder}/render/{yaw}.png differ in size: render them alike.")
        if not mask.any() or mask.all():
            what = "shows no person" if not mask.any() else "does not say where the person is"
            raise InputError(f"{folder}/render/{yaw}.png {what}: the mask is its alpha, or mask/{yaw}.png.")
        sides = []
        for side in ("normal_F", "normal_B"):
            path = folder / side / f"{yaw}.png"
            if not path.is_file():
                sides.append(None)
                continue
            # Pictures of normals have y upwards and z towards the camera.
            turn = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
            values = torch.nn.functional.normalize((2 * _picture(path)[0] - 1) * turn, dim=0) * mask
            # Whether the far side faces the camera in its picture, as if seen from there, is not written down.
            faces = 1.0 if side == "normal_B" else -1.0
            values[2] *= 1.0 if float(values[2].sum()) * faces > 0 else -1.0
            sides.append(values)
        camera = self._camera(folder / "calib" / f"{yaw}.txt")
        return ScanView(rgb * mask, mask, sides[0], sides[1], camera, self.keypoints(index))

    def keypoints(self, index: int) -> Float[Tensor, "24 3"]:
        """The body set, metres, +z up.

        Raises:
            InputError: There are no joints, or too few.
        """
        name = self.names[index]
        path = next((p for kind in ("smplx", "smpl") if (p := self.folder / kind / f"{name}.npy").is_file()), None)
        if path is None:
            raise InputError(f"{self.folder} has neither smplx/{name}.npy nor smpl/{name}.npy: export the joints.")
        joints = np.asarray(np.load(path), dtype=np.float32).reshape(-1, 3)
        chosen = SMPLX_JOINTS if path.parent.name == "smplx" else range(24)
        if len(joints) <= max(chosen) or not np.isfinite(joints).all():
            raise InputError(f"{path} holds {len(joints)} joints: {max(chosen) + 1} finite ones are needed at least.")
        return torch.from_numpy(joints[list(chosen)]) * self._metres @ UP.T

    def _mesh(self, index: int) -> Tuple[Float[Tensor, "vertices 3"], Int[Tensor, "faces 3"]]:
        import trimesh

        name = self.names[index]
        path = next((p for p in (self.folder / "scans" / name / f"{name}.obj", self.folder / "scans" / f"{name}.obj")
                     if p.is_file()), None)  # fmt: skip
        if path is None:
            raise InputError(f"{self.folder}/scans has no {name}.obj.")
        mesh = trimesh.load_mesh(path, process=False, skip_materials=True)
        vertices = torch.from_numpy(np.asarray(mesh.vertices, dtype=np.float32)) * self._metres @ UP.T
        return vertices, torch.from_numpy(np.asarray(mesh.faces)).long()

    def _camera(self, path: Path) -> PhotoCamera:
        try:
            rows = torch.from_numpy(np.loadtxt(path, dtype=np.float64))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is no calibration: {error}.") from error
        if rows.shape != (8, 4):
            raise InputError(f"{path} holds {list(rows.shape)} numbers: a calibration is eight rows of four.")
        matrix = rows[4:] @ rows[:4]
        # From the cube to our camera: z away from it.
        motion = matrix[:3] * torch.tensor([[1.0], [1.0], [-1.0]], dtype=torch.float64)
        scale = motion[0, :3].norm()
        rotation = motion[:, :3] / scale
        if (
            not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-3)
            or rotation.det() < 0
        ):
            raise InputError(f"{path} is no scaled rotation into a cube with y down and z towards the camera.")
        scale = 100 * scale  # cube units in a metre
        world = torch.cat([rotation.float() @ UP.T, (motion[:, 3:] / scale).float()], dim=-1)[None]
        return PhotoCamera(world, scale.float().view(1, 1), torch.zeros(1, 2), torch.zeros(1, 1, dtype=torch.bool))


def _picture(path: Path) -> Tuple[Float[Tensor, "3 size size"], Float[Tensor, "1 size size"]]:
    """Colours in [0, 1] and alpha, 0 or 1, of a square picture."""
    try:
        rgba = torch.from_numpy(np.asarray(Image.open(path).convert("RGBA")).copy()).permute(2, 0, 1).float() / 255
    except FileNotFoundError:
        raise InputError(f"There is no {path}.") from None
    except OSError as error:
        raise InputError(f"{path} is no picture that can be read: {error}.") from error
    if rgba.shape[1] != rgba.shape[2]:
        raise InputError(f"{path} is {rgba.shape[2]}x{rgba.shape[1]}: pictures of the cube are square.")
    return rgba[:3], (rgba[3:] > 0.5).float()
