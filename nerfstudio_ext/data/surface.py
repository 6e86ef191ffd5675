"""Posed pictures of an object with what may be known besides: foreground masks, depth and normals."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Type

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.pixel_samplers import PixelSampler
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from torch import Tensor

from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from nerfstudio_ext.data.normalise import Normalisation, NormaliseMode, find_normalisation
from nerfstudio_ext.engine.errors import InputError


class SurfaceDataset(InputDataset):
    """Pictures with ``fg_mask`` [H, W, 1] in [0, 1] where masks are known, and for drawn scenes ``gt_depth`` [H, W, 1]
    and ``gt_normals`` [H, W, 3].

    The host's own key ``mask`` means "pixels that may be sampled", which would leave the background untrained.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        if scale_factor != 1.0 and "object_views" in dataparser_outputs.metadata:
            raise InputError("--pipeline.datamanager.camera-res-scale-factor: draw the object smaller with --size.")
        super().__init__(dataparser_outputs, scale_factor)
        self.metadata["pictures"] = _Pictures(self)

    def get_numpy_image(self, image_idx: int) -> np.ndarray:
        """One picture, uint8 [H, W, 3 or 4]."""
        scene = self.metadata.get("object_views")
        if scene is None:
            return super().get_numpy_image(image_idx)
        rgb = scene.view(self.metadata["view_indices"][image_idx]).rgb
        return torch.round(rgb * 255).to(torch.uint8).numpy()

    def get_metadata(self, data: Dict) -> Dict:
        scene = self.metadata.get("object_views")
        if scene is not None:
            view = scene.view(self.metadata["view_indices"][data["image_idx"]])
            return {
                "fg_mask": view.mask[..., None].float(),
                "gt_depth": view.depth[..., None],
                "gt_normals": view.normals,
            }
        masks = self.metadata.get("fg_mask_filenames")
        if masks is not None:
            return {"fg_mask": self._read_mask(masks[data["image_idx"]], data["image"])}
        if self._dataparser_outputs.alpha_color is None:
            return {}
        # Pictures with an alpha channel were blended with a plain colour; the alpha is their mask.
        image = self.get_numpy_image(data["image_idx"])
        return {"fg_mask": torch.from_numpy(image[..., 3:].astype(np.float32) / 255)} if image.shape[2] == 4 else {}

    def _read_mask(self, path: Path, image: Tensor) -> Float[Tensor, "height width 1"]:
        """Mask of the size of its picture, white for the object."""
        mask = Image.open(path).convert("L")
        height, width = image.shape[:2]
        if self.scale_factor != 1.0:
            mask = mask.resize((width, height), resample=Image.Resampling.BILINEAR)
        if mask.size != (width, height):
            raise InputError(
                f"The mask {path} is {mask.size[0]}x{mask.size[1]}, but its picture is {width}x{height}: give every "
                "picture a mask of its own size."
            )
        return torch.from_numpy(np.array(mask, dtype=np.float32) / 255.0)[..., None]


class _Pictures:
    """A dataset's pictures without the rest, for models that learn from whole views before training."""

    def __init__(self, dataset: SurfaceDataset) -> None:
        self._dataset = dataset

    def training_pictures(self) -> List[Float[Tensor, "height width 3"]]:
        return [self._dataset.get_image_float32(k)[..., :3] for k in range(len(self._dataset))]


@dataclass
class SurfaceDataManagerConfig(VanillaDataManagerConfig):
    """Random rays from all training views at once; the views are few, so all of them stay in memory."""

    _target: Type = field(default_factory=lambda: SurfaceDataManager)
    dataparser: AnnotatedDataParserUnion = field(default_factory=ProceduralObjectDataParserConfig)
    """Where the views come from."""
    normalise: NormaliseMode = "auto"
    """auto (move and scale the cameras only if they do not already surround the origin at a radius of 2 to 3), file
    (keep them as they are) or cameras (always)."""


class SurfaceDataManager(VanillaDataManager[SurfaceDataset]):
    """nerfstudio's ray data manager over `SurfaceDataset`."""

    config: SurfaceDataManagerConfig

    def __init__(self, config: SurfaceDataManagerConfig, *args, **kwargs) -> None:
        self._normalisation: Optional[Normalisation] = None
        super().__init__(config, *args, **kwargs)

    @property
    def dataset_type(self) -> Type[SurfaceDataset]:
        return SurfaceDataset

    def create_train_dataset(self) -> SurfaceDataset:
        """The training views, in the frame that surface methods work in."""
        self._normalisation = find_normalisation(self.train_dataparser_outputs.cameras, self.config.normalise)
        self._normalisation.apply(self.train_dataparser_outputs)
        if self.test_mode != "inference":
            CONSOLE.print(self._normalisation.report, soft_wrap=True, highlight=False)
        return SurfaceDataset(self.train_dataparser_outputs, self.config.camera_res_scale_factor)

    def create_eval_dataset(self) -> SurfaceDataset:
        """The held-out views, moved as the training views were."""
        assert self._normalisation is not None
        outputs = self.dataparser.get_dataparser_outputs(split=self.test_split)
        self._normalisation.apply(outputs)
        return SurfaceDataset(outputs, self.config.camera_res_scale_factor)

    def _get_pixel_sampler(self, dataset: SurfaceDataset, num_rays_per_batch: int) -> PixelSampler:
        # The stock method writes a tensor into the config, and with it into config.yml.
        equirectangular = bool((dataset.cameras.camera_type == CameraType.EQUIRECTANGULAR.value).all())
        sampler = copy.deepcopy(self.config.pixel_sampler)
        return sampler.setup(num_rays_per_batch=num_rays_per_batch, is_equirectangular=equirectangular)

    def get_datapath(self) -> Path:
        """The source, beside which the viewer keeps camera paths; the working directory where there is none."""
        source = self.config.dataparser.data
        return source if source is not None and source.exists() else Path.cwd()
