"""Presets of KeypointNeRF: the released body model's settings, and `-tiny` for two CPU cores."""

from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.plugins.types import MethodSpecification

from dataparsers.procedural_people import ProceduralPeopleDataParserConfig
from method_configs._common import exponential, trainer
from nerfstudio_ext.data.people import PeopleDataManagerConfig
from nerfstudio_ext.fields.keypoint_nerf_field import KeypointNeRFFieldConfig
from nerfstudio_ext.models.keypoint_nerf import KeypointNeRFModelConfig
from nerfstudio_ext.pipelines.base import ExtPipelineConfig

# Architecture, sampling and recipe (method card sections 2, 3 and 5).
keypoint_nerf_model = KeypointNeRFModelConfig()
tiny_field = KeypointNeRFFieldConfig(
    input_pool=1,
    stem=16,
    hourglass_width=48,
    hourglass_depth=2,
    coarse_width=32,
    texture_width=8,
    texture_blocks=2,
    width=64,
    latent_width=32,
    blend_width=16,
    density_gain=20.0,
    density_activation="softplus",
)
keypoint_nerf_tiny_model = KeypointNeRFModelConfig(
    field=tiny_field, coarse_samples=24, fine_samples=24, mask_loss_mult=1.0
)


def _preset(
    name: str, text: str, people: ProceduralPeopleDataParserConfig, model: KeypointNeRFModelConfig, patch: int,
    lr: float, final: float, steps: int
) -> MethodSpecification:  # fmt: skip
    manager = PeopleDataManagerConfig(
        dataparser=people, patch_size=patch, train_num_rays_per_batch=patch**2, eval_num_rays_per_batch=patch**2
    )
    pipeline = ExtPipelineConfig(datamanager=manager, model=model)
    optimizers = {"field": exponential(AdamOptimizerConfig(lr=lr), final=final)}
    config = trainer(name, None, pipeline, optimizers, steps_per_save=1000, steps=steps)
    return MethodSpecification(config, description=text)


TEXT = "KeypointNeRF: people never seen before, from two or three photographs and 3-D keypoints."

keypoint_nerf = _preset(
    "keypoint-nerf",
    TEXT,
    ProceduralPeopleDataParserConfig(people=500, size=512, cameras=20),
    keypoint_nerf_model,
    64,
    5e-4,
    1.0,
    227_700,
)
keypoint_nerf_tiny = _preset(
    "keypoint-nerf-tiny",
    f"{TEXT} Small and quick.",
    ProceduralPeopleDataParserConfig(people=60),
    keypoint_nerf_tiny_model,
    20,
    1e-3,
    0.1,
    3600,
)
