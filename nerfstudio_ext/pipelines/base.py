"""The pipeline of every method: nerfstudio's own, safe on CPU, strict when it loads, and strict about numbers."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Dict, List, Literal, Mapping, Optional, Tuple, Type, cast

import torch
import torch.distributed as dist
import torchvision.utils as vutils
from nerfstudio.models.base_model import Model
from nerfstudio.pipelines.base_pipeline import Pipeline, VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils import writer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch.cuda.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from nerfstudio_ext.engine.checkpoints import load_report
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.host import ensure_ffmpeg
from nerfstudio_ext.engine.opening_view import OpeningView


@dataclass
class ExtPipelineConfig(VanillaPipelineConfig):
    """Configuration for pipeline instantiation"""

    _target: Type = field(default_factory=lambda: ExtPipeline)
    """target class to instantiate"""


class ExtPipeline(VanillaPipeline):
    """Data manager and model, as in nerfstudio, with six differences.

    Numbers below 1e-38 count as zero on the CPU. It wraps the model for several processes on CPU (gloo) as well as on
    CUDA; a checkpoint that does not fit is an error, never a silent partial load; averaged metrics are finite numbers;
    a model may offer `prepare_eval`, `prepare_checkpoint` and `get_run_metrics`, which are called before an evaluation,
    before a save, and once per evaluation; a data manager may offer `follow`, which gets the model once it is there,
    `restore`, which gets what a checkpoint holds of it, and `scene_metrics`, called by ns-eval; a viewer opens at the
    first training camera.

    Args:
        config: Configuration to instantiate the pipeline.
        device: Location to place model and data.
        test_mode: "val" loads train and val data, "test" train and test data, "inference" none.
        world_size: Number of processes that train together.
        local_rank: Rank of this process on its machine.
        grad_scaler: Gradient scaler of the trainer.
    """

    def __init__(
        self,
        config: ExtPipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: Optional[GradScaler] = None,
    ) -> None:
        Pipeline.__init__(self)  # the stock constructor wraps the model for CUDA only
        ensure_ffmpeg()
        # Before anything starts worker threads, which inherit it. Gradients through opaque or empty space shrink below
        # what float32 holds in full, and a processor calculates with such numbers a hundred times more slowly.
        torch.set_flush_denormal(True)
        self.config = config
        self.test_mode = test_mode
        self.world_size = world_size
        self.datamanager = config.datamanager.setup(
            device=device, test_mode=test_mode, world_size=world_size, local_rank=local_rank
        )
        self.datamanager.to(device)
        train_dataset = self.datamanager.train_dataset
        assert train_dataset is not None, "Missing input dataset"
        points = getattr(getattr(self.datamanager, "train_dataparser_outputs", None), "metadata", {})
        self._model = config.model.setup(
            scene_box=train_dataset.scene_box,
            num_train_data=len(train_dataset),
            metadata=train_dataset.metadata,
            device=device,
            grad_scaler=grad_scaler,
            seed_points=(points["points3D_xyz"], points["points3D_rgb"]) if "points3D_xyz" in points else None,
        )
        self.model.to(device)
        if world_size > 1:
            devices = [local_rank] if torch.device(device).type == "cuda" else None
            wrapped = DistributedDataParallel(
                self._model, device_ids=devices, find_unused_parameters=True, broadcast_buffers=False
            )
            self._model = cast(Model, wrapped)
            dist.barrier(device_ids=devices)
        self.opening_view = OpeningView(train_dataset.cameras)  # the viewer looks for such here
        follow = getattr(self.datamanager, "follow", None)
        if follow is not None:
            follow(self.model)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: Optional[bool] = None):
        """Load model and pipeline parameters, and hand the data manager its own; the `module.` layer of distributed
        training is taken off.

        Args:
            state_dict: Parameters as a checkpoint's "pipeline" entry holds them.
            strict: False loads what fits and prints what does not; otherwise everything must fit.

        Raises:
            InputError: Parameters are missing, unexpected or of another shape; the message names them.
        """
        state = {_without_ddp(key): value for key, value in state_dict.items()}
        model_state = {key[len("_model.") :]: value for key, value in state.items() if key.startswith("_model.")}
        own_state = {key: value for key, value in state.items() if not key.startswith(("_model.", "datamanager."))}
        report = load_report(self._own_parameters(), own_state)
        try:
            self.model.load_state_dict(model_state, strict=True)
        except RuntimeError:
            # Asked only now: a model may resize itself to the checkpoint inside its load_state_dict.
            report = load_report(self.model.state_dict(), model_state).merged(report)
            if not report:
                raise
        if report and strict is not False:
            raise InputError(
                f"The checkpoint does not fit the model: {report}; load it with the method and sizes it was saved with."
            )
        if report:
            fitting = {key: value for key, value in model_state.items() if key not in report.mismatched}
            self.model.load_state_dict(fitting, strict=False)
            own_state = {key: value for key, value in own_state.items() if key not in report.mismatched}
            print(f"Loaded the checkpoint in part: {report}.")
        torch.nn.Module.load_state_dict(self, own_state, strict=False)
        restore = getattr(self.datamanager, "restore", None)
        if restore is not None:
            own = "datamanager."
            restore({key[len(own) :]: value for key, value in state.items() if key.startswith(own)})

    def prepare_checkpoint(self) -> None:
        """Let the model bring up to date what a checkpoint must hold; called on the saving process just before."""
        self._call_hook("prepare_checkpoint")

    def get_eval_image_metrics_and_images(self, step: int) -> Tuple[Dict[str, Any], Dict[str, torch.Tensor]]:
        """Metrics and pictures of one held-out image; its PSNR shows in the terminal, too."""
        metrics, images = super().get_eval_image_metrics_and_images(step)
        if "psnr" in metrics:
            writer.put_scalar(writer.EventName.CURR_TEST_PSNR, float(metrics["psnr"]), step)  # pyright: ignore[reportArgumentType]
        return metrics, images

    @torch.no_grad()
    def get_average_image_metrics(
        self,
        data_loader,
        image_prefix: str,
        step: Optional[int] = None,
        output_path: Optional[Path] = None,
        get_std: bool = False,
    ) -> Dict[str, float]:
        """Mean metrics over all images of a loader, and once the metrics of the run as a whole.

        Args:
            data_loader: Yields pairs of camera and batch.
            image_prefix: Start of the file names of saved images.
            step: Current training step.
            output_path: Folder to save the images to; none saves nothing.
            get_std: Add the standard deviation over the images (of the images as they are: 0 for a single one).

        Returns:
            Finite floats, so that ns-eval writes strict JSON. `fps` and `num_rays_per_sec` time the rendering alone.

        Raises:
            InputError: A metric is not a finite number.
        """
        was_training = self.training
        self.eval()
        self._call_hook("prepare_eval")
        if output_path is not None:
            output_path.mkdir(exist_ok=True, parents=True)
        rows: List[Dict[str, float]] = []
        with Progress(
            TextColumn("[progress.description]{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            MofNCompleteColumn(),
            transient=True,
        ) as progress:
            task = progress.add_task("[green]Evaluating all images...", total=len(data_loader))
            for index, (camera, batch) in enumerate(data_loader):
                start = self._clock()
                outputs = self.model.get_outputs_for_camera(camera=camera)
                seconds = max(self._clock() - start, 1e-9)
                metrics, images = self.model.get_image_metrics_and_images(outputs, batch)
                if output_path is not None:
                    for key, image in images.items():
                        path = output_path / f"{image_prefix}_{key}_{index:04d}.png"
                        vutils.save_image(image.permute(2, 0, 1).cpu(), path)
                num_rays = int(camera.height) * int(camera.width)
                rows.append({**metrics, "num_rays_per_sec": num_rays / seconds, "fps": 1.0 / seconds})
                progress.advance(task)
        averages = _average(rows, get_std)
        averages.update(self._call_hook("get_run_metrics") or {})
        if self.test_mode == "test":  # as ns-eval opens it: scoring a whole scene is too slow to do while training
            averages.update(getattr(self.datamanager, "scene_metrics", lambda model: {})(self.model))
        _check_finite(averages, "the evaluation")
        self.train(was_training)
        return averages

    def _clock(self) -> float:
        """Seconds on a clock that is read once the GPU has finished what it was given."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return perf_counter()

    def _call_hook(self, name: str) -> Any:
        """Call a hook of the model; stock nerfstudio models have none of ours and return None."""
        hook = getattr(self.model, name, None)
        return hook() if hook is not None else None

    def _own_parameters(self) -> Dict[str, torch.Tensor]:
        """Parameters of modules that belong to the pipeline itself; those of model and data are not its own."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith(("_model.", "datamanager."))}


def _without_ddp(key: str) -> str:
    """Parameter name without the layers that distributed training puts around pipeline and model."""
    key = key.removeprefix("module.")
    return "_model." + key.removeprefix("_model.module.") if key.startswith("_model.module.") else key


def _average(rows: List[Dict[str, float]], get_std: bool) -> Dict[str, float]:
    """Mean, and on demand standard deviation, of each metric over the images that have it."""
    if not rows:
        raise InputError("There is no image to evaluate: the evaluation split of this run is empty.")
    averages = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        having = [index for index, row in enumerate(rows) if key in row]
        values = torch.tensor([float(rows[index][key]) for index in having], dtype=torch.float64)
        for bad in torch.nonzero(~torch.isfinite(values)).flatten().tolist()[:1]:
            raise InputError(
                f"Metric '{key}' of evaluation image {having[bad]} is {values[bad]:g}, not a number that can be "
                f"averaged: "
                "the model has diverged or the image is broken; go back to an earlier checkpoint or train it again."
            )
        std, mean = torch.std_mean(values, correction=0)
        averages[key] = float(mean)
        if get_std:
            averages[f"{key}_std"] = float(std)
    return averages


def _check_finite(metrics: Mapping[str, float], what: str) -> None:
    """Refuse metrics that strict JSON cannot hold."""
    for key, value in metrics.items():
        if not math.isfinite(value):
            raise InputError(f"Metric '{key}' of {what} is {value}; the model has diverged, so train it again.")
