"""Defaults that every preset of the suite shares."""

from typing import Any, Dict, Optional

from nerfstudio.configs.base_config import LoggingConfig, ViewerConfig
from nerfstudio.engine.optimizers import OptimizerConfig

from nerfstudio_ext.engine.host import prepare_host
from nerfstudio_ext.engine.schedulers import ExponentialSchedulerConfig, WarmupCosineSchedulerConfig
from nerfstudio_ext.engine.trainer import ExtTrainerConfig
from nerfstudio_ext.pipelines.base import ExtPipelineConfig

prepare_host()


def trainer(
    method_name: str,
    epochs: Optional[int],
    pipeline: ExtPipelineConfig,
    optimizers: Dict[str, Any],
    steps_per_save: int = 1000,
    steps: Optional[int] = None,
    display_images: int = 1,
    steps_per_eval_image: int = 500,
) -> ExtTrainerConfig:
    """Trainer with the suite's habits: viewer on loopback, evaluation figures in tensorboard, three saves at least."""
    return ExtTrainerConfig(
        method_name=method_name,
        epochs=epochs,
        max_num_iterations=steps,
        steps_per_save=steps_per_save if steps is None else min(steps_per_save, steps // 3),
        steps_per_eval_batch=0,
        steps_per_eval_image=steps_per_eval_image,
        pipeline=pipeline,
        optimizers=optimizers,
        logging=LoggingConfig(steps_per_log=50),
        # One frustum suffices for a screen, and a constant depth is nothing to composite with.
        viewer=ViewerConfig(
            websocket_host="127.0.0.1", default_composite_depth=False, max_num_display_images=display_images
        ),
        vis="viewer+tensorboard",
    )


def warmup_cosine(optimizer: OptimizerConfig, warmup: float) -> Dict[str, Any]:
    """Optimizer with a linear warm-up over this share of training, then a cosine to zero."""
    return {"optimizer": optimizer, "scheduler": WarmupCosineSchedulerConfig(warmup=warmup)}


def exponential(optimizer: OptimizerConfig, final: float) -> Dict[str, Any]:
    """Optimizer whose rate falls exponentially to this share over the training."""
    return {"optimizer": optimizer, "scheduler": ExponentialSchedulerConfig(final=final)}
