"""Posed pictures of an object with what may be known besides: foreground masks, depth and normals."""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Dict, List, Literal, Optional, Type

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

from dataparsers._common import split_views
from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from nerfstudio_ext.data.normalise import Normalisation, NormaliseMode, find_normalisation
from nerfstudio_ext.engine.errors import InputError


class SurfaceDataset(InputDataset):
    """Pictures with ``fg_mask`` [H, W, 1] in [0, 1] where masks are known, and for drawn scenes ``gt_depth`` [H, W, 1]
    and ``gt_normals`` [H, W, 3].

    The host's own key ``mask`` means "pixels that may be sampled", which would leave the background untrained: masks
    that a dataparser gives under that name become ``fg_mask`` as well.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        if scale_factor != 1.0 and "object_views" in dataparser_outputs.metadata:
            raise InputError("--pipeline.datamanager.camera-res-scale-factor: draw the object smaller with --size.")
        masks = dataparser_outputs.mask_filenames
        if masks is not None:
            metadata = {**dataparser_outputs.metadata, "fg_mask_filenames": masks}
            dataparser_outputs = replace(dataparser_outputs, mask_filenames=None, metadata=metadata)
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
    train_views: Optional[str] = None
    """Views to train on, as indices with commas (3,17,40), out of what the dataparser gives for training; for parsers
    that have no such choice themselves."""
    num_views: Optional[int] = None
    """Likewise, how many views to train on."""
    pick: Literal["even", "farthest"] = "farthest"
    """How num-views chooses: evenly over the indices, or far from one another."""
    max_test_views: Optional[int] = None
    """Most of the dataparser's held-out views to evaluate on, evenly chosen; none: all."""


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
        """The chosen training views, in the frame that surface methods work in."""
        config, outputs = self.config, self.train_dataparser_outputs
        if config.train_views is not None or config.num_views is not None:
            positions = outputs.cameras.camera_to_worlds[:, :, 3]
            source = "the training part of the data"
            views = split_views(positions, config.train_views, config.num_views, config.pick, None, source)
            self.train_dataparser_outputs = select_views(outputs, views.train)
        self._normalisation = find_normalisation(self.train_dataparser_outputs.cameras, self.config.normalise)
        self._normalisation.apply(self.train_dataparser_outputs)
        if self.test_mode != "inference":
            names = ", ".join(path.stem for path in self.train_dataparser_outputs.image_filenames[:32])
            count = len(self.train_dataparser_outputs.image_filenames)
            text = f"{count} training views: {names}{', ...' if count > 32 else ''}. {self._normalisation.report}"
            CONSOLE.print(text, soft_wrap=True, highlight=False)
        return SurfaceDataset(self.train_dataparser_outputs, self.config.camera_res_scale_factor)

    def create_eval_dataset(self) -> SurfaceDataset:
        """The held-out views, moved as the training views were."""
        assert self._normalisation is not None
        outputs = self.dataparser.get_dataparser_outputs(split=self.test_split)
        count, most = len(outputs.image_filenames), self.config.max_test_views
        if most is not None and most < count:
            outputs = select_views(outputs, [k * count // most for k in range(most)])
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


def select_views(outputs: DataparserOutputs, chosen: List[int]) -> DataparserOutputs:
    """The chosen ones of a dataparser's views, with what belongs to them: every list with one entry for each view."""
    count = len(outputs.image_filenames)

    def cut(entry):
        return [entry[k] for k in chosen] if isinstance(entry, (list, tuple)) and len(entry) == count else entry

    return replace(
        outputs,
        image_filenames=cut(outputs.image_filenames),
        mask_filenames=cut(outputs.mask_filenames),
        cameras=outputs.cameras[torch.tensor(chosen)],
        metadata={key: cut(value) for key, value in outputs.metadata.items()},
    )
