"""Presets of Neural Body: the paper's settings, and `-tiny` for two CPU cores."""

from nerfstudio.plugins.types import MethodSpecification

from dataparsers.procedural_human import ProceduralHumanDataParserConfig
from method_configs._common import exponential, trainer
from nerfstudio_ext.data.human import HumanDataManagerConfig
from nerfstudio_ext.engine.optimizers import AdamBetasOptimizerConfig
from nerfstudio_ext.fields.neural_body_field import NeuralBodyFieldConfig
from nerfstudio_ext.models.neural_body import NeuralBodyModelConfig
from nerfstudio_ext.pipelines.base import ExtPipelineConfig

# Architecture, sampling and recipe (method card sections 2.1, 3 and 5).
neural_body_model = NeuralBodyModelConfig()
tiny_field = NeuralBodyFieldConfig(
    code_width=8,
    channels=(16, 32, 32, 32),
    norm="layer",
    width=64,
    colour_width=64,
    latent_width=16,
    position_octaves=3,
    direction_octaves=1,
)
# Colours are measured in the body's frame: a person who faces elsewhere than in training takes on wrong ones otherwise.
neural_body_tiny_model = NeuralBodyModelConfig(
    field=tiny_field,
    voxel_size=0.02,
    reach=2,
    num_samples=48,
    mask_loss_mult=0.05,
    colour_frame="body",
)


def _preset(
    name: str, text: str, model: NeuralBodyModelConfig, band: int, rays: int, lr: float, final: float, steps: int
) -> MethodSpecification:
    manager = HumanDataManagerConfig(
        dataparser=ProceduralHumanDataParserConfig(),
        train_num_rays_per_batch=rays,
        eval_num_rays_per_batch=rays,
        band=band,
    )
    pipeline = ExtPipelineConfig(datamanager=manager, model=model)
    optimizers = {
        "field": exponential(AdamBetasOptimizerConfig(lr=lr), final=final),
        "poses": exponential(AdamBetasOptimizerConfig(lr=0.1 * lr), final=final),
    }
    config = trainer(name, None, pipeline, optimizers, steps_per_save=5000, steps=steps, display_images=48)
    return MethodSpecification(config, description=text)


TEXT = "Neural Body: a moving person from a few cameras, with codes that live on a body model."

# The ring is two of the paper's 1024 pixels wide, one of the 512 that pictures are shrunk to.
neural_body = _preset("neural-body", TEXT, neural_body_model, 1, 1024, 5e-4, 0.1**0.4, 200_000)
# Drawn masks are exact, so the small preset trains right up to their edge.
neural_body_tiny = _preset(
    "neural-body-tiny", f"{TEXT} Small and quick.", neural_body_tiny_model, 0, 512, 2e-3, 0.1, 2000
)
