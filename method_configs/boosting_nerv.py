"""Presets of NeRV, E-NeRV, HNeRV and their boosted forms: the papers' settings, and `-tiny` for two CPU cores."""

from dataclasses import replace
from typing import Dict, Tuple

from nerfstudio.engine.optimizers import OptimizerConfig
from nerfstudio.plugins.types import MethodSpecification

from dataparsers.video_frames import VideoDataParserConfig
from method_configs._common import trainer, warmup_cosine
from nerfstudio_ext.data.video import VideoDataManagerConfig
from nerfstudio_ext.engine.optimizers import AdamBetasOptimizerConfig, AdanOptimizerConfig
from nerfstudio_ext.fields.boosting_nerv_field import BoostingNeRVFieldConfig
from nerfstudio_ext.models.boosting_nerv import BoostingNeRVModelConfig
from nerfstudio_ext.pipelines.base import ExtPipelineConfig
from nerfstudio_ext.video.losses import LossName

# Architectures (method card sections 2.3 to 2.7). HNeRV-Boost is the default of the field's config.
hnerv_boost_field = BoostingNeRVFieldConfig()
hnerv_field = replace(
    hnerv_boost_field,
    activation="gelu",
    modulation="none",
    time_convention="start",
    kernel_last=5,
    late_stage_blocks=1,
)
nerv_boost_field = BoostingNeRVFieldConfig(
    stem="time", expansion=1.0, width_divisor=2.0, width_rounding="floor", kernel_first=3, head_kernel=1
)
nerv_field = replace(
    nerv_boost_field,
    activation="gelu",
    modulation="none",
    time_convention="start",
    num_frequencies=40,
    stem_hidden=512,
    late_stage_blocks=1,
    lower_width=96,
)
e_nerv_boost_field = replace(nerv_boost_field, stem="grid", expansion=3.0, factorised_first_stage=True)
e_nerv_field = replace(
    e_nerv_boost_field,
    activation="gelu",
    modulation="instance",
    time_convention="closed",
    condition_hidden=128,
    condition_width=128,
    token_width=256,
    late_stage_blocks=1,
    lower_width=96,
)

# The -tiny presets: frames of at most 320 pixels, decoders of at most a fifth of a million numbers, stems to match, and
# learning rates for a thirtieth of the papers' steps (the best of a sweep by powers of two: boosting-nerv/1b).
TINY_MAX_SIDE = 320
TINY_EPOCHS = 14


def _presets(
    name: str,
    description: str,
    field: BoostingNeRVFieldConfig,
    tiny: Dict[str, int],
    tiny_decoder_params: float,
    loss: LossName,
    optimizer: OptimizerConfig,
    tiny_rate: float,
    warmup: float,
) -> Tuple[MethodSpecification, MethodSpecification]:
    """The paper's preset and the tiny one, which differs in numbers of the field, budget, epochs and learning rate."""

    def specification(
        method_name: str,
        text: str,
        model: BoostingNeRVModelConfig,
        parser: VideoDataParserConfig,
        epochs: int,
        optimizer: OptimizerConfig,
    ) -> MethodSpecification:
        pipeline = ExtPipelineConfig(datamanager=VideoDataManagerConfig(dataparser=parser), model=model)
        optimizers = {"field": warmup_cosine(optimizer, warmup)}
        return MethodSpecification(
            trainer(method_name, epochs, pipeline, optimizers, steps_per_eval_image=100), description=text
        )

    paper = BoostingNeRVModelConfig(field=field, loss=loss)
    small = BoostingNeRVModelConfig(
        field=replace(field, **tiny), loss=loss, target_params=None, decoder_params=tiny_decoder_params
    )
    return (
        specification(name, description, paper, VideoDataParserConfig(), 300, optimizer),
        specification(
            f"{name}-tiny",
            f"{description} Small and quick.",
            small,
            VideoDataParserConfig(max_side=TINY_MAX_SIDE),
            TINY_EPOCHS,
            replace(optimizer, lr=tiny_rate),
        ),
    )


nerv, nerv_tiny = _presets(
    "nerv",
    "NeRV: a video as a network, from the frame's time alone.",
    nerv_field,
    dict(stem_hidden=64, lower_width=24),
    2e5,
    "l1-ssim",
    AdamBetasOptimizerConfig(lr=5e-4, betas=(0.5, 0.999)),
    tiny_rate=4e-3,
    warmup=0.2,
)
nerv_boost, nerv_boost_tiny = _presets(
    "nerv-boost",
    "NeRV-Boost: NeRV with a conditional, sinusoidal decoder.",
    nerv_boost_field,
    dict(stem_hidden=32, lower_width=12),
    2e5,
    "high-frequency",
    AdanOptimizerConfig(lr=3e-3),
    tiny_rate=6e-3,
    warmup=0.1,
)
e_nerv, e_nerv_tiny = _presets(
    "e-nerv",
    "E-NeRV: a video as a network, from time and space apart.",
    e_nerv_field,
    dict(token_width=32, condition_hidden=32, condition_width=32, lower_width=24),
    2e5,
    "l1-ssim",
    AdamBetasOptimizerConfig(lr=5e-4, betas=(0.5, 0.999)),
    tiny_rate=4e-3,
    warmup=0.2,
)
e_nerv_boost, e_nerv_boost_tiny = _presets(
    "e-nerv-boost",
    "E-NeRV-Boost: E-NeRV with a conditional, sinusoidal decoder.",
    e_nerv_boost_field,
    dict(token_width=16, condition_hidden=16, condition_width=8, lower_width=12),
    2e5,
    "high-frequency",
    AdanOptimizerConfig(lr=1.5e-3),
    tiny_rate=6e-3,
    warmup=0.1,
)
hnerv, hnerv_tiny = _presets(
    "hnerv",
    "HNeRV: a video as a network, from a tiny content embedding per frame.",
    hnerv_field,
    dict(lower_width=8),
    1.26e5,
    "l2",
    AdamBetasOptimizerConfig(lr=1e-3),
    tiny_rate=4e-3,
    warmup=0.1,
)
hnerv_boost, hnerv_boost_tiny = _presets(
    "hnerv-boost",
    "HNeRV-Boost: HNeRV with a conditional, sinusoidal decoder.",
    hnerv_boost_field,
    dict(lower_width=8),
    1.26e5,
    "high-frequency",
    AdanOptimizerConfig(lr=3e-3),
    tiny_rate=6e-3,
    warmup=0.1,
)
hnerv_boost_interp, hnerv_boost_interp_tiny = _presets(
    "hnerv-boost-interp",
    "HNeRV-Boost with slowly varying time codes, which show times between frames.",
    replace(hnerv_boost_field, frequency_base=1.05),
    dict(lower_width=8),
    1.26e5,
    "high-frequency",
    AdanOptimizerConfig(lr=1e-3),
    tiny_rate=2e-3,
    warmup=0.1,
)
