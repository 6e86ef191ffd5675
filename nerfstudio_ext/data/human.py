"""Pictures of a moving body with masks and times; training rays come half from the body, half from its box."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Tuple, Type

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
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor

from dataparsers.procedural_human import ProceduralHumanDataParserConfig
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_grid import box_span
from nerfstudio_ext.human.capture import HumanView

BOX_PADDING = 0.05
"""Room around the vertices for the box that rays are drawn from and that ``psnr_box`` counts, metres."""


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
        self._boxes: Dict[int, Bool[Tensor, "height width"]] = {}

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
        if index not in self._boxes:
            vertices = self.metadata["body_motion"].vertices[self.metadata["views"][index][0]]
            rays = self.cameras.generate_rays(camera_indices=index).to("cpu")
            box = torch.stack([vertices.amin(0) - BOX_PADDING, vertices.amax(0) + BOX_PADDING])
            enter, leave = box_span(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3), box)
            self._boxes[index] = (leave > enter).view(rays.origins.shape[:2])
        return self._boxes[index]

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
    """Draws pixels by mask and box; pictures stay as they are in the dataset."""

    config: HumanDataManagerConfig

    def __init__(self, config: HumanDataManagerConfig, *args, **kwargs) -> None:
        self._pixels: Dict[int, Tuple[Tensor, Tensor]] = {}
        super().__init__(config, *args, **kwargs)

    @property
    def dataset_type(self) -> Type[HumanDataset]:
        return HumanDataset

    def setup_train(self) -> None:
        """Sampler and rays; no cache of float pictures, for one picture is used at a time."""
        self.train_pixel_sampler = self._get_pixel_sampler(self.train_dataset, self.config.train_num_rays_per_batch)
        self.train_ray_generator = RayGenerator(self.train_dataset.cameras.to(self.device))

    def next_train(self, step: int) -> Tuple[RayBundle, Dict]:
        self.train_count += 1
        assert self.train_pixel_sampler is not None
        index = int(torch.randint(len(self.train_dataset), ()))
        indices = self.draw_pixels(index, self.train_pixel_sampler.num_rays_per_batch)
        data = self.train_dataset[index]
        rows, columns = indices[:, 1], indices[:, 2]
        batch = {key: data[key][rows, columns].to(self.device) for key in ("image", "fg_mask")}
        batch["indices"] = indices
        return self.train_ray_generator(indices.to(self.device)), batch

    def draw_pixels(self, index: int, count: int) -> Int[Tensor, "count 3"]:
        """Random (picture, row, column) of one training picture: `body_share` on the person, the rest in its box."""
        if index not in self._pixels:
            self._pixels[index] = self._usable_pixels(index)
        body, box = self._pixels[index]
        on_body = round(count * self.config.body_share) if len(body) else 0
        picks = [body[torch.randint(max(len(body), 1), (on_body,))], box[torch.randint(len(box), (count - on_body,))]]
        pixels = torch.cat(picks)
        return torch.cat([torch.full_like(pixels[:, :1], index), pixels], dim=1)

    def _usable_pixels(self, index: int) -> Tuple[Int[Tensor, "n 2"], Int[Tensor, "m 2"]]:
        mask = self.train_dataset[index]["fg_mask"][..., 0] > 0.5
        sure, near = _eroded(mask, self.config.band), ~_eroded(~mask, self.config.band)
        in_box = self.train_dataset.in_box(index)
        usable = in_box & (sure | ~near)
        if not bool(usable.any()):
            raise InputError(
                f"{self.train_dataset.image_filenames[index]} does not show the body's box: the vertices, the camera "
                "or their units are wrong."
            )
        return torch.nonzero(sure & in_box), torch.nonzero(usable)

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
