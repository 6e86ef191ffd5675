"""Boosting Neural Representations for Videos with a Conditional Decoder (CVPR 2024), with the three methods it boosts:
NeRV (NeurIPS 2021), E-NeRV (ECCV 2022) and HNeRV (CVPR 2023).

Implemented: video representation with the networks, losses and recipes of all six; a second training stage that makes
the numbers cheap to store; holes that are filled (inpainting); frames between frames (interpolation); the clip as a
screen in the scene. Deviations: time codes from exact arithmetic (the published ones depend on the device's rounding),
frames of any size by padding, output always through tanh.
"""

import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Callable, Dict, List, Mapping, Optional, Tuple, Type, Union

import torch
import tyro
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.func import functional_call
from torch.nn import Parameter

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.frame_controls import FrameControls
from nerfstudio_ext.engine.metrics import psnr, psnr_where
from nerfstudio_ext.engine.rate_readout import RateReadout
from nerfstudio_ext.fields.boosting_nerv_field import BoostingNeRVField, BoostingNeRVFieldConfig
from nerfstudio_ext.models.base import ExtModel, ExtModelConfig
from nerfstudio_ext.video.frames import FrameStore
from nerfstudio_ext.video.losses import LossName, reconstruction_loss
from nerfstudio_ext.video.masks import Masks
from nerfstudio_ext.video.pruning import Pruner, PruningConfig
from nerfstudio_ext.video.quantization import CompressionConfig, Quantized, StoredNumbers, VideoQuantizer
from nerfstudio_ext.video.screen import view_screen
from nerfstudio_ext.video.sizing import NARROWEST, FrameLayout, choose_strides, largest_width

EMBEDDING_BATCH = 4
"""Frames encoded at once when the whole embedding table is written."""
SMOOTH_BASE = 1.1
"""Largest ratio of time frequencies with which the network means anything between frames (Boosting-NeRV: 1.05)."""
SAME_FRAME = 0.01
"""Times closer to a frame than this, in frames, are that frame's."""
NO_RAYS = "A video method decodes whole frames and has no rays: render or export it by camera."
TIMED_FRAMES, WARM_UP_FRAMES = 20, 3
"""Frames decoded for the reported decoding speed, and before it."""


@dataclass
class BoostingNeRVModelConfig(ExtModelConfig):
    """One video in one network; the defaults are HNeRV-Boost's."""

    _target: Type = field(default_factory=lambda: BoostingNeRVModel)
    enable_collider: bool = False
    """Video models shoot no rays."""
    field: BoostingNeRVFieldConfig = field(default_factory=BoostingNeRVFieldConfig)
    """Architecture."""
    target_params: Optional[float] = 1.5e6
    """Numbers the stored video may take, decoder and embeddings; the widest network that fits is built."""
    decoder_params: float = 1.25e5
    """Numbers the decoder alone may take where there are no target-params: suits clips of any length."""
    width: Optional[int] = None
    """Channels after the stem; overrides both budgets."""
    strides: Optional[Tuple[int, ...]] = None
    """Upsampling strides; none: chosen from the frame size, padding it where nothing divides."""
    loss: LossName = "high-frequency"
    """Reconstruction loss: high-frequency (boosted methods), l2 (HNeRV) or l1-ssim (NeRV, E-NeRV)."""
    reconstruction_loss_mult: float = 1.0
    """Weight of the reconstruction loss."""
    frequency_reference: bool = False
    """Rescale the frequency term to the weight that it has at 720x1280; the published loss weakens on small frames."""
    compression: Annotated[Optional[CompressionConfig], tyro.conf.Suppress] = None
    """Second training stage (`ns-ext video compress`); none: the numbers are kept as floats."""
    pruning: Annotated[Optional[PruningConfig], tyro.conf.Suppress] = None
    """Stage without the smallest weights (`ns-ext video prune`); none: all weights stay."""


