"""The layout of IDR, NeuS and VolSDF: `image/`, optional `mask/`, and projection matrices in `cameras.npz`.

``world_mat_i`` projects world points to pixels (K [R|t], OpenCV axes, pixel centres at integers); ``scale_mat_i``, the
same for all views, takes the normalised frame to the world: x_world = scale_mat x. A picture belongs to the camera of
the last number in its name; where these numbers are not those of the cameras, pictures sorted by number are as cameras
are. What `ns-ext data make` writes beside the layout is read where it is whole: `depth/` (Euclidean along the ray,
world units, 0 beside the object) and `normals/` (world axes), one .npy for each picture, and `mesh.ply`, the surface.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Tuple, Type, Union

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.rich_utils import CONSOLE

from dataparsers._common import (
    ObjectDataParserConfig,
    numbered,
    object_outputs,
    picture_size,
    pictures_in,
    split_views,
)
from dataparsers._masks import foreground_masks
from dataparsers._view_lists import published_views
from nerfstudio_ext.engine.errors import InputError

MAX_SKEW = 0.1
"""Skew in pixels above which dropping it (nerfstudio's cameras have none) is worth a word."""


@dataclass
class IdrDataParserConfig(ObjectDataParserConfig):
    """A folder in IDR layout, which holds image/ and the camera file."""

    _target: Type = field(default_factory=lambda: IdrDataParser)
    camera_file: str = "cameras.npz"
    """Name of the camera file."""
    images: str = "image"
    """Name of the folder of pictures."""
    masks: str = "mask"
    """Name of the folder of masks, white for the object; none: train without. Unless it is named, it may be missing."""
    official_views: Optional[int] = None
    """Train on the published list of this many views (3, 8 or 32) of the DTU, BlendedMVS or H3DS scan that the folder
    is named after."""


@dataclass
class IdrDataParser(DataParser):
    """Normalised by scale_mat."""

    config: IdrDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        if config.data is None:
            raise InputError("idr-data reads a folder: give --data.")
        folder = Path(config.data).expanduser()
        found = pictures_in(folder / config.images, "IDR")
        images, numbers, world, scale = self._matrices(folder / config.camera_file, found)
        if images != sorted(images):
            CONSOLE.print("Pictures go by the numbers in their names, as cameras do, and not by the alphabet.")
        masks = foreground_masks(folder / config.masks, images, "IDR", config.masks != IdrDataParserConfig.masks)
        size = picture_size(images)
        intrinsics, poses = [], []
        for number, matrix in zip(numbers, world):
            calibration, pose = decompose(matrix @ scale, f"world_mat_{number} of {config.camera_file}")
            if abs(calibration[0, 1]) > MAX_SKEW:
                CONSOLE.print(f"Camera {number} has a skew of {calibration[0, 1]:.2f} pixels, which is dropped.")
            # These files put pixel centres at integers, nerfstudio at one half.
            centre = calibration[:2, 2] + 0.5
            intrinsics.append([calibration[0, 0], calibration[1, 1], *centre])
            poses.append(pose)
        poses = torch.tensor(np.stack(poses))
        views = split_views(
            poses[:, :, 3],
            config.train_views if config.official_views is None else self._published(folder, len(images)),
            config.num_views,
            config.pick,
            config.max_test_views,
            str(config.data),
        )
        chosen = views.train if split == "train" else views.test
        outputs = object_outputs(images, masks, poses, torch.tensor(np.array(intrinsics)), size, chosen)
        outputs.metadata.update(_ground_truth(folder, images, chosen))
        # x_normalised = 1/s (x_world - t), for scale_mat = [s I | t]
        shift = torch.tensor(-scale[:3, 3:], dtype=torch.float32)
        outputs.dataparser_transform = torch.cat([torch.eye(3), shift], dim=1)
        outputs.dataparser_scale = float(1 / scale[0, 0])
        return outputs

    def _published(self, folder: Path, count: int) -> List[int]:
        config = self.config
        if config.train_views is not None or config.num_views is not None:
            raise InputError("--official-views, --train-views and --num-views each choose the views: give one of them.")
        assert config.official_views is not None
        return published_views(folder.resolve().name, config.official_views, count)

    def _matrices(
        self, path: Path, images: List[Path]
    ) -> Tuple[List[Path], List[int], List[Float[np.ndarray, "rows 4"]], Float[np.ndarray, "4 4"]]:
        """Pictures in the order of their cameras, the cameras' numbers and projections, and the one scale matrix."""
        if not path.is_file():
            raise InputError(f"There is no {path}: the folder is not in IDR layout, or the file has another name "
                             "(--camera-file).")  # fmt: skip
        try:
            with np.load(path) as archive:
                arrays: Dict[str, np.ndarray] = {key: archive[key].astype(np.float64) for key in archive.files}
        except Exception as error:
            raise InputError(f"{path} cannot be read ({type(error).__name__}): it may be half downloaded.") from error
        numbers = sorted(int(key[10:]) for key in arrays if key.startswith("world_mat_") and key[10:].isdigit())
        by_number = numbered(images)
        if by_number is not None and set(by_number) <= set(numbers):
            # Also folders that hold some of the views only.
            numbers = sorted(by_number)
            images = [by_number[number] for number in numbers]
        elif len(numbers) == len(images):
            images = sorted(images, key=_natural)
        else:
            raise InputError(
                f"{path} has {len(numbers)} cameras ({_ends([f'world_mat_{k}' for k in numbers])}) for {len(images)} "
                f"pictures ({_ends([image.name for image in images])}): bring one picture per camera, or name each "
                "after its camera's number."
            )
        scales = []
        for number in numbers:
            shapes = {f"world_mat_{number}": ((4, 4), (3, 4)), f"scale_mat_{number}": ((4, 4),)}
            for key, allowed in shapes.items():
                matrix = arrays.get(key)
                if matrix is None or matrix.shape not in allowed or not np.isfinite(matrix).all():
                    raise InputError(f"{key} of {path} is missing, of a wrong shape, or not finite.")
            scales.append(arrays[f"scale_mat_{number}"])
        if max(np.abs(other - scales[0]).max() for other in scales) > 1e-4 * max(1.0, np.abs(scales[0]).max()):
            raise InputError(f"The scale_mat_i of {path} differ from view to view: there must be one world.")
        scale = scales[0]
        uniform = np.abs(scale[:3, :3] - scale[0, 0] * np.eye(3)).max() < 1e-6 * abs(scale[0, 0])
        if scale[0, 0] <= 0 or not uniform:
            raise InputError(f"scale_mat_0 of {path} is not a positive scale and a shift.")
        return images, numbers, [arrays[f"world_mat_{number}"] for number in numbers], scale


def _ends(names: List[str]) -> str:
    """The first and the last of them."""
    return f"{names[0]} to {names[-1]}" if names else "none"


def _natural(path: Path) -> List[Union[str, int]]:
    """Sorts image_2 before image_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]


def _ground_truth(folder: Path, images: List[Path], chosen: List[int]) -> Dict[str, Union[Path, List[Path]]]:
    """Files of depth and normals of the chosen pictures, where all have them, and of the surface, where it is there."""
    found: Dict[str, Union[Path, List[Path]]] = {}
    for name in ("depth", "normals"):
        files = [folder / name / f"{image.stem}.npy" for image in images]
        if all(file.is_file() for file in files):
            found[f"gt_{name}_filenames"] = [files[k] for k in chosen]
    mesh = folder / "mesh.ply"
    return {**found, "gt_mesh_filename": mesh} if mesh.is_file() else found


def decompose(
    projection: Float[np.ndarray, "rows 4"], name: str
) -> Tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 4"]]:
    """Calibration with K[2, 2] = 1 and camera-to-world pose (OpenGL axes) of a projection matrix, by RQ.

    Raises:
        InputError: The matrix is singular.
    """
    left = projection[:3, :3]
    if not abs(np.linalg.det(left / max(np.abs(left).max(), 1e-300))) > 1e-12:
        raise InputError(f"{name} is singular: it is no camera.")
    flip = np.eye(3)[::-1]
    q, r = np.linalg.qr((flip @ left).T)
    calibration, rotation = flip @ r.T @ flip, flip @ q.T
    signs = np.diag(np.sign(np.diag(calibration)))
    calibration, rotation = calibration @ signs, signs @ rotation
    if np.linalg.det(rotation) < 0:
        rotation = -rotation
    centre = -np.linalg.solve(left, projection[:3, 3])
    pose = np.concatenate([rotation.T * [1.0, -1.0, -1.0], centre[:, None]], axis=1)
    return calibration / calibration[2, 2], pose


idr_data = DataParserSpecification(
    config=IdrDataParserConfig(),
    description="Pictures, masks and cameras.npz as IDR, NeuS and VolSDF lay them out (DTU, BlendedMVS, H3DS, own).",
)
