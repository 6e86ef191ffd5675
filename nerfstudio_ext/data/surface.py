"""Posed pictures of an object with what may be known besides: foreground masks, depth, normals, and its surface."""

import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Type

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.pixel_samplers import PixelSampler
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from dataparsers._common import looked_at, open_picture, read_pixels, require_upright, split_views
from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from nerfstudio_ext.data.normalise import Normalisation, NormaliseMode, find_normalisation
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.surface.mesh import Mesh
from nerfstudio_ext.surface.truth import read_mesh, surface_scores


class SurfaceDataset(InputDataset):
    """Pictures with ``fg_mask`` [H, W, 1] in [0, 1] where masks are known, and where the truth is, ``gt_depth``
    [H, W, 1] in units of the cameras' frame and ``gt_normals`` [H, W, 3].

    The host's own key ``mask`` means "pixels that may be sampled", which would leave the background untrained: masks
    that a dataparser gives under that name become ``fg_mask`` as well. An alpha channel is the mask of its picture
    where there is no other, and what it hides becomes white unless the dataparser names a colour.
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
        return any(bool((read_pixels(path)[..., 3] < 255).any()) for path in looked_at(self.image_filenames))

    def require_upright_masks(self) -> None:
        """Refuse masks of stock dataparsers and alpha channels in which the object is black.

        Raises:
            InputError: They look inverted.
        """
        if self._stock_masks is not None:
            shares = [float((read_pixels(path, "L") > 127).mean()) for path in looked_at(self._stock_masks)]
            require_upright(shares, f"The masks beside {self._stock_masks[0]}", "leave them out of the data")
        elif self._alpha_masks:
            shares = [float((read_pixels(path)[..., 3] > 127).mean()) for path in looked_at(self.image_filenames)]
            require_upright(shares, f"The alpha channels beside {self.image_filenames[0]}", "save pictures without")

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


@dataclass
class SurfaceDataManagerConfig(VanillaDataManagerConfig):
    """Random rays from all training views at once; the views are few, so all of them stay in memory."""

    _target: Type = field(default_factory=lambda: SurfaceDataManager)
    dataparser: AnnotatedDataParserUnion = field(default_factory=ProceduralObjectDataParserConfig)
    """Where the views come from."""
    normalise: NormaliseMode = "auto"
    """auto (move and scale the cameras unless they already look at the origin from a distance of 1 to 3, one of them
    from 2 at least), file (keep them as they are) or cameras (always)."""
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
        """The chosen training views, in the frame that surface methods work in.

        The metadata tell the model what only the data knows: ``opened``, whether weights come from a checkpoint, and
        when training ``has_masks`` and, where cameras were brought into the frame, how far from the origin they reach.
        """
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
        dataset = SurfaceDataset(self.train_dataparser_outputs, self.config.camera_res_scale_factor)
        dataset.metadata["opened"] = self.test_mode != "val"
        if self.test_mode == "val":
            dataset.metadata["has_masks"] = dataset.has_masks
            if config.normalise != "file":
                radii = self.train_dataparser_outputs.cameras.camera_to_worlds[:, :, 3].norm(dim=-1)
                dataset.metadata["camera_reach"] = float(radii.max())
            dataset.require_upright_masks()
        return dataset

    def create_eval_dataset(self) -> SurfaceDataset:
        """The held-out views, moved as the training views were."""
        assert self._normalisation is not None
        outputs = self.dataparser.get_dataparser_outputs(split=self.test_split)
        count, most = len(outputs.image_filenames), self.config.max_test_views
        if most is not None and most < 1:
            raise InputError(f"--pipeline.datamanager.max-test-views {most} leaves no view to test: 1 at least.")
        if most is not None and most < count:
            outputs = select_views(outputs, [k * count // most for k in range(most)])
        self._normalisation.apply(outputs)
        return SurfaceDataset(outputs, self.config.camera_res_scale_factor)

    @torch.no_grad()
    def scene_metrics(self, model: Any) -> Dict[str, float]:
        """Distances between a model's surface and the true one in units of the source, where both are known.

        They are printed as well. Models without a signed distance have no surface here.
        """
        distance = getattr(model, "signed_distance", None)
        outputs = self.train_dataparser_outputs
        transform = outputs.dataparser_transform.double().numpy()
        scale = float(outputs.dataparser_scale)
        try:
            truth = self._true_surface()
            if distance is None or truth is None:
                return {}
            verts = scale * (truth.verts.astype(np.float64) @ transform[:, :3].T + transform[:, 3])
            scores = surface_scores(distance, Mesh(verts, truth.faces), model.device, 1 / scale)
        except InputError as error:
            CONSOLE.print(f"The surface was not scored: {error}", soft_wrap=True, highlight=False)
            return {}
        text = ", ".join(f"{key} {value:.4g}" for key, value in scores.items())
        CONSOLE.print(f"Surface against the true one, units of the data: {text}", soft_wrap=True, highlight=False)
        return scores

    def _true_surface(self) -> Optional[Mesh]:
        """In the source's world; None where it is not known."""
        metadata = self.train_dataset.metadata
        if "object_views" in metadata:
            return Mesh(*metadata["object_views"].object.mesh())
        path = metadata.get("gt_mesh_filename")
        return None if path is None else read_mesh(path)

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
