"""Posed pictures of an object with what may be known besides: foreground masks, depth, normals, and its surface."""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Literal, Mapping, Optional, Type

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.pixel_samplers import PixelSampler
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from dataparsers._common import choose_views
from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from nerfstudio_ext.data.normalise import (
    NormaliseMode,
    bring_into,
    find_normalisation,
    frame_of,
    is_frame,
    report_kept,
    report_rays,
    require_finite,
)
from nerfstudio_ext.data.object_pixels import ObjectPixelSampler
from nerfstudio_ext.data.surface_dataset import SurfaceDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.surface.mesh import Mesh
from nerfstudio_ext.surface.truth import read_mesh, surface_scores

KEPT = "_kept_frame"
"""Attribute of a configuration, no setting: the frame of the run that was opened with it."""


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
    object_share: float = 0.0
    """Share of each batch's rays that is drawn from the masks' pixels; the others come from anywhere."""
    max_test_views: Optional[int] = None
    """Most of the dataparser's held-out views to evaluate on, evenly chosen; none: all."""

    def __getstate__(self) -> Dict[str, Any]:
        """Settings alone: neither config.yml nor a copy, which may be for other data, takes over a run's frame."""
        return {name: value for name, value in vars(self).items() if name != KEPT}


class SurfaceDataManager(VanillaDataManager[SurfaceDataset]):
    """nerfstudio's ray data manager over `SurfaceDataset`.

    Its only buffer, ``frame``, is the map from the source's units to the frame of training. Checkpoints hold it, so
    that a run opens in its own frame whatever the data and our rule say by then.
    """

    config: SurfaceDataManagerConfig

    def __init__(self, config: SurfaceDataManagerConfig, *args, **kwargs) -> None:
        self.frame: Optional[Float[Tensor, "4 4"]] = getattr(config, KEPT, None)
        self._moved = False
        super().__init__(config, *args, **kwargs)
        # The stock constructor makes the data sets before it makes a module of this.
        self.register_buffer("frame", self.__dict__.pop("frame"))

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on in the frame of the training; called with this object's part of a checkpoint.

        Raises:
            InputError: The checkpoint holds no frame where it should.
        """
        stored = state.get("frame")
        if stored is None:
            text = (
                "This run was saved before runs kept their frame, so it is worked out from the data: the folder and "
                "the choice of views must be those of the training."
            )
            CONSOLE.print(text, soft_wrap=True, highlight=False)
            return
        assert self.frame is not None
        if stored.shape != (4, 4) or not bool(torch.isfinite(stored).all()) or float(torch.det(stored)) < 1e-12:
            raise InputError("The checkpoint is damaged: the frame that its run was trained in is no similarity.")
        # ns-render makes another data manager of this configuration, which sees no checkpoint.
        setattr(self.config, KEPT, stored.cpu())
        if is_frame(stored.cpu(), self.frame.cpu()):
            return
        self.frame, self._moved = stored.to(self.frame), True
        self.train_dataparser_outputs = self.dataparser.get_dataparser_outputs(split="train")
        self.train_dataset, self.eval_dataset = self.create_train_dataset(), self.create_eval_dataset()
        if self.test_mode != "inference":
            self.setup_train()
            self.setup_eval()

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
            chosen = choose_views(positions, config.train_views, config.num_views, config.pick, source)
            self.train_dataparser_outputs = select_views(outputs, chosen)
        outputs, kept = self.train_dataparser_outputs, self.frame is not None
        require_finite(outputs, "training")
        if self.frame is None:
            normalisation = find_normalisation(outputs.cameras, config.normalise)
            normalisation.apply(outputs)
            self.frame, report = frame_of(outputs), normalisation.report
        else:
            bring_into(outputs, self.frame.cpu())
            report = report_kept(outputs.cameras)
        dataset = SurfaceDataset(outputs, config.camera_res_scale_factor)
        if self._moved or (not kept and self.test_mode != "inference"):
            names = ", ".join(path.stem for path in outputs.image_filenames[:32])
            count = len(outputs.image_filenames)
            text = f"{count} training views: {names}{', ...' if count > 32 else ''}. {report}"
            text += f" {report_rays(outputs.cameras)}"
            if not kept and dataset.transparency():
                choice = hasattr(config.dataparser, "alpha_color")
                other = (
                    "the dataparser's --alpha-color chooses" if choice else "save them on another background to choose"
                )
                text += f" {dataset.transparency()}; {other} otherwise."
            CONSOLE.print(text, soft_wrap=True, highlight=False)
        dataset.metadata["opened"] = self.test_mode != "val"
        if self.test_mode == "val":
            dataset.metadata["has_masks"] = dataset.has_masks
            if config.normalise != "file":
                radii = outputs.cameras.camera_to_worlds[:, :, 3].norm(dim=-1)
                dataset.metadata["camera_reach"] = float(radii.max())
            dataset.require_upright_masks()
        return dataset

    def create_eval_dataset(self) -> SurfaceDataset:
        """The held-out views, moved as the training views were."""
        assert self.frame is not None
        outputs = self.dataparser.get_dataparser_outputs(split=self.test_split)
        count, most = len(outputs.image_filenames), self.config.max_test_views
        if most is not None and most < 1:
            raise InputError(f"--pipeline.datamanager.max-test-views {most} leaves no view to test: 1 at least.")
        if most is not None and most < count:
            outputs = select_views(outputs, [k * count // most for k in range(most)])
        require_finite(outputs, "held-out")
        bring_into(outputs, self.frame.cpu())
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
        options = dict(num_rays_per_batch=num_rays_per_batch, is_equirectangular=equirectangular)
        # Only training draws from the masks; who opens a run need not have them any more.
        share = self.config.object_share if self.test_mode == "val" and dataset is self.train_dataset else 0
        if share == 0:
            return sampler.setup(**options)
        if not dataset.has_masks:
            raise InputError(
                f"--pipeline.datamanager.object-share {share} needs foreground masks, and this data "
                "has none: set it and --pipeline.model.mask-loss-mult to 0, or add masks."
            )
        return ObjectPixelSampler(sampler, share, **options)

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
