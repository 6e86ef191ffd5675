"""Pictures of many people; a training step draws one person, some source views and a patch of another view."""

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Tuple, Type

import numpy as np
import torch
from jaxtyping import Int
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.pixel_samplers import PixelSampler
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from nerfstudio.model_components.ray_generators import RayGenerator
from nerfstudio.utils import comms
from torch import Tensor

from dataparsers._people import people_outputs
from dataparsers.procedural_people import ProceduralPeopleDataParserConfig
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_grid import box_span
from nerfstudio_ext.human.subject import SubjectStore


class PeopleDataset(InputDataset):
    """Pictures with ``fg_mask`` [H, W, 1], ``box_mask`` [H, W, 1] (rays that meet
    `SubjectStore.scored_box`) and, where it is known, ``gt_depth`` [H, W, 1]. Nothing is kept beyond what the store
    keeps."""

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        if "subjects" not in dataparser_outputs.metadata:
            raise InputError(
                "keypoint-nerf needs people: name a dataparser that brings some, as procedural-people-data."
            )
        if scale_factor != 1.0:
            raise InputError("--pipeline.datamanager.camera-res-scale-factor: draw people smaller with --size.")
        super().__init__(dataparser_outputs, scale_factor)

    @property
    def store(self) -> SubjectStore:
        return self.metadata["subjects"]

    def get_numpy_image(self, image_idx: int) -> np.ndarray:
        """One picture, uint8 [H, W, 3]."""
        index, camera = self.metadata["views"][image_idx]
        return self.store.subject(index).rgb[camera].numpy()

    def get_metadata(self, data: Dict) -> Dict:
        index, camera = self.metadata["views"][data["image_idx"]]
        subject = self.store.subject(index)
        rays = self.cameras.generate_rays(camera_indices=data["image_idx"])
        origins, directions = (x.reshape(-1, 3).cpu() for x in (rays.origins, rays.directions))
        near, far = box_span(origins, directions, self.store.scored_box(index))
        mask = subject.mask[camera][..., None].float()
        found = {"fg_mask": mask, "box_mask": (far > near).view(mask.shape)}
        if subject.depth is not None:
            found["gt_depth"] = subject.depth[camera][..., None]
        return found


@dataclass
class PeopleDataManagerConfig(VanillaDataManagerConfig):
    """One person a step, whose source views are encoded once for all rays of a patch."""

    _target: Type = field(default_factory=lambda: PeopleDataManager)
    dataparser: AnnotatedDataParserUnion = field(default_factory=ProceduralPeopleDataParserConfig)
    """Where the people come from."""
    patch_size: int = 64
    """Side of the square of pixels that a step looks at."""
    num_sources: int = 3
    """Views that a person is reconstructed from in training."""


