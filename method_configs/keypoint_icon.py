"""Presets of KeypointICON: the released configuration, and `-tiny` for two CPU cores."""

from typing import Any, Dict

from nerfstudio.configs.base_config import InstantiateConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig
from nerfstudio.plugins.types import MethodSpecification

from dataparsers.procedural_people import ProceduralPeopleDataParserConfig
from method_configs._common import trainer
from nerfstudio_ext.data.scans import ScanDataManagerConfig
from nerfstudio_ext.engine.optimizers import RMSpropOptimizerConfig
from nerfstudio_ext.engine.schedulers import ExponentialSchedulerConfig
from nerfstudio_ext.fields.keypoint_icon_field import KeypointIconFieldConfig
from nerfstudio_ext.models.keypoint_icon import KeypointIconModelConfig
from nerfstudio_ext.pipelines.base import ExtPipelineConfig

# Architecture, losses and recipe (method card sections 2, 4 and 5): 20 epochs of 4,500 steps, then 10 of 3,000.
keypoint_icon_model = KeypointIconModelConfig()
tiny_field = KeypointIconFieldConfig(
    side_width=8,
    side_halvings=3,
    side_blocks=1,
    side_shortcuts=True,
    stem=16,
    hourglass_width=32,
    hourglass_depth=2,
    stacks=1,
    features=8,
    raw_normals=True,
    # Offsets of centimetres are next to nothing in the released frequency alone, and bodies stay flat from the side.
    octaves=3,
    widths=(128, 128, 64),
)
keypoint_icon_tiny_model = KeypointIconModelConfig(
    field=tiny_field, photo_size=96, normal_steps=600, normal_source="mix", lattice_levels=2
)


def _preset(
    name: str, text: str, people: ProceduralPeopleDataParserConfig, data: ScanDataManagerConfig,
    model: KeypointIconModelConfig, sides: OptimizerConfig, points: OptimizerConfig, final: float, steps: int
) -> MethodSpecification:  # fmt: skip
    data.dataparser = people
    pipeline = ExtPipelineConfig(datamanager=data, model=model)
    stage = model.normal_steps
    optimizers = {
        "sides": _decaying(sides, ExponentialSchedulerConfig(max_steps=stage, final=final)),
        "field": _decaying(points, ExponentialSchedulerConfig(final=final, delay=stage)),
    }
    config = trainer(name, None, pipeline, optimizers, steps_per_save=500, steps=steps, display_images=24)
    return MethodSpecification(config, description=text)


def _decaying(optimizer: OptimizerConfig, scheduler: InstantiateConfig) -> Dict[str, Any]:
    return {"optimizer": optimizer, "scheduler": scheduler}


TEXT = "KeypointICON: a clothed person's surface from one photograph and 3-D keypoints."

keypoint_icon = _preset(
    "keypoint-icon",
    TEXT,
    ProceduralPeopleDataParserConfig(people=500, size=512, cameras=8),
    ScanDataManagerConfig(),
    keypoint_icon_model,
    AdamOptimizerConfig(lr=1e-4),
    RMSpropOptimizerConfig(lr=1e-4),
    0.1,
    120_000,
)
keypoint_icon_tiny = _preset(
    "keypoint-icon-tiny",
    f"{TEXT} Small and quick.",
    ProceduralPeopleDataParserConfig(),
    ScanDataManagerConfig(
        photos_per_step=3, points_per_photo=1500, photos_per_person=4, photo_size=96, points_per_person=12000
    ),
    keypoint_icon_tiny_model,
    AdamOptimizerConfig(lr=2e-3),
    AdamOptimizerConfig(lr=2e-3),
    0.1,
    2000,
)