class BoostingNeRVModel(ExtModel):
    """A video as a network: any dataset camera shows its frame, any other camera sees a screen in the scene."""

    config: BoostingNeRVModelConfig
    field: BoostingNeRVField
    embeddings: Optional[Tensor]

    def populate_modules(self) -> None:
        super().populate_modules()
        metadata = self.kwargs["metadata"]
        clip = metadata["clip"]
        self.frames: FrameStore = metadata["frames"]
        self.masks: Optional[Masks] = metadata.get("masks")
        # Even frames are known, odd ones take their embeddings from their neighbours.
        self.interpolates: bool = metadata.get("task") == "interpolation"
        self._num_frames: int = clip.num_frames
        self._num_embedded: int = (clip.num_frames + 1) // 2 if self.interpolates else clip.num_frames
        self._num_pixels: int = clip.num_frames * clip.height * clip.width
        layout = FrameLayout(
            clip.height, clip.width, tuple(self.config.strides or choose_strides(clip.height, clip.width))
        )

        def build(width: int) -> BoostingNeRVField:
            return self.config.field.setup(layout=layout, num_frames=clip.num_frames, width=width)

        if self.config.width is not None and self.config.width < NARROWEST:
            raise InputError(
                f"--pipeline.model.width is {self.config.width}, but the narrowest network has {NARROWEST}."
            )
        self.width: int = self.config.width or self._solve_width(build)
        self.field = build(self.width)
        # Convolutions and channel-wise operations of these widths run faster with channels innermost, on CPU and GPU.
        self.field.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        shape = self.field.embedding_shape
        # Viewing and rendering read this table; neither the encoder nor the source video is needed then.
        self.register_buffer("embeddings", None if shape is None else torch.zeros(clip.num_frames, *shape))
        self._embeddings_stale = False
        self._last_decoded: Optional[Tuple[int, Tensor]] = None
        self.quantizer: Optional[VideoQuantizer] = None
        if self.config.compression is not None:
            self.quantizer = VideoQuantizer(self.field.decoder_parameters(), shape is not None)
        self._last_quantized: Optional[Quantized] = None
        self.pruner = None if self.config.pruning is None else Pruner(self.field.decoder_parameters())
        if self.interpolates and not self.between_frames:
            CONSOLE.print(
                "Interpolation wants smooth time codes: train hnerv-boost-interp, or another method with "
                "--pipeline.model.field.frequency-base 1.05.",
                style="bold yellow",
            )
        size = self.size_report()
        self._num_stored = size["num_stored"]
        self.rate_readout: Optional[RateReadout] = None
        if self.config.compression is not None:
            target = self.config.compression.bits * self._num_stored / self._num_pixels
            self.rate_readout = RateReadout(target, steps_per_line=clip.num_frames)
        CONSOLE.print(
            f"{clip.num_frames} frames of {clip.width}x{clip.height}, strides {' '.join(map(str, layout.strides))}, "
            f"width {self.width}: {size['num_stored']:,} numbers ({size['num_decoder']:,} decoder, "
            f"{size['num_embeddings']:,} embeddings)"
        )
        self.frame_controls = FrameControls(clip.num_frames, clip.fps)

    def _solve_width(self, build: Callable[[int], BoostingNeRVField]) -> int:
        """Largest width within the budget, by counting networks that take no memory."""
        total = self.config.target_params

        def count(width: int) -> int:
            with torch.device("meta"):
                candidate = build(width)
            embeddings = 0 if total is None else self._num_embedding_values(candidate)
            return candidate.num_decoder_parameters() + embeddings

        if total is None:
            return largest_width(count, self.config.decoder_params, "--pipeline.model.decoder-params")
        return largest_width(count, total)

    def _num_embedding_values(self, network: BoostingNeRVField) -> int:
        shape = network.embedding_shape
        return 0 if shape is None else self._num_embedded * shape[0] * shape[1] * shape[2]

    def size_report(self) -> Dict[str, int]:
        """Stored numbers: decoder, embeddings and both together (the encoder is never stored)."""
        decoder, embeddings = self.field.num_decoder_parameters(), self._num_embedding_values(self.field)
        return {"num_decoder": decoder, "num_embeddings": embeddings, "num_stored": decoder + embeddings}

    def load_state_dict(self, *args, **kwargs):
        """Load weights, and forget the frame that the old ones decoded."""
        self._forget_decoded()
        return super().load_state_dict(*args, **kwargs)

    def _forget_decoded(self) -> None:
        self._last_decoded = self._last_quantized = None

    def start_compression(self, state: Mapping[str, Tensor]) -> None:
        """Begin the second stage with the weights of the first, and set the scales from them.

        Args:
            state: State dict of the first stage's model.
        """
        assert self.quantizer is not None
        own = {name: value for name, value in self.state_dict().items() if name.startswith("quantizer.")}
        self.load_state_dict({**state, **own})
        self._embeddings_stale = self.embeddings is not None
        self._refresh_embeddings()
        self.quantizer.start(self.field.decoder_parameters(), self.embeddings)

    def start_pruning(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of an earlier stage, and let the smallest of them go.

        Args:
            state: State dict of the earlier stage's model.
        """
        assert self.pruner is not None and self.config.pruning is not None
        self.load_state_dict({**state, "pruner.kept": self.pruner.kept})
        self.pruner.start(self.field.decoder_parameters(), self.config.pruning.keep)
        self._hold_pruned()

    def _hold_pruned(self) -> None:
        """Put weights that were pruned back to zero, where the optimizer has moved them since."""
        if self.pruner is not None:
            self.pruner.hold(self.field.decoder_parameters())

    def get_param_groups(self) -> Dict[str, List[Parameter]]:
        groups = {"field": list(self.field.parameters())}
        if self.quantizer is not None:
            groups["quantizer"] = list(self.quantizer.parameters())
        return groups

    def frame_indices(self, camera: Cameras) -> Int[Tensor, "frames"]:
        """0-based frame numbers that cameras ask for by time in [0, 1]; the first frame where they carry no time."""
        if camera.times is None:
            return torch.zeros(max(camera.size, 1), dtype=torch.long, device=self.device)
        times = camera.times.reshape(-1).to(self.device)
        return torch.round(times.clamp(0, 1) * (self._num_frames - 1)).long()

    def get_outputs(self, ray_bundle: Union[RayBundle, Cameras]) -> Dict[str, Tensor]:
        """Whole frames for a batch of dataset cameras: ``rgb`` [frames, H, W, 3]."""
        if isinstance(ray_bundle, RayBundle):
            raise InputError(NO_RAYS)
        indices = self.frame_indices(ray_bundle)
        self._hold_pruned()
        if not self.training:
            return {"rgb": self.decode(indices).permute(0, 2, 3, 1)}
        self._embeddings_stale = True
        self._forget_decoded()
        embeddings = None if self.embeddings is None else self.field.encode(self._seen(indices))
        if self.quantizer is None:
            return {"rgb": self.field(indices, embeddings).permute(0, 2, 3, 1)}
        stored = self.quantizer.decoder(self.field.decoder_parameters())
        bits = stored.bits
        if embeddings is not None:
            assert self.quantizer.embeddings is not None
            frame_bits = self.quantizer.embeddings.expected_bits(embeddings)
            bits = bits + self._num_embedded * frame_bits.mean()
            embeddings, _ = self.quantizer.embeddings(embeddings)
        frames = functional_call(self.field, stored.weights, (indices, embeddings))
        return {"rgb": frames.permute(0, 2, 3, 1), "bits": bits}

    def get_metrics_dict(self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]) -> Dict[str, Tensor]:
        prediction, target = self._pair(outputs, batch)
        if "mask" in batch:
            keep = batch["mask"].to(self.device).permute(0, 3, 1, 2)
            metrics = {"psnr": psnr_where(prediction.detach(), target, keep).mean()}
        else:
            metrics = {"psnr": psnr(prediction.detach(), target).mean()}
        if self.rate_readout is not None:
            metrics["bpp"] = outputs["bits"].detach() / self._num_pixels
            self.rate_readout.note(metrics["psnr"], metrics["bpp"])
        return metrics

    def get_loss_dict(
        self,
        outputs: Dict[str, Tensor],
        batch: Dict[str, Tensor],
        metrics_dict: Optional[Dict[str, Tensor]] = None,
    ) -> Dict[str, Tensor]:
        pair = self._pair(outputs, batch)
        if "mask" in batch:  # nothing is learned from inside the holes
            keep = batch["mask"].to(self.device).permute(0, 3, 1, 2)
            pair = pair[0] * keep, pair[1] * keep
        loss = reconstruction_loss(*pair, self.config.loss, self.config.frequency_reference)
        losses = {"reconstruction_loss": self.config.reconstruction_loss_mult * loss}
        if "bits" in outputs:
            assert self.config.compression is not None
            bits, target = outputs["bits"], self.config.compression.bits * self._num_stored
            rate = self.config.compression.rate_loss_mult * self._num_frames * bits / self._num_pixels
            losses["rate_loss"] = torch.where(bits.detach() > target, rate, torch.zeros_like(rate))
        return losses

    @torch.no_grad()
    def get_outputs_for_camera(
        self, camera: Cameras, obb_box: Optional[OrientedBox] = None
    ) -> Dict[str, Float[Tensor, "height width channels"]]:
        """The scene with the clip's screen in it, as one camera sees it at its time.

        Args:
            camera: One camera; its time picks the frame.
            obb_box: Unused; a screen is not cropped.
        """
        index = int(self.frame_indices(camera)[0])
        pictures = {"rgb": self.decode_frame(index)}
        if self.between_frames and camera.times is not None:
            position = float(camera.times.reshape(-1)[0].clamp(0, 1)) * (self._num_frames - 1)
            if abs(position - index) > SAME_FRAME:
                pictures["rgb"] = self.decode_between(position)
        if self.frames.available:
            pictures["gt"] = self._source(torch.tensor([index]))[0]
            pictures["error"] = (pictures["rgb"] - pictures["gt"]).abs().mean(0, keepdim=True)
            if self.masks is not None:
                pictures["seen"] = self._seen(torch.tensor([index]))[0]
        return view_screen(camera.to(self.device), pictures)

    @torch.no_grad()
    def decode_frame(self, index: int) -> Float[Tensor, "3 height width"]:
        """One frame in [0, 1]; kept until another is asked for or training goes on: a viewer asks again for every
        pose."""
        last = self._last_decoded
        if last is None or last[0] != index:
            last = (index, self.decode(torch.tensor([index], device=self.device))[0])
            self._last_decoded = last
        return last[1]

    @property
    def between_frames(self) -> bool:
        """Whether times between frames make sense: only slowly varying time codes mean anything there."""
        return self._num_frames > 1 and self.config.field.frequency_base <= SMOOTH_BASE

    @torch.no_grad()
    def decode_between(self, position: float) -> Float[Tensor, "3 height width"]:
        """A picture between two frames: time code of that very time, embedding mixed from the neighbours'.

        Args:
            position: Place in the clip, in frames from 0.
        """
        before = min(int(position), self._num_frames - 2)
        share = position - before
        index = torch.tensor([before], device=self.device)
        code = self.field.time_code_between(Fraction(position).limit_denominator(1000), self._num_frames)
        embedding = None
        if self.embeddings is not None:
            embedding = torch.lerp(self._shown_embeddings(index), self._shown_embeddings(index + 1), share)
        if self.quantizer is None:
            return self.field(index, embedding, code)[0]
        return functional_call(self.field, self.quantized_decoder().weights, (index, embedding, code))[0]

    @torch.no_grad()
    def decode(self, indices: Int[Tensor, "frames"]) -> Float[Tensor, "frames 3 height width"]:
        """Frames in [0, 1] from the numbers as they are stored: quantised where the run was compressed."""
        self._hold_pruned()
        embeddings = None if self.embeddings is None else self._shown_embeddings(indices)
        if self.quantizer is None:
            return self.field(indices, embeddings)
        return functional_call(self.field, self.quantized_decoder().weights, (indices, embeddings))

    def quantized_decoder(self) -> Quantized:
        """The decoder of a compressed run as it is stored; kept until training goes on."""
        assert self.quantizer is not None
        if self._last_quantized is None:
            self._last_quantized = self.quantizer.stored_decoder(self.field.decoder_parameters())
        return self._last_quantized

    def get_outputs_for_camera_ray_bundle(self, camera_ray_bundle: RayBundle) -> Dict[str, Tensor]:
        raise InputError(NO_RAYS)

    def prepare_checkpoint(self) -> None:
        self._hold_pruned()
        self._refresh_embeddings()

    def prepare_eval(self) -> None:
        self._hold_pruned()
        self._refresh_embeddings()

    @torch.no_grad()
    def get_run_metrics(self) -> Dict[str, float]:
        """Stored size, and decoding speed in frames per second: network only, after warm-up, one frame at a time."""
        seconds = []
        for k in range(WARM_UP_FRAMES + TIMED_FRAMES):
            index = torch.tensor([k % self._num_frames], device=self.device)
            start = time.perf_counter()
            self.decode(index)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds.append(time.perf_counter() - start)
        metrics = {name: float(value) for name, value in self.size_report().items()}
        metrics["decode_fps"] = TIMED_FRAMES / sum(seconds[WARM_UP_FRAMES:])
        if self.quantizer is not None:
            metrics["bpp"] = self.stored_numbers().bits() / self._num_pixels
        return metrics

    def _source(self, indices: Int[Tensor, "frames"]) -> Float[Tensor, "frames 3 height width"]:
        return self.frames.batch(indices, self.device)

    def _seen(self, indices: Int[Tensor, "frames"]) -> Float[Tensor, "frames 3 height width"]:
        """Frames as training may see them: black in the holes."""
        frames = self._source(indices)
        return frames if self.masks is None else frames * self.masks.batch(indices, self.device)

    def get_image_metrics_and_images(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        """As for every method, over the whole frame; with holes also `psnr_in_mask` (inside them) and
        `psnr_out_of_mask` (everywhere else)."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        if "mask" in batch:
            prediction = outputs["rgb"].permute(2, 0, 1)[None].clamp(0, 1)
            target = batch["image"].to(prediction.device).permute(2, 0, 1)[None]
            keep = batch["mask"].to(prediction.device).permute(2, 0, 1)[None]
            metrics["psnr_in_mask"] = float(psnr_where(prediction, target, 1 - keep))
            metrics["psnr_out_of_mask"] = float(psnr_where(prediction, target, keep))
        return metrics, images

    def _pair(self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]) -> Tuple[Tensor, Tensor]:
        """Prediction and target as [frames, 3, H, W]."""
        prediction, target = outputs["rgb"], batch["image"].to(self.device)
        return prediction.permute(0, 3, 1, 2), target.reshape(prediction.shape).permute(0, 3, 1, 2)

    def known_embeddings(self) -> Optional[Float[Tensor, "known channels grid_height grid_width"]]:
        """Embeddings that a file holds: of all frames, or of the even ones where odd ones follow from them; none where
        frames have none."""
        if self.embeddings is None:
            return None
        return self.embeddings[::2] if self.interpolates else self.embeddings

    def stored_numbers(self) -> StoredNumbers:
        """What the file of a compressed model holds."""
        assert self.quantizer is not None
        return self.quantizer.stored_numbers(self.quantized_decoder(), self.known_embeddings())

    def _stored_embeddings(self, indices: Int[Tensor, "frames"]) -> Tensor:
        """Embeddings of frames, written to the table anew where training has moved the encoder on."""
        assert self.embeddings is not None
        if self._embeddings_stale and self.frames.available:
            known = indices
            if self.interpolates:
                known = torch.cat([indices // 2 * 2, (indices + 1) // 2 * 2]).unique()
            self.embeddings[known] = self.field.encode(self._seen(known)).detach()
            if self.interpolates:
                missing = indices[indices % 2 == 1]
                self.embeddings[missing] = (self.embeddings[missing - 1] + self.embeddings[missing + 1]) / 2
        return self.embeddings[indices]

    def _shown_embeddings(self, indices: Int[Tensor, "frames"]) -> Tensor:
        """Embeddings of frames as a file would give them back: quantised where the run was compressed."""
        if self.quantizer is None:
            return self._stored_embeddings(indices)
        if not self.interpolates:
            return self.quantizer.stored_embeddings(self._stored_embeddings(indices))[0]
        around = (self._stored_embeddings(known) for known in (indices // 2 * 2, (indices + 1) // 2 * 2))
        before, after = (self.quantizer.stored_embeddings(embeddings)[0] for embeddings in around)
        return (before + after) / 2

    @torch.no_grad()
    def _refresh_embeddings(self) -> None:
        if self.embeddings is None or not self._embeddings_stale:
            return
        for indices in torch.arange(self._num_frames, device=self.device).split(EMBEDDING_BATCH):
            self._stored_embeddings(indices)
        self._embeddings_stale = False
