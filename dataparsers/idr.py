"""The layout of IDR, NeuS and VolSDF: `image/`, optional `mask/`, and projection matrices in `cameras.npz`.

``world_mat_i`` projects world points to pixels (K [R|t], OpenCV axes, pixel centres at integers); ``scale_mat_i``, the
same for all views, takes the normalised frame to the world: x_world = scale_mat x.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Literal, Optional, Tuple, Type

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image

from dataparsers._common import split_views
from nerfstudio_ext.engine.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg")
MAX_SKEW = 0.1
"""Skew in pixels above which dropping it (nerfstudio's cameras have none) is worth a word."""


@dataclass
class IdrDataParserConfig(DataParserConfig):
    """A folder in IDR layout."""

    _target: Type = field(default_factory=lambda: IdrDataParser)
    data: Optional[Path] = None
    """Folder that holds image/ and the camera file."""
    camera_file: str = "cameras.npz"
    """Name of the camera file."""
    train_views: Optional[str] = None
    """Views to train on, as indices with commas (3,17,40), counted over the sorted pictures."""
    num_views: Optional[int] = None
    """How many views to train on; all others are held out. Neither given: every 8th is held out."""
    pick: Literal["even", "farthest"] = "farthest"
    """How num-views chooses: evenly over the indices, or far from one another."""
    max_test_views: Optional[int] = None
    """Most views to evaluate on; none: all that are held out."""


@dataclass
class IdrDataParser(DataParser):
    """Normalised by scale_mat; `metadata["fg_mask_filenames"]` lists masks where the folder has them."""

    config: IdrDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        folder = self.config.data
        if folder is None:
            raise InputError("idr-data reads a folder: give --data.")
        images = _listed(Path(folder).expanduser() / "image")
        masks = self._masks(Path(folder).expanduser(), len(images))
        numbers, world, scale = self._matrices(Path(folder).expanduser() / self.config.camera_file, images)
        size = Image.open(images[0]).size
        intrinsics, poses = [], []
        for k, image in enumerate(images):
            if Image.open(image).size != size:
                raise InputError(
                    f"{image} is not {size[0]}x{size[1]} as {images[0].name} is: give pictures of one size."
                )
            calibration, pose = decompose(world[k] @ scale, f"world_mat_{numbers[k]} of {self.config.camera_file}")
            if abs(calibration[0, 1]) > MAX_SKEW:
                CONSOLE.print(f"Camera {numbers[k]} has a skew of {calibration[0, 1]:.2f} pixels, which is dropped.")
            intrinsics.append(calibration)
            poses.append(pose)
        poses = torch.tensor(np.stack(poses), dtype=torch.float32)
        views = split_views(
            poses[:, :, 3],
            self.config.train_views,
            self.config.num_views,
            self.config.pick,
            self.config.max_test_views,
            str(folder),
        )
        chosen = views.train if split == "train" else views.test
        cameras = Cameras(
            camera_to_worlds=poses[chosen],
            fx=torch.tensor([[float(intrinsics[k][0, 0])] for k in chosen]),
            fy=torch.tensor([[float(intrinsics[k][1, 1])] for k in chosen]),
            # These files put pixel centres at integers, nerfstudio at one half.
            cx=torch.tensor([[float(intrinsics[k][0, 2]) + 0.5] for k in chosen]),
            cy=torch.tensor([[float(intrinsics[k][1, 2]) + 0.5] for k in chosen]),
            width=size[0],
            height=size[1],
            camera_type=CameraType.PERSPECTIVE,
        )
        metadata = {} if masks is None else {"fg_mask_filenames": [masks[k] for k in chosen]}
        return DataparserOutputs(
            image_filenames=[images[k] for k in chosen],
            cameras=cameras,
            scene_box=SceneBox(aabb=torch.tensor([[-1.5, -1.5, -1.5], [1.5, 1.5, 1.5]])),
            metadata=metadata,
            # x_normalised = 1/s (x_world - t), for scale_mat = [s I | t]
            dataparser_transform=torch.cat([torch.eye(3), -torch.tensor(scale[:3, 3:], dtype=torch.float32)], dim=1),
            dataparser_scale=float(1 / scale[0, 0]),
        )

    def _masks(self, folder: Path, count: int) -> Optional[List[Path]]:
        if not (folder / "mask").is_dir():
            return None
        masks = _listed(folder / "mask")
        if len(masks) != count:
            raise InputError(f"{folder / 'mask'} holds {len(masks)} masks for {count} pictures: one each is needed.")
        share = float(np.mean([np.asarray(Image.open(path).convert("L")) > 127 for path in masks]))
        if not 0.001 < share < 0.95:
            raise InputError(
                f"The masks in {folder / 'mask'} call {share:.0%} of all pixels object: white must be the object; "
                "invert them, or remove the folder to train without."
            )
        return masks

    def _matrices(
        self, path: Path, images: List[Path]
    ) -> Tuple[List[int], List[Float[np.ndarray, "4 4"]], Float[np.ndarray, "4 4"]]:
        """Camera numbers, their projections in the order of the pictures, and the one scale matrix."""
        if not path.is_file():
            raise InputError(f"There is no {path}: the folder is not in IDR layout, or the file has another name "
                             "(--camera-file).")  # fmt: skip
        try:
            with np.load(path) as archive:
                arrays: Dict[str, np.ndarray] = {key: archive[key].astype(np.float64) for key in archive.files}
        except Exception as error:
            raise InputError(f"{path} cannot be read ({type(error).__name__}): it may be half downloaded.") from error
        numbers = sorted(int(key[10:]) for key in arrays if key.startswith("world_mat_") and key[10:].isdigit())
        if len(numbers) != len(images):
            # Folders that hold some of the views name them by the number of their camera.
            named = [int(stem) if stem.isdigit() else -1 for stem in (image.stem.split("_")[-1] for image in images)]
            if not set(named) <= set(numbers) or len(set(named)) != len(named):
                raise InputError(
                    f"{path} has {len(numbers)} cameras for {len(images)} pictures, and the pictures' names are not "
                    "camera numbers: bring one picture per camera, or name each after its camera."
                )
            numbers = named
        scales = []
        for number in numbers:
            for key in (f"world_mat_{number}", f"scale_mat_{number}"):
                matrix = arrays.get(key)
                if matrix is None or matrix.shape not in ((4, 4), (3, 4)) or not np.isfinite(matrix).all():
                    raise InputError(f"{key} of {path} is missing, of a wrong shape, or not finite.")
            scales.append(arrays[f"scale_mat_{number}"])
        if max(np.abs(other - scales[0]).max() for other in scales) > 1e-4 * max(1.0, np.abs(scales[0]).max()):
            raise InputError(f"The scale_mat_i of {path} differ from view to view: there must be one world.")
        scale = scales[0]
        uniform = np.abs(scale[:3, :3] - scale[0, 0] * np.eye(3)).max() < 1e-6 * abs(scale[0, 0])
        if scale[0, 0] <= 0 or not uniform:
            raise InputError(f"scale_mat_0 of {path} is not a positive scale and a shift.")
        return numbers, [arrays[f"world_mat_{number}"] for number in numbers], scale


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


def _listed(folder: Path) -> List[Path]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in ENDINGS)
    if not paths:
        raise InputError(f"{folder} holds no pictures ({', '.join(ENDINGS)}): the data is not in IDR layout.")
    return paths


idr_data = DataParserSpecification(
    config=IdrDataParserConfig(),
    description="Pictures, masks and cameras.npz as IDR, NeuS and VolSDF lay them out (DTU, BlendedMVS, H3DS, own).",
)
