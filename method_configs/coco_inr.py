"""Presets of CoCo-INR and of VolSDF, its baseline: the papers' settings, and `-tiny` for two CPU cores."""

from dataclasses import replace

from nerfstudio.plugins.types import MethodSpecification

from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from method_configs._common import exponential, trainer
from nerfstudio_ext.data.surface import SurfaceDataManagerConfig
from nerfstudio_ext.engine.optimizers import AdamBetasOptimizerConfig
from nerfstudio_ext.fields.coco_inr_field import CoCoINRFieldConfig
from nerfstudio_ext.models.coco_inr import CoCoINRModelConfig
from nerfstudio_ext.pipelines.base import ExtPipelineConfig
from nerfstudio_ext.surface.sampler import ErrorBoundedSampling

# Architectures and sampling (method card sections 2.5 and 3). CoCo-INR is the default of the configs.
coco_inr_model = CoCoINRModelConfig()
volsdf_model = CoCoINRModelConfig(codebook="none", field=CoCoINRFieldConfig(layers=8, skip=4, colour_layers=4))
tiny_sampling = ErrorBoundedSampling(
    samples_per_round=24, final_samples=18, extra_samples=6, max_rounds=3, bisections=6
)
tiny_field = CoCoINRFieldConfig(
    num_prototypes=64,
    prototype_width=64,
    head_width=16,
    width=64,
    position_octaves=5,
    colour_octaves=4,
    direction_octaves=0,
    background_octaves=5,
)
coco_inr_tiny_model = CoCoINRModelConfig(
    field=tiny_field, sampling=tiny_sampling, background_samples=8, eval_num_rays_per_chunk=2048
)
volsdf_tiny_model = replace(coco_inr_tiny_model, codebook="none", field=replace(tiny_field, colour_layers=2))
# What photographs with masks want beyond the paper: fine detail soon, exposures that differ, and sharp outlines.
photos_tiny_model = replace(
    coco_inr_tiny_model,
    field=replace(tiny_field, grid_sizes=(16, 24, 32, 48, 64)),
    picture_gains=True,
    final_beta=0.006,
    mask_loss_mult=0.1,
    background_radius=1.2,
)


def _preset(
    name: str, text: str, model: CoCoINRModelConfig, rays: int, lr: float, steps: int, object_share: float = 0.0
) -> MethodSpecification:
    manager = SurfaceDataManagerConfig(
        dataparser=ProceduralObjectDataParserConfig(),
        train_num_rays_per_batch=rays,
        eval_num_rays_per_batch=rays,
        object_share=object_share,
    )
    pipeline = ExtPipelineConfig(datamanager=manager, model=model)
    # The last two serve options only: grids of features see few of the points and move faster, gains are few numbers.
    optimizers = {
        "field": exponential(AdamBetasOptimizerConfig(lr=lr), final=0.1),
        "grid": exponential(AdamBetasOptimizerConfig(lr=3e-3, eps=1e-15, betas=(0.9, 0.99)), final=0.1),
        "gains": exponential(AdamBetasOptimizerConfig(lr=1e-3), final=0.1),
    }
    config = trainer(name, None, pipeline, optimizers, steps_per_save=5000, steps=steps, display_images=64)
    return MethodSpecification(config, description=text)


COCO_INR = "CoCo-INR: surface and novel views from a few photos, with a codebook prior."
VOLSDF = "VolSDF: surface and novel views from photos; CoCo-INR without its prior."

coco_inr = _preset("coco-inr", COCO_INR, coco_inr_model, 1024, 5e-4, 200_000)
coco_inr_tiny = _preset("coco-inr-tiny", f"{COCO_INR} Small and quick.", coco_inr_tiny_model, 256, 1e-3, 1500)
coco_inr_photos_tiny = _preset(
    "coco-inr-photos-tiny", f"{COCO_INR} For photos with masks, on two cores.", photos_tiny_model, 256, 1e-3, 2500, 0.5
)
volsdf = _preset("volsdf", VOLSDF, volsdf_model, 1024, 5e-4, 200_000)
volsdf_tiny = _preset("volsdf-tiny", f"{VOLSDF} Small and quick.", volsdf_tiny_model, 256, 2e-3, 1500)
