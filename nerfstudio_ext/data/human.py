"""Pictures of a moving body with masks and times; training rays come half from the body, half from its box."""

import copy
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Tuple, Type, Union

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.pixel_samplers import PixelSampler
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from nerfstudio.model_components.ray_generators import RayGenerator
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from dataparsers.procedural_human import ProceduralHumanDataParserConfig
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_grid import box_span
from nerfstudio_ext.human.capture import HumanView

BOX_PADDING = 0.05
"""Metres around the vertices, where no model says otherwise."""
KEPT_PIXELS = 128 * 1024**2
"""Usable pixels of training pictures that are remembered, each of 4 bytes."""


class HumanDataset(InputDataset):
    """Pictures with ``fg_mask`` [H, W, 1] (1 where the person is), ``box_mask`` [H, W, 1] (1 where the ray meets the
    box around the body), ``frame``, and ``gt_depth`` [H, W, 1] where it is known.

    The host's own key ``mask`` means "pixels that may be sampled", which would leave the background untrained.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        if "human_scene" not in dataparser_outputs.metadata:
            raise InputError("neural-body needs a body: name a dataparser that brings one, as procedural-human-data.")
        if scale_factor != 1.0:
            raise InputError(
                "--pipeline.datamanager.camera-res-scale-factor: the dataparser decides the size (--size, --max-side)."
            )
        super().__init__(dataparser_outputs, scale_factor)
        self._padding = torch.tensor(BOX_PADDING)
        self._boxes: Dict[int, np.ndarray] = {}

    def pad_boxes(self, padding: Union[float, Tuple[float, float, float]]) -> None:
        """Leave this room around the vertices on every side, or along x, y and z; metres."""
        self._padding = torch.tensor(padding)
        self._boxes.clear()

    def get_numpy_image(self, image_idx: int) -> np.ndarray:
        """One picture, uint8 [H, W, 3]."""
        return self._view(image_idx).rgb

    def get_metadata(self, data: Dict) -> Dict:
        index = data["image_idx"]
        view = self._view(index)
        known = {} if view.depth is None else {"gt_depth": torch.from_numpy(view.depth)[..., None]}
        return {
            "fg_mask": torch.from_numpy(view.mask)[..., None].float(),
            "box_mask": self.in_box(index)[..., None],
            "frame": self.metadata["views"][index][0],
            **known,
        }

    def in_box(self, index: int) -> Bool[Tensor, "height width"]:
        """Pixels of a picture whose ray meets the padded box around the vertices."""
        height, width = int(self.cameras.height[index]), int(self.cameras.width[index])
        if index not in self._boxes:
            vertices = self.metadata["body_motion"].vertices[self.metadata["views"][index][0]]
            rays = self.cameras.generate_rays(camera_indices=index).to("cpu")
            box = torch.stack([vertices.amin(0) - self._padding, vertices.amax(0) + self._padding])
            enter, leave = box_span(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3), box)
            self._boxes[index] = np.packbits((leave > enter).numpy())  # an eighth of the memory
        unpacked = np.unpackbits(self._boxes[index], count=height * width)
        return torch.from_numpy(unpacked).view(height, width) > 0

    def mask(self, index: int) -> Bool[Tensor, "height width"]:
        """Where the person is in a picture."""
        return torch.from_numpy(self._view(index).mask) > 0

    def _view(self, index: int) -> HumanView:
        return self.metadata["human_scene"].view(*self.metadata["views"][index])


@dataclass
class HumanDataManagerConfig(VanillaDataManagerConfig):
    """One picture a step, since the structured codes are diffused once per frame."""

    _target: Type = field(default_factory=lambda: HumanDataManager)
    dataparser: AnnotatedDataParserUnion = field(default_factory=ProceduralHumanDataParserConfig)
    """Where the capture comes from."""
    body_share: float = 0.5
    """Share of the rays that go through the person; the others go through the box around it."""
    band: int = 2
    """Pixels on either side of a mask's edge that are never trained on; masks of real captures are not exact."""


