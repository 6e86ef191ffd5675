"""Pictures with `poses_bounds.npy`, as LLFF and many captures of single objects have them, and masks beside them.

Each row holds a 3x5 matrix, columns down, right, backward, position, (height, width, focal length) in world axes, and
the nearest and farthest depth, which are not needed here. The principal point is the picture's centre.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Tuple, Type

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
class LlffDataParserConfig(ObjectDataParserConfig):
    """A folder with poses_bounds.npy, images/, and masks/ where there are masks."""

    _target: Type = field(default_factory=lambda: LlffDataParser)
    images: str = "images"
    """Folder of the pictures; they may be smaller than poses_bounds.npy says (images_4)."""
    masks: str = "masks"
    """Folder of the masks, white for the object, of the pictures' size; none: train without. Unless it is named, it may
    be missing."""


@dataclass
class LlffDataParser(DataParser):
    """In the file's own world; the surface methods' data manager normalises it."""

    config: LlffDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        if config.data is None:
            raise InputError("llff-data reads a folder: give --data.")
        folder = Path(config.data).expanduser()
        images = pictures_in(folder / config.images, "LLFF")
        masks = foreground_masks(folder / config.masks, images, "LLFF", config.masks != LlffDataParserConfig.masks)
        size = picture_size(images)
        poses, focals = _read_poses(folder / "poses_bounds.npy", images, size)
        views = split_views(
            poses[:, :, 3], config.train_views, config.num_views, config.pick, config.max_test_views, str(config.data)
        )
        centre = torch.tensor(size).expand(len(images), 2) / 2
        intrinsics = torch.cat([focals[:, None], focals[:, None], centre], dim=1)
        return object_outputs(images, masks, poses, intrinsics, size, views.train if split == "train" else views.test)


def _read_poses(
    path: Path, images: List[Path], size: Tuple[int, int]
) -> Tuple[Float[torch.Tensor, "views 3 4"], Float[torch.Tensor, "views"]]:
    """Camera-to-world poses (OpenGL axes) and focal lengths in pixels of the pictures as they are."""
    if not path.is_file():
        raise InputError(f"There is no {path}: the folder is not in LLFF layout.")
    try:
        rows = np.load(path, allow_pickle=False).astype(np.float64)
    except Exception as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}): it may be half downloaded.") from error
    if rows.ndim != 2 or rows.shape[1] not in (15, 17):
        raise InputError(f"{path} has the shape {rows.shape}, but rows of 17 numbers are wanted, one for each picture.")
    if len(rows) != len(images):
        raise InputError(
            f"{path} has {len(rows)} cameras for {len(images)} pictures in {images[0].parent}: one each is needed."
        )
    matrices = torch.from_numpy(rows[:, :15].reshape(-1, 3, 5))
    bad = torch.nonzero(~torch.isfinite(matrices).flatten(1).all(1)).flatten()
    if len(bad):
        raise InputError(f"Row {int(bad[0])} of {path} ({images[int(bad[0])].name}) holds numbers that are not finite.")
    down, right, backward, position, (height, width, focal) = (
        *matrices[:, :, :4].unbind(-1),
        matrices[:, :, 4].unbind(-1),
    )
    axes = torch.stack([right, -down, backward], dim=-1)
    turned = (axes.transpose(1, 2) @ axes - torch.eye(3, dtype=axes.dtype)).abs().amax(dim=(1, 2)) > 0.01
    if bool(turned.any()):
        raise InputError(
            f"Row {int(torch.nonzero(turned)[0])} of {path} holds no rotation: its first three columns must be the "
            "camera's down, right and backward axes."
        )
    scale = size[0] / width
    if bool(((height * scale - size[1]).abs() > 2).any()):
        raise InputError(
            f"{path} speaks of pictures of {width[0]:.0f}x{height[0]:.0f} pixels, and those in {images[0].parent} are "
            f"{size[0]}x{size[1]}, of another shape: the file belongs to other pictures."
        )
    return torch.cat([axes, position[..., None]], dim=-1), focal * scale


llff_data = DataParserSpecification(
    config=LlffDataParserConfig(),
    description="Pictures, optional masks and poses_bounds.npy, as LLFF has them.",
)