class PeopleDataManager(VanillaDataManager[PeopleDataset]):
    """Trains on random people, sources and targets. Opened for rendering, its train split is the person that is shown
    with all of its cameras, as ns-export and the viewer want it."""

    config: PeopleDataManagerConfig

    @property
    def dataset_type(self) -> Type[PeopleDataset]:
        return PeopleDataset

    def create_train_dataset(self) -> PeopleDataset:
        """The people to train on, or the one that is shown."""
        # The stock manager asks the dataparser before that has seen the data.
        self.includes_time = self.train_dataparser_outputs.metadata.get("moments", False)
        if self.test_mode != "val":
            metadata = self.train_dataparser_outputs.metadata
            store, shown = metadata["subjects"], metadata["shown"]
            views = [(shown, camera) for camera in range(len(store.cameras(shown)))]
            self.train_dataparser_outputs = people_outputs(store, views, metadata["sources"], shown, self.includes_time)
        return super().create_train_dataset()

    def setup_train(self) -> None:
        """Sampler and rays; no cache of pictures. Of several processes, each trains on people of its own."""
        self.train_pixel_sampler = self._get_pixel_sampler(self.train_dataset, self.config.train_num_rays_per_batch)
        self.train_ray_generator = RayGenerator(self.train_dataset.cameras.to(self.device))
        self._of_person: Dict[int, List[int]] = {}
        for position, (index, _) in enumerate(self.train_dataset.metadata["views"]):
            self._of_person.setdefault(index, []).append(position)
        everybody = list(self._of_person)
        # Counted over all machines, which the local rank is not; more processes than people share them.
        self._people = everybody[comms.get_rank() :: comms.get_world_size()] or everybody

    def setup_eval(self) -> None:
        """Rays and loaders of single pictures; no cache of them."""
        self.eval_pixel_sampler = self._get_pixel_sampler(self.eval_dataset, self.config.eval_num_rays_per_batch)
        self.eval_ray_generator = RayGenerator(self.eval_dataset.cameras.to(self.device))
        dataset, device = self.eval_dataset, self.device
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(dataset, device=device, num_workers=0)
        self.eval_dataloader = RandIndicesEvalDataloader(dataset, device=device, num_workers=0)

    def next_train(self, step: int) -> Tuple[RayBundle, Dict]:
        """A patch of one person, and in its rays the views that it is reconstructed from, never the patch's own."""
        self.train_count += 1
        dataset, generator = self.train_dataset, self.train_ray_generator
        if self.test_mode != "val":
            return self._random_rays(dataset, generator)
        positions = self._of_person[self._people[int(torch.randint(len(self._people), ()))]]
        order = torch.randperm(len(positions))[: self.config.num_sources + 1].tolist()
        target, sources = positions[order[0]], [positions[k] for k in order[1:]]
        if len(sources) < 2:
            raise InputError("keypoint-nerf trains with two source views and a target at least: bring more cameras.")
        rays, batch = self._patch(dataset, generator, target)
        views = [dataset.metadata["views"][k][1] for k in sources]
        rays.metadata["sources"] = torch.tensor(views, device=self.device).expand(len(rays), -1)
        return rays, batch

    def next_eval(self, step: int) -> Tuple[RayBundle, Dict]:
        """A patch of one held-out view, from the sources that its person is tested with."""
        self.eval_count += 1
        return self._patch(self.eval_dataset, self.eval_ray_generator, int(torch.randint(len(self.eval_dataset), ())))

    def _patch(self, dataset: PeopleDataset, generator: RayGenerator, target: int) -> Tuple[RayBundle, Dict]:
        index, camera = dataset.metadata["views"][target]
        pixels = draw_patch(dataset.store.subject(index).mask[camera], self.config.patch_size)
        indices = torch.cat([torch.full_like(pixels[:, :1], target), pixels], dim=1)
        batch = self._pixels(dataset, indices)
        return generator(indices.to(self.device)), {**batch, "patch": math.isqrt(len(pixels))}

    def _random_rays(self, dataset: PeopleDataset, generator: RayGenerator) -> Tuple[RayBundle, Dict]:
        assert self.train_pixel_sampler is not None
        cameras = dataset.cameras
        size = torch.tensor([len(dataset), int(cameras.height[0]), int(cameras.width[0])])
        indices = (torch.rand(self.train_pixel_sampler.num_rays_per_batch, 3) * size).long()
        return generator(indices.to(self.device)), self._pixels(dataset, indices)

    def _pixels(self, dataset: PeopleDataset, indices: Int[Tensor, "rays 3"]) -> Dict:
        """Colours and masks of (picture, row, column)."""
        image, mask = torch.zeros(len(indices), 3), torch.zeros(len(indices), 1)
        for picture in torch.unique(indices[:, 0]).tolist():
            index, camera = dataset.metadata["views"][picture]
            subject, here = dataset.store.subject(index), indices[:, 0] == picture
            rows, columns = indices[here, 1], indices[here, 2]
            image[here] = subject.rgb[camera, rows, columns].float() / 255
            mask[here] = subject.mask[camera, rows, columns, None].float()
        return {"image": image.to(self.device), "fg_mask": mask.to(self.device), "indices": indices}

    def _get_pixel_sampler(self, dataset: PeopleDataset, num_rays_per_batch: int) -> PixelSampler:
        # The stock method writes a tensor into the config, and with it into config.yml.
        return copy.deepcopy(self.config.pixel_sampler).setup(num_rays_per_batch=num_rays_per_batch)

    def get_datapath(self) -> Path:
        """The source, beside which the viewer keeps camera paths; the working directory where there is none."""
        source = self.config.dataparser.data
        return source if source is not None and source.exists() else Path.cwd()


def draw_patch(mask: Tensor, side: int) -> Int[Tensor, "pixels 2"]:
    """(row, column) of the pixels of a square around a random pixel of the mask, moved into the picture if need be."""
    height, width = mask.shape
    side = min(side, height, width)
    body = torch.nonzero(mask > 0.5)
    middle = body[int(torch.randint(len(body), ()))] if len(body) else torch.tensor([height // 2, width // 2])
    row, column = (min(max(int(m) - side // 2, 0), n - side) for m, n in zip(middle, (height, width)))
    rows, columns = torch.meshgrid(torch.arange(row, row + side), torch.arange(column, column + side), indexing="ij")
    return torch.stack([rows, columns], dim=-1).reshape(-1, 2)
