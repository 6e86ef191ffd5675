"""BlendedMVS as it is published (Yao et al. 2020): `blended_images/` and one text file per camera in `cams/`.

A file `00000000_cam.txt` holds the word extrinsic, a 4x4 world-to-camera matrix (OpenCV axes), the word intrinsic, a
3x3 calibration (pixel centres at integers) and a line of depths, which is not needed here.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Tuple, Type

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from dataparsers._common import (
    ObjectDataParserConfig,
    object_outputs,
    picture_size,
    pictures_in,
    split_views,
)
from dataparsers._masks import foreground_masks
from nerfstudio_ext.engine.errors import InputError


@dataclass
class BlendedMvsDataParserConfig(ObjectDataParserConfig):
    """One scan's folder, which holds blended_images/, cams/, and mask/ where there are masks."""

    _target: Type = field(default_factory=lambda: BlendedMvsDataParser)


@dataclass
class BlendedMvsDataParser(DataParser):
    """In the scan's own world; the surface methods' data manager normalises it."""

    config: BlendedMvsDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        if config.data is None:
            raise InputError("blended-mvs-data reads a folder: give --data.")
        folder = Path(config.data).expanduser()
        # The release has every picture twice, once with its surroundings blacked out.
        found = pictures_in(folder / "blended_images", "BlendedMVS")
        images = [path for path in found if not path.stem.endswith("_masked")]
        if not images:
            raise InputError(f"{folder / 'blended_images'} holds masked pictures only: the plain ones are needed.")
        masks = foreground_masks(folder / "mask", images, "BlendedMVS")
        size = picture_size(images)
        cameras = [_read_camera(folder / "cams" / f"{image.stem}_cam.txt") for image in images]
        poses = torch.tensor(np.stack([pose for pose, _ in cameras]))
        intrinsics = torch.tensor(np.stack([intrinsic for _, intrinsic in cameras]))
        views = split_views(
            poses[:, :, 3], config.train_views, config.num_views, config.pick, config.max_test_views, str(config.data)
        )
        return object_outputs(images, masks, poses, intrinsics, size, views.train if split == "train" else views.test)


def _read_camera(path: Path) -> Tuple[Float[np.ndarray, "3 4"], Float[np.ndarray, "4"]]:
    """Camera-to-world pose (OpenGL axes), and fx, fy, cx, cy with pixel centres at one half."""
    if not path.is_file():
        raise InputError(f"There is no {path}: every picture needs the camera file of its name.")
    words = path.read_text(errors="replace").split()
    try:
        start, middle = words.index("extrinsic") + 1, words.index("intrinsic") + 1
        world = np.array(words[start : start + 16], dtype=np.float64).reshape(4, 4)
        calibration = np.array(words[middle : middle + 9], dtype=np.float64).reshape(3, 3)
    except ValueError:
        raise InputError(
            f"{path} is no camera file: the word extrinsic with 16 numbers and intrinsic with 9 are wanted."
        ) from None
    rotation, translation = world[:3, :3], world[:3, 3]
    if not (np.isfinite(world).all() and np.abs(rotation @ rotation.T - np.eye(3)).max() < 0.01):
        raise InputError(f"The extrinsic matrix in {path} is not finite or holds no rotation.")
    if not (np.isfinite(calibration).all() and calibration[0, 0] > 0 and calibration[1, 1] > 0):
        raise InputError(f"The intrinsic matrix in {path} is not finite or has no positive focal lengths.")
    pose = np.concatenate([rotation.T * [1.0, -1.0, -1.0], -(rotation.T @ translation)[:, None]], axis=1)
    centre = calibration[:2, 2] + 0.5
    return pose, np.array([calibration[0, 0], calibration[1, 1], *centre])


blended_mvs_data = DataParserSpecification(
    config=BlendedMvsDataParserConfig(),
    description="A scan of BlendedMVS as published: blended_images/ and cams/.",
)
