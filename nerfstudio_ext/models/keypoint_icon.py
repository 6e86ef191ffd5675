"""KeypointICON: a clothed person's surface from one photograph and 3-D keypoints (ICON, CVPR 2022, with the relative
spatial encoding of KeypointNeRF, ECCV 2022, in place of the signed distance to a body).

One network for all people. Training first teaches the networks that draw the near and the far side's normals, then,
with these frozen, the encoder and the point network. What deviates: no body model takes part (keypoints show the side
networks the pose, points see both sides or choose by depth), the sigmoid stays and the surface is at one half,
keypoints are jittered, cameras have full or weak perspective, and the far side's colours are learned. ICON's body
features and visibility are modes for drawn people, whose body is known. Not here: cloth refinement, released weights.
"""

import dataclasses
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Set, Tuple, Type, Union

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.photo_controls import PhotoControls
from nerfstudio_ext.fields.keypoint_icon_field import KeypointIconField, KeypointIconFieldConfig
from nerfstudio_ext.fields.photo_surface import PhotoSurface
from nerfstudio_ext.human.keypoint_encoding import keypoint_box
from nerfstudio_ext.human.photo import Lesson, Photo
from nerfstudio_ext.human.single_photo import read_photo
from nerfstudio_ext.human.subject import SubjectStore
from nerfstudio_ext.models.base import ExtModelConfig, RayModel
from nerfstudio_ext.surface.person_scores import PersonScores, mean_scores, person_scores

KEPT = 4
"""People whose surface is kept between pictures."""
DENSITY = 20.0
"""Density per metre of what is full, so that the usual level of 10 is the surface."""

Who = Tuple[int, int]
"""A person, and the view that is its photograph."""


@dataclass
class KeypointIconModelConfig(ExtModelConfig):
    """A surface from one photograph; the defaults are those of the released configuration."""

    _target: Type = field(default_factory=lambda: KeypointIconModel)
    enable_collider: bool = False
    """Each person has a box of its own."""
    eval_num_rays_per_chunk: int = 16384
    """Rays rendered at once."""
    field: KeypointIconFieldConfig = field(default_factory=KeypointIconFieldConfig)
    """Architecture."""
    photo_size: int = 512
    """Side in pixels of the squares that photographs are cut to; as in training."""
    normal_steps: int = 90000
    """First steps, which train the networks that draw the two sides; all later ones train the rest."""
    normal_source: Literal["gt", "pred", "mix"] = "gt"
    """Normals that occupancy is trained with: true ones, drawn ones, or either by chance for each step."""
    normal_loss_mult: float = 5.0
    """Weight of the smooth absolute error of normals."""
    colour_loss_mult: float = 1.0
    """Weight of the absolute error of the far side's colours."""
    lattice_levels: int = 3
    """Halvings of the lattice that pictures are made from: 1, 2 and 3 give 65, 129 and 257 points along a side."""
    iso_level: float = 0.5
    """Occupancy on the surface."""


