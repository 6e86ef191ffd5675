"""How the trainings of `_coco_inr_fits` are scored: on held-out views, against the drawn surface, on the gradient of
the distance, and on what samples along rays miss."""

from functools import cache
from typing import Any, Dict, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader
from torch import Tensor

from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from nerfstudio_ext.data.surface_dataset import SurfaceDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.models.coco_inr import CoCoINRModel
from nerfstudio_ext.procedural.objects import get_object
from nerfstudio_ext.surface.density import laplace_density, render_weights
from nerfstudio_ext.surface.isosurface import extract_mesh
from nerfstudio_ext.surface.mesh import Mesh, largest_component
from nerfstudio_ext.surface.metrics import compare_surfaces, sample_mesh
from nerfstudio_ext.surface.sampler import sample_error_bounded
from nerfstudio_ext.surface.sphere import sphere_span

MOST_VIEWS, HELD_OUT = 12, 6
"""Views about which the held-out ones lie, and how many of those score all runs on a procedural object."""
CELLS, HALF_SIDE, POINTS = 80, 1.1, 20000
"""Lattice of the meshes that are scored, and points drawn from them; every lattice point is evaluated, since a field
without eikonal loss may not be skipped through."""
REFERENCE, RAYS = 1024, 256
"""Even samples on a ray that stand for the truth about a field, and rays on which samplers are compared."""
NEAR = 0.05
"""How far from the surface "near the surface" reaches, in units of the normalised scene."""


@cache
def held_out(target: str, size: int) -> FixedIndicesEvalDataloader:
    """The views of a procedural object that score every run on it; the choice of training views is nested."""
    parser = ProceduralObjectDataParserConfig(object=target, size=size, num_views=MOST_VIEWS, max_test_views=HELD_OUT)
    return FixedIndicesEvalDataloader(SurfaceDataset(parser.setup().get_dataparser_outputs("test")), device="cpu")


def scores_of(pipeline: Any, target: Optional[str], size: int) -> Dict[str, Any]:
    """All scores of a trained pipeline.

    Args:
        pipeline: Trained.
        target: The procedural object; none: photos, scored on the pipeline's own held-out views.
        size: Width of the object's pictures in pixels.
    """
    pipeline.eval()
    model = pipeline.model
    views = held_out(target, size) if target is not None else pipeline.datamanager.fixed_indices_eval_dataloader
    means = pipeline.get_average_image_metrics(views, "held-out")
    wanted = ("psnr", "psnr_masked", "ssim", "mask_iou", "normal_error", "depth_error")
    scores: Dict[str, Any] = {name: means[name] for name in wanted if name in means}
    scores["beta"] = float(model.density.beta)
    try:
        lattice, _ = extract_mesh(model.signed_distance, CELLS, HALF_SIDE, pipeline.device, coarse=False)
        mesh = largest_component(lattice)
    except InputError:
        mesh = None
    if target is not None:
        scores |= {"chamfer": None, "f_score": None, "normal_consistency": None}
        if mesh is not None:
            truth = sample_mesh(*get_object(target).mesh(), POINTS)
            found = compare_surfaces(*sample_mesh(mesh.verts, mesh.faces, POINTS), *truth, threshold=0.05).as_dict()
            scores |= {name: found[name] for name in ("chamfer", "f_score", "normal_consistency")}
    camera, _ = views.get_camera(0)
    bundle = camera.generate_rays(camera_indices=0).flatten()
    chosen = torch.randperm(len(bundle), generator=torch.Generator().manual_seed(0))[:RAYS]
    directions = F.normalize(bundle.directions[chosen], dim=-1)
    return {**scores, **slopes(model, mesh), **sampling_errors(model, bundle.origins[chosen], directions)}


@torch.no_grad()
def slopes(model: CoCoINRModel, mesh: Optional[Mesh]) -> Dict[str, Optional[float]]:
    """Mean deviation of the gradient's length from one: ``slope_near`` the learned surface, None where there is none,
    and in the ``slope_volume`` of the cube of half side `HALF_SIDE`."""

    def deviation(points: Float[np.ndarray, "n 3"]) -> float:
        gradient = model.field.sdf_gradient(torch.from_numpy(points).float().to(model.device), model.field.context())[2]
        return float((gradient.norm(dim=-1) - 1).abs().mean())

    generator = np.random.default_rng(0)
    volume = deviation(generator.uniform(-HALF_SIDE, HALF_SIDE, (POINTS, 3)))
    if mesh is None:
        return {"slope_near": None, "slope_volume": volume}
    points, normals = sample_mesh(mesh.verts, mesh.faces, POINTS)
    return {
        "slope_near": deviation(points + generator.uniform(-NEAR, NEAR, (POINTS, 1)) * normals),
        "slope_volume": volume,
    }


@torch.no_grad()
def sampling_errors(
    model: CoCoINRModel, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
) -> Dict[str, Optional[float]]:
    """Mean errors over rays against `REFERENCE` even samples.

    The error bound is on the opacity at every place of a ray. At its end even samples may be very good all the same:
    sums over a smooth bump lose little.

    Returns:
        ``opacity_error``, the largest along a ray; ``opacity_end_error``; and ``depth_error_sampling`` in world units,
        where the reference is opaque: of the model's error-bounded samples, with ``_even`` of as many even samples, and
        with ``_even_all`` of as many as the distances looked at for the former.
    """
    context, settings, beta = model.field.context(), model.config.sampling, float(model.density.beta)
    near, far = sphere_span(origins, directions, model.config.bounding_radius)
    looked = 0

    def sdf_on_rays(rays: Tensor, t: Tensor) -> Tensor:
        nonlocal looked
        looked += t.numel()
        points = (origins[rays, None] + t[..., None] * directions[rays, None]).reshape(-1, 3)
        return torch.cat([model.field.sdf(part, context) for part in points.split(65536)]).view(t.shape)

    def render(t: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Opacity at the ends of even intervals, at the end, and depth."""
        starts, deltas = t[:, :-1], t.diff(dim=-1)
        density = laplace_density(sdf_on_rays(torch.arange(len(t), device=t.device), starts), beta)
        weights, behind = render_weights(density, deltas)
        energy = F.pad(torch.cumsum(density * deltas, dim=-1), (1, 0))
        passed = np.stack([np.interp(*rows) for rows in zip(*(x.cpu().double().numpy() for x in (places, t, energy)))])
        depth = (weights * starts).sum(-1) / weights.sum(-1).clamp(min=1e-3)
        return 1 - torch.exp(-torch.from_numpy(passed)), 1 - behind, depth

    def even(count: int) -> Tensor:
        return near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, count, device=near.device)

    places = even(REFERENCE)
    bounded = render(sample_error_bounded(settings, near, far, sdf_on_rays, beta, stratified=False))
    positions = {"_even": settings.num_positions, "_even_all": 1 + round(looked / len(origins))}
    along, opacity, depth = render(places)
    solid = opacity > 0.5
    errors: Dict[str, Optional[float]] = {}
    for name, found in {"": bounded, **{name: render(even(count)) for name, count in positions.items()}}.items():
        errors[f"opacity_error{name}"] = float((found[0] - along).abs().amax(-1).mean())
        errors[f"opacity_end_error{name}"] = float((found[1] - opacity).abs().mean())
        apart = (found[2] - depth).abs()[solid]
        errors[f"depth_error_sampling{name}"] = float(apart.mean()) if bool(solid.any()) else None
    return errors
