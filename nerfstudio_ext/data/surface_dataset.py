"""Pictures of an object with what is known of their pixels: foreground masks, depth and normals."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Dict, List

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from dataparsers._common import open_picture, read_pixels
from dataparsers._masks import looked_at, require_upright
from nerfstudio_ext.engine.errors import InputError


class SurfaceDataset(InputDataset):
    """Pictures with ``fg_mask`` [H, W, 1] in [0, 1] where masks are known, and where the truth is, ``gt_depth``
    [H, W, 1] in units of the cameras' frame and ``gt_normals`` [H, W, 3].

    The host's own key ``mask`` means "pixels that may be sampled", which would leave the background untrained: masks
    that a dataparser gives under that name become ``fg_mask`` as well. An alpha channel is the mask of its picture
    where there is no other, and what it hides becomes white unless the dataparser names a colour:
    `transparency` says so.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        if scale_factor != 1.0 and "object_views" in dataparser_outputs.metadata:
            raise InputError("--pipeline.datamanager.camera-res-scale-factor: draw the object smaller with --size.")
        self._stock_masks = dataparser_outputs.mask_filenames
        if self._stock_masks is not None:
            metadata = {**dataparser_outputs.metadata, "fg_mask_filenames": self._stock_masks}
            dataparser_outputs = replace(dataparser_outputs, mask_filenames=None, metadata=metadata)
        if dataparser_outputs.alpha_color is None:
            dataparser_outputs = replace(dataparser_outputs, alpha_color=torch.ones(3))
        super().__init__(dataparser_outputs, scale_factor)
        self.metadata["pictures"] = _Pictures(self)

    @property
    def has_masks(self) -> bool:
        """Whether every picture comes with its ``fg_mask``."""
        return "object_views" in self.metadata or "fg_mask_filenames" in self.metadata or self._alpha_masks

    @cached_property
    def _alpha_masks(self) -> bool:
        """Whether the pictures have alpha channels that hide anything, and no other masks."""
        if "object_views" in self.metadata or "fg_mask_filenames" in self.metadata:
            return False
        with_alpha = [open_picture(path).mode == "RGBA" for path in self.image_filenames]
        if not any(with_alpha):
            return False
        if not all(with_alpha):
            other = self.image_filenames[with_alpha.index(False)]
            raise InputError(f"{other} has no alpha channel, and other pictures have one: give it to all or none.")
        return self._hides

    @cached_property
    def _hides(self) -> bool:
        """Whether alpha channels hide anything in those pictures that are looked at."""
        seen = [path for path in looked_at(self.image_filenames) if open_picture(path).mode == "RGBA"]
        return any(bool((read_pixels(path)[..., 3] < 255).any()) for path in seen)

    def transparency(self) -> str:
        """What becomes of alpha channels, as a sentence without its full stop; empty where they hide nothing."""
        if "object_views" in self.metadata or not self._hides:
            return ""
        colour = self._dataparser_outputs.alpha_color
        assert colour is not None
        shown = [round(255 * value) for value in colour.tolist()]
        name = {(255, 255, 255): "white", (0, 0, 0): "black"}.get(tuple(shown), f"of the colour {shown}")
        use = "are the foreground masks" if self._alpha_masks else "are not used besides, since there are masks"
        return f"The pictures have alpha channels: what these hide is {name}, and the channels {use}"

    def require_upright_masks(self) -> None:
        """Refuse masks of stock dataparsers and alpha channels in which the object is black.

        Raises:
            InputError: They look inverted.
        """
        if self._stock_masks is not None:
            seen = [read_pixels(path, "L") > 127 for path in looked_at(self._stock_masks)]
            require_upright(seen, f"The masks beside {self._stock_masks[0]}", "leave them out of the data")
        elif self._alpha_masks:
            seen = [read_pixels(path)[..., 3] > 127 for path in looked_at(self.image_filenames)]
            require_upright(seen, f"The alpha channels beside {self.image_filenames[0]}", "save pictures without")

    def get_numpy_image(self, image_idx: int) -> np.ndarray:
        """One picture, uint8 [H, W, 3 or 4]."""
        scene = self.metadata.get("object_views")
        if scene is not None:
            rgb = scene.view(self.metadata["view_indices"][image_idx]).rgb
            return torch.round(rgb * 255).to(torch.uint8).numpy()
        path = self.image_filenames[image_idx]
        picture = open_picture(path)
        if picture.mode not in ("L", "RGB", "RGBA"):
            raise InputError(f"{path} is a picture of the kind {picture.mode}: save it as red, green, blue of 8 bits.")
        size = None
        if self.scale_factor != 1.0:
            width, height = picture.size
            size = (int(width * self.scale_factor), int(height * self.scale_factor))
        image = read_pixels(path, size=size)
        return image if image.ndim == 3 else image[..., None].repeat(3, axis=2)

    def get_metadata(self, data: Dict) -> Dict:
        scene, index = self.metadata.get("object_views"), data["image_idx"]
        scale = self._dataparser_outputs.dataparser_scale
        if scene is not None:
            view = scene.view(self.metadata["view_indices"][index])
            return {
                "fg_mask": view.mask[..., None].float(),
                "gt_depth": view.depth[..., None] * scale,
                "gt_normals": view.normals,
            }
        found: Dict[str, Tensor] = {}
        masks = self.metadata.get("fg_mask_filenames")
        if masks is not None:
            found["fg_mask"] = self._read_mask(masks[index], data["image"])
        elif self._alpha_masks:
            found["fg_mask"] = torch.from_numpy(self.get_numpy_image(index)[..., 3:].astype(np.float32) / 255)
        for name, channels, unit in (("depth", 1, scale), ("normals", 3, 1.0)):
            files = self.metadata.get(f"gt_{name}_filenames")
            if files is not None:
                found[f"gt_{name}"] = self._read_truth(files[index], data["image"], channels) * unit
        return found

    def _read_mask(self, path: Path, image: Tensor) -> Float[Tensor, "height width 1"]:
        """Mask of the size of its picture, white for the object."""
        height, width = image.shape[:2]
        mask = read_pixels(path, "L", (width, height) if self.scale_factor != 1.0 else None)
        if mask.shape != (height, width):
            raise InputError(
                f"The mask {path} is {mask.shape[1]}x{mask.shape[0]}, but its picture is {width}x{height}: give every "
                "picture a mask of its own size."
            )
        return torch.from_numpy(mask.astype(np.float32) / 255.0)[..., None]

    def _read_truth(self, path: Path, image: Tensor, channels: int) -> Float[Tensor, "height width channels"]:
        """What is known of every pixel, of the size of its picture; a smaller picture takes the nearest pixels'."""
        try:
            values = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}): write it again, or remove its folder.") from error
        values = values[..., None] if values.ndim == 2 else values
        if self.scale_factor != 1.0 and values.ndim == 3:
            values = F.interpolate(values.permute(2, 0, 1)[None], image.shape[:2], mode="nearest")[0].permute(1, 2, 0)
        if values.shape != (*image.shape[:2], channels):
            raise InputError(
                f"{path} holds numbers of the shape {tuple(values.shape)}, and its picture wants "
                f"{(*image.shape[:2], channels)}: write it again, or remove its folder."
            )
        return values


class _Pictures:
    """A dataset's pictures without the rest, for models that learn from whole views before training."""

    def __init__(self, dataset: SurfaceDataset) -> None:
        self._dataset = dataset

    def training_pictures(self) -> List[Float[Tensor, "height width 3"]]:
        return [self._dataset.get_image_float32(k)[..., :3] for k in range(len(self._dataset))]