class HumanDataManager(VanillaDataManager[HumanDataset]):
    """Draws pixels by mask and box; pictures stay as they are in the dataset. The box is the model's, where it has a
    setting ``box_padding``."""

    config: HumanDataManagerConfig

    def __init__(self, config: HumanDataManagerConfig, *args, **kwargs) -> None:
        self._pixels: "OrderedDict[int, Tuple[Tensor, Tensor]]" = OrderedDict()
        self._kept_pixels = 0
        super().__init__(config, *args, **kwargs)

    @property
    def dataset_type(self) -> Type[HumanDataset]:
        return HumanDataset

    def setup_train(self) -> None:
        """Sampler and rays; no cache of float pictures, for one picture is used at a time."""
        self.train_pixel_sampler = self._get_pixel_sampler(self.train_dataset, self.config.train_num_rays_per_batch)
        self.train_ray_generator = RayGenerator(self.train_dataset.cameras.to(self.device))
        if self.config.band > 0 and self.test_mode == "val":  # only where it trains: all masks are read
            self._tell_lost_masks()

    def _tell_lost_masks(self) -> None:
        """Say which masks are so thin that the ring about their edge is all of them."""
        dataset, band = self.train_dataset, self.config.band
        lost = [k for k in range(len(dataset)) if not bool(_eroded(dataset.mask(k), band).any())]
        if lost:
            CONSOLE.print(
                f"{len(lost)} of {len(dataset)} masks have no pixel further than {band} from their edge, as that of "
                f"{dataset.image_filenames[lost[0]]}: their rays go beside the person alone; lower "
                "--pipeline.datamanager.band.",
                soft_wrap=True,
                highlight=False,
            )

    def setup_eval(self) -> None:
        """Rays and loaders of single pictures, which may differ in size; no cache of them."""
        dataset, device = self.eval_dataset, self.device
        self.eval_pixel_sampler = self._get_pixel_sampler(dataset, self.config.eval_num_rays_per_batch)
        self.eval_ray_generator = RayGenerator(dataset.cameras.to(device))
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(dataset, device=device, num_workers=0)
        self.eval_dataloader = RandIndicesEvalDataloader(dataset, device=device, num_workers=0)

    def follow(self, model: Any) -> None:
        """Draw and score rays in the box that the model renders; the pipeline calls it once there is a model."""
        if hasattr(model.config, "box_padding"):
            for dataset in (self.train_dataset, self.eval_dataset):
                dataset.pad_boxes(model.config.box_padding)
            self._pixels.clear()
            self._kept_pixels = 0

    def next_train(self, step: int) -> Tuple[RayBundle, Dict]:
        self.train_count += 1
        assert self.train_pixel_sampler is not None
        index = int(torch.randint(len(self.train_dataset), ()))
        indices = self.draw_pixels(index, self.train_pixel_sampler.num_rays_per_batch)
        return self.train_ray_generator(indices.to(self.device)), self._batch(self.train_dataset, indices)

    def next_eval(self, step: int) -> Tuple[RayBundle, Dict]:
        """Rays anywhere in one held-out picture."""
        self.eval_count += 1
        assert self.eval_pixel_sampler is not None
        cameras, index = self.eval_dataset.cameras, int(torch.randint(len(self.eval_dataset), ()))
        size = torch.tensor([int(cameras.height[index]), int(cameras.width[index])])
        pixels = (torch.rand(self.eval_pixel_sampler.num_rays_per_batch, 2) * size).long()
        indices = torch.cat([torch.full_like(pixels[:, :1], index), pixels], dim=1)
        return self.eval_ray_generator(indices.to(self.device)), self._batch(self.eval_dataset, indices)

    def _batch(self, dataset: HumanDataset, indices: Int[Tensor, "rays 3"]) -> Dict:
        """Colours and masks of (picture, row, column) in one picture."""
        data = dataset[int(indices[0, 0])]
        batch = {key: data[key][indices[:, 1], indices[:, 2]].to(self.device) for key in ("image", "fg_mask")}
        return {**batch, "indices": indices}

    def draw_pixels(self, index: int, count: int) -> Int[Tensor, "count 3"]:
        """Random (picture, row, column) of one training picture: `body_share` on the person, the rest in its box."""
        if index not in self._pixels:
            self._keep_pixels(index, self._usable_pixels(index))
        self._pixels.move_to_end(index)
        body, box = self._pixels[index]
        on_body = round(count * self.config.body_share) if len(body) else 0
        picks = [body[torch.randint(max(len(body), 1), (on_body,))], box[torch.randint(len(box), (count - on_body,))]]
        pixels, width = torch.cat(picks).long(), int(self.train_dataset.cameras.width[index])
        return torch.stack([torch.full_like(pixels, index), pixels // width, pixels % width], dim=1)

    def _keep_pixels(self, index: int, pixels: Tuple[Tensor, Tensor]) -> None:
        self._pixels[index] = pixels
        self._kept_pixels += sum(map(len, pixels))
        while self._kept_pixels > KEPT_PIXELS and len(self._pixels) > 1:
            _, oldest = self._pixels.popitem(last=False)
            self._kept_pixels -= sum(map(len, oldest))

    def _usable_pixels(self, index: int) -> Tuple[Int[Tensor, "n"], Int[Tensor, "m"]]:
        """Pixels on the person and in its box that are no edge, counted row by row."""
        mask = self.train_dataset.mask(index)
        sure, near = _eroded(mask, self.config.band), ~_eroded(~mask, self.config.band)
        in_box = self.train_dataset.in_box(index)
        usable = in_box & (sure | ~near)
        if not bool(usable.any()):
            raise InputError(
                f"{self.train_dataset.image_filenames[index]} does not show the body's box: the vertices, the camera "
                "or their units are wrong."
            )
        body, box = (torch.nonzero(pixels.flatten())[:, 0].int() for pixels in (sure & in_box, usable))
        return body, box

    def _get_pixel_sampler(self, dataset: HumanDataset, num_rays_per_batch: int) -> PixelSampler:
        # The stock method writes a tensor into the config, and with it into config.yml.
        return copy.deepcopy(self.config.pixel_sampler).setup(num_rays_per_batch=num_rays_per_batch)

    def get_datapath(self) -> Path:
        """The source, beside which the viewer keeps camera paths; the working directory where there is none."""
        source = self.config.dataparser.data
        return source if source is not None and source.exists() else Path.cwd()


def _eroded(mask: Bool[Tensor, "height width"], radius: int) -> Bool[Tensor, "height width"]:
    """Pixels whose square neighbourhood lies in the mask altogether."""
    outside = (~mask).float()[None, None]
    return F.max_pool2d(outside, 2 * radius + 1, 1, radius)[0, 0] == 0
