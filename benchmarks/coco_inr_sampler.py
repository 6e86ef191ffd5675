"""Error-bounded sampling that stops ray by ray, against the loop that grows the whole batch until its last ray is done:
time, memory and error of the opacity, at the same bound.

Run from the repository's root:  python -m benchmarks.coco_inr_sampler
The distance is a network of coco-inr-tiny that was fitted to a procedural object for a moment, so that both samplers
meet what they meet in training: rays that hit, rays that graze and rays that miss.
"""

import argparse
import copy
import math

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from benchmarks._harness import Row, interleaved_seconds, peak_megabytes, timed, write_rows
from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from method_configs.coco_inr import coco_inr_tiny
from nerfstudio_ext.procedural.objects import get_object
from nerfstudio_ext.surface import sampler
from nerfstudio_ext.surface.density import laplace_density, render_weights
from nerfstudio_ext.surface.sampler import ErrorBoundedSampling, SdfOnRays, sample_error_bounded
from nerfstudio_ext.surface.sphere import sphere_span

BETAS = (0.05, 0.01)
"""Scales of the density early and late in a training."""


@torch.no_grad()
def sample_batch_wide(
    settings: ErrorBoundedSampling, near: Tensor, far: Tensor, sdf_on_rays: SdfOnRays, beta: float
) -> Float[Tensor, "rays positions"]:
    """VolSDF's Algorithm 1 as its published code runs it."""
    count, device = len(near), near.device
    rays = torch.arange(count, device=device)
    t = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, settings.samples_per_round, device=device)
    d = sdf_on_rays(rays, t)
    scale = torch.sqrt((t[:, 1:] - t[:, :-1]).square().sum(-1, keepdim=True) / (4 * math.log1p(settings.epsilon)))
    scale = scale.clamp(min=beta)
    for round_index in range(settings.max_rounds):
        deltas = t[:, 1:] - t[:, :-1]
        distances = sampler.distance_bound(deltas, d)
        scale, holds = sampler._smallest_scale(settings, deltas, d, distances, beta, scale)
        if bool(holds.all()) or round_index + 1 == settings.max_rounds:
            break
        errors = sampler.opacity_error_bound(deltas, d, distances, scale)
        u = torch.linspace(0, 1, settings.samples_per_round, device=device).expand(count, -1)
        new = sampler.inverse_cdf(t, errors + 1e-6, u)
        t, order = torch.sort(torch.cat([t, new], dim=-1), dim=-1)
        d = torch.cat([d, sdf_on_rays(rays, new)], dim=-1).gather(1, order)
    return sampler._final(settings, t, d, scale, (near, far), False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rays", type=int, default=512)
    parser.add_argument("--fit-steps", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    model = copy.deepcopy(coco_inr_tiny.config.pipeline.model).setup(
        scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=1, metadata={}, device="cpu"
    )
    target = get_object("torus-box")
    optimizer = torch.optim.Adam(model.field.parameters(), lr=3e-3)
    for _ in range(arguments.fit_steps):
        points = torch.rand(2048, 3) * 2.4 - 1.2
        error = (model.field.sdf(points, model.field.context()) - target.sdf(points)).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    print(f"network fitted to {float(error):.4f} units")

    outputs = ProceduralObjectDataParserConfig(size=64).setup().get_dataparser_outputs("train")
    bundle = outputs.cameras.generate_rays(camera_indices=0).flatten()[torch.randperm(64 * 64)[: arguments.rays]]
    origins, directions = bundle.origins, bundle.directions
    near, far = sphere_span(origins, directions, 3.0)
    model.eval()
    with torch.no_grad():
        context = model.field.context()
    seen = {"points": 0}

    def sdf_on_rays(rays: Tensor, t: Tensor) -> Tensor:
        seen["points"] += t.numel()
        points = origins[rays, None] + t[..., None] * directions[rays, None]
        return model.field.sdf(points.reshape(-1, 3), context).view(t.shape)

    @torch.no_grad()
    def opacity(t: Tensor, beta: float) -> Tensor:
        d = sdf_on_rays(torch.arange(len(t)), t[:, :-1])
        return 1 - render_weights(laplace_density(d, beta), t.diff(dim=-1))[1]

    rows = []
    for name, settings in (("the paper's", ErrorBoundedSampling()), ("coco-inr-tiny's", model.config.sampling)):
        for beta in BETAS:
            actions = {
                "ours": lambda: sample_error_bounded(settings, near, far, sdf_on_rays, beta, False),  # noqa: B023
                "theirs": lambda: sample_batch_wide(settings, near, far, sdf_on_rays, beta),  # noqa: B023
            }
            fine = opacity(near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, 1001), beta)
            error, points = {}, {}
            for kind, action in actions.items():
                seen["points"] = 0
                t = action()
                points[kind] = seen["points"]
                error[kind] = float((opacity(t, beta) - fine).abs().mean())
            memory = {kind: peak_megabytes(action) for kind, action in actions.items()}
            clocks = {kind: timed(action) for kind, action in actions.items()}
            times = interleaved_seconds(clocks, arguments.repeats, warm_up=1)
            ours, theirs = (float(np.median(times[kind])) for kind in ("ours", "theirs"))
            setting = f"{name} sample counts, density scale {beta:g}"
            gain = theirs / ours
            rows += [
                Row("coco-inr/speed/sampler", f"sampling {arguments.rays} rays, {setting}: batch-wide over ray by ray",
                    round(gain, 2), 1.0, "times", None, arguments.repeats, ">= 1.5 times", bool(gain >= 1.5)),
                Row("coco-inr/speed/sampler-error", f"mean error of the opacity, {setting}: ray by ray, batch-wide",
                    round(error["ours"], 5), round(error["theirs"], 5), "opacity", None, 1, None, None),
                Row("coco-inr/speed/sampler-points", f"distances looked at per ray, {setting}: ray by ray, batch-wide",
                    round(points["ours"] / arguments.rays, 1), round(points["theirs"] / arguments.rays, 1), "points",
                    None, 1, None, None),
                Row("coco-inr/speed/sampler-memory",
                    f"memory that the process grows by, {setting}: ray by ray, batch-wide", round(memory["ours"]),
                    round(memory["theirs"]), "MB", None, 1, None, None),
            ]  # fmt: skip
            print(rows[-4:], flush=True)
    print(write_rows("coco_inr_sampler", rows))


if __name__ == "__main__":
    main()