class KeypointIconModel(RayModel):
    """Rays carry in their metadata whom they look at; rays that do not, see the person that is shown."""

    config: KeypointIconModelConfig
    field: KeypointIconField

    def populate_modules(self) -> None:
        super().populate_modules()
        metadata = self.kwargs["metadata"]
        store: Optional[SubjectStore] = metadata.get("subjects")
        if store is None:
            raise InputError(
                "keypoint-icon needs people: name a dataparser that brings some, as procedural-people-data."
            )
        self._store = store
        self.shown: Who = (metadata["shown"], int(metadata["sources"][metadata["shown"]][0]))
        self.field = self.config.field.setup(num_keypoints=len(store.keypoint_names))
        names = [store.name(index) for index in range(len(store))]
        self.photo_controls = PhotoControls(names, self.shown[0], self.show, self.load_photo)
        # Plain objects: surfaces belong to people and not to the network, the step to the trainer.
        self._surfaces: OrderedDict[tuple, PhotoSurface] = OrderedDict()
        self._step = 0
        self._looked_at: Set[Who] = set()
        self._loaded: Optional[Photo] = None
        self._loads = 0

    def show(self, subject: int) -> None:
        """Choose the person of the run that cameras see which say nothing about it, as the viewer's."""
        self.shown = (subject, int(self.kwargs["metadata"]["sources"][subject][0]))

    def load_photo(self, photo: Path, keypoints: Path, mask: Optional[Path]) -> str:
        """Let such cameras see the person in a photo, about the origin; what `ns-ext keypoints reconstruct` reads.

        Returns:
            What is shown.

        Raises:
            InputError: The files do not fit, or the network finds no surface; then nothing changes.
        """
        found, notes = read_photo(photo, keypoints, mask, self._store.keypoint_names, self.config.photo_size)
        found = found.about(keypoint_box(found.keypoints[0]).mean(0)).to(self.device)
        before, self._loaded, self._loads = self._loaded, found, self._loads + 1
        who: Who = (-1, self._loads)
        if float(self.surface(who).volume.max()) <= self.config.iso_level:
            self._loaded = before
            raise InputError(f"The network finds no surface in {photo.name}: train it longer, or look at the mask.")
        try:
            self.surface(who).require_person(self.surface(who).mesh())
        except InputError:
            self._loaded = before
            raise
        self.shown = who
        return " ".join([f"{photo.name}, {self.surface(who).evaluated:,} points evaluated.", *notes])

    def get_param_groups(self) -> Dict[str, List[Parameter]]:
        return {"sides": self.field.side_parameters(), "field": self.field.point_parameters()}

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> List[TrainingCallback]:
        def note(step: int) -> None:
            self._step = step

        return [TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], note)]

    def get_outputs(self, ray_bundle: Union[RayBundle, Lesson]) -> Dict[str, Tensor]:
        """What the network says about a lesson, or the colours of a flat bundle of rays that all see one person; depth
        runs along the unit ray, in metres."""
        if isinstance(ray_bundle, Lesson):
            return self._learn(ray_bundle)
        who = self._who(ray_bundle)
        self._looked_at.add(who)
        surface = self.surface(who)
        found = surface.march(ray_bundle.origins, F.normalize(ray_bundle.directions, dim=-1))
        hit = found["hit"][:, None].float()
        return {
            "rgb": surface.colours(found["points"]) * hit,
            "accumulation": hit,
            "depth": found["depth"][:, None],
            "normals": (found["normals"] + 1) / 2,
        }

    def _learn(self, lesson: Lesson) -> Dict[str, Tensor]:
        """Both sides in the first stage, occupancy in the second."""
        if self._step < self.config.normal_steps:
            sides = self.field.sides(lesson.photo)
            return {"normals": sides.normals, "back_normals": sides.back_normals, "back_rgb": sides.back_rgb}
        source = self.config.normal_source
        if source == "mix":
            source = "gt" if float(torch.rand(())) < 0.5 else "pred"
        sides = lesson.sides
        if source == "pred":
            with torch.no_grad():
                sides = self.field.sides(lesson.photo)
        return {"logits": self.field.logits(self.field.encode(lesson.photo, sides), lesson.points)}

    def get_loss_dict(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Any], metrics_dict: Optional[Dict[str, Tensor]] = None
    ) -> Dict[str, Tensor]:
        lesson: Lesson = batch["lesson"]
        if "logits" in outputs:
            wanted = lesson.inside.expand_as(outputs["logits"])
            return {"occupancy_loss": F.mse_loss(torch.sigmoid(outputs["logits"]), wanted)}
        share = lesson.photo.mask.mean().clamp(min=1e-3)  # beside the mask there is nothing to be wrong about
        errors = [F.smooth_l1_loss(outputs[name], getattr(lesson.sides, name)) for name in ("normals", "back_normals")]
        colours = (outputs["back_rgb"] - lesson.sides.back_rgb).abs().mean()
        return {
            "normal_loss": self.config.normal_loss_mult * (errors[0] + errors[1]) / share,
            "colour_loss": self.config.colour_loss_mult * colours / share,
        }

    def get_metrics_dict(self, outputs: Dict[str, Tensor], batch: Dict[str, Any]) -> Dict[str, Tensor]:
        """Share of points on the right side, or mean angles between drawn and true normals in degrees."""
        lesson: Lesson = batch["lesson"]
        if "logits" in outputs:
            return {"points_right": ((outputs["logits"][-1] > 0) == (lesson.inside > 0.5)).float().mean()}
        mask = lesson.photo.mask[:, 0] > 0.5
        angles = {}
        for name in ("normals", "back_normals"):
            cosine = (outputs[name].detach() * getattr(lesson.sides, name)).sum(1)[mask]
            angles[f"{name}_degrees"] = torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).mean()
        return angles

    def surface(self, who: Who) -> PhotoSurface:
        """A person's surface, kept until the weights or the pictures change or others are asked for."""
        weights = tuple(parameter._version for parameter in self.field.parameters())
        loaded = who[0] < 0
        key = (who, () if loaded else self._store.version(who[0]), str(self.device), weights)
        if key not in self._surfaces:
            photo = self._loaded if loaded else self._photo(who)
            assert photo is not None
            levels, iso = self.config.lattice_levels, self.config.iso_level
            self._surfaces[key] = PhotoSurface.of(self.field, photo, levels, iso)
            while len(self._surfaces) > KEPT:
                self._surfaces.popitem(last=False)
        self._surfaces.move_to_end(key)
        return self._surfaces[key]

    def _photo(self, who: Who) -> Photo:
        """The photograph that a person of the run is reconstructed from, and the naked body where it is read."""
        photo = Photo.of(self._store.subject(who[0]), who[1], self.config.photo_size, self.device)
        if self.config.field.encoding == "body" or self.config.field.visibility == "mesh":
            body = self._store.body(who[0])
            photo = dataclasses.replace(photo, bodies=None if body is None else (body,))
        return photo

    def _who(self, ray_bundle: RayBundle) -> Who:
        metadata = ray_bundle.metadata
        if "subject" not in metadata:
            return self.shown
        return int(metadata["subject"][0, 0]), int(metadata["sources"][0, 0])

    def density(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """`DENSITY` times the occupancy at world points around the person that is shown, for meshes."""
        return DENSITY * self.surface(self.shown).occupancy(points)

    def get_image_metrics_and_images(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        """The scores of every ray model, depth in metres; the picture ``geometry`` shows accumulation and normals."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        maps = [outputs["accumulation"].expand(-1, -1, 3), outputs["normals"] * outputs["accumulation"]]
        images["geometry"] = torch.cat(maps, dim=1)
        return metrics, images

    def surface_box(self) -> Float[Tensor, "2 3"]:
        """Lower and upper corner of the box that holds the shown person, metres; nothing is dense beyond it."""
        return self.surface(self.shown).box.cpu()

    def scene_span(self) -> float:
        """Diagonal of the shown person's box in metres: the depth error of a picture that shows no one."""
        low, high = self.surface_box()
        return float((high - low).norm())

    def prepare_eval(self) -> None:
        """Forget who was looked at before this evaluation."""
        self._looked_at.clear()

    def get_run_metrics(self) -> Dict[str, float]:
        """Trainable numbers, and, where their true surface is known, how close the people of this evaluation come to it
        (`PersonScores`, means); each of them is printed."""
        metrics = {"num_parameters": float(sum(p.numel() for p in self.field.parameters()))}
        found: List[PersonScores] = []
        for who in sorted(self._looked_at):
            truth = self._store.mesh(who[0]) if who[0] >= 0 else None
            if truth is None:
                continue
            surface = self.surface(who)
            if float(surface.volume.max()) <= self.config.iso_level:
                CONSOLE.print(f"{self._store.name(who[0])}: no surface, which the means leave out")
                continue
            mesh = surface.mesh()
            found.append(person_scores(mesh.verts, mesh.faces, *(x.numpy() for x in truth)))
            own = found[-1]
            CONSOLE.print(
                f"{self._store.name(who[0])} from photo {who[1]}: chamfer {own.chamfer_cm:.2f} cm, point to surface "
                f"{own.p2s_cm:.2f} cm, normals {own.nc:.3f}"
            )
        return {**metrics, **(mean_scores(found) if found else {})}
