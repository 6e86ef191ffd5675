"""What every method of the suite shares: the output contract, offline metrics, and hooks for pipeline and trainer.

Outputs of `get_outputs_for_camera`, in this order: ``rgb`` [H, W, 3], ``accumulation`` [H, W, 1] and ``depth`` [H, W,
1], then the method's own maps. With them every stock command that applies to a method works on CPU and GPU.
"""

from dataclasses import dataclass, field
from typing import Dict, Tuple, Type

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from nerfstudio.models.base_model import Model, ModelConfig
from torch import Tensor

from nerfstudio_ext.engine.metrics import Lpips, ms_ssim, psnr, ssim, ssim_zju


@dataclass
class ExtModelConfig(ModelConfig):
    """Base configuration of the suite's models."""

    _target: Type = field(default_factory=lambda: ExtModel)


class ExtModel(Model):
    """Base of the suite's models; see the module's text for the contract."""

    config: ExtModelConfig

    def populate_modules(self) -> None:
        super().populate_modules()
        # A plain object: a metric module would write its network into every checkpoint.
        self._lpips = Lpips()

    def prepare_checkpoint(self) -> None:
        """Bring every buffer up to date with the weights; called right before a checkpoint is written."""

    def prepare_eval(self) -> None:
        """Bring every buffer up to date with the weights; called right before a whole evaluation."""

    def get_run_metrics(self) -> Dict[str, float]:
        """Figures of the whole run (sizes, speeds) that ns-eval reports once, not per image."""
        return {}

    def get_rgba_image(self, outputs: Dict[str, Tensor], output_name: str = "rgb") -> Float[Tensor, "height width 4"]:
        """Colour with the accumulated opacity as alpha, for exports and transparent renders."""
        return torch.cat([outputs[output_name], outputs["accumulation"]], dim=-1)

    def get_image_metrics_and_images(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        """Quality of one rendered image against ``batch["image"]`` [H, W, 3] in [0, 1].

        ``psnr`` is measured on the float output, ``psnr_8bit`` after rounding to 8 bit (what a codec comparison needs).
        LPIPS appears only when its weights are on this machine.
        """
        prediction = outputs["rgb"]
        target = batch["image"].to(prediction.device)
        pair = torch.stack([prediction, target]).permute(0, 3, 1, 2).float().clamp(0, 1)
        predicted, wanted = pair[:1], pair[1:]
        rounded = torch.round(predicted * 255) / 255
        metrics = {
            "psnr": float(psnr(predicted, wanted)),
            "psnr_8bit": float(psnr(rounded, wanted)),
            "ssim": float(ssim(predicted, wanted)),
            "ms_ssim": float(ms_ssim(predicted, wanted)),
        }
        if self._lpips.available:
            metrics["lpips"] = float(self._lpips(predicted, wanted))
        error = (prediction - target).abs().mean(dim=-1, keepdim=True).expand_as(target)
        return metrics, {"img": torch.cat([target, prediction, error], dim=1)}


class RayModel(ExtModel):
    """Base of the models that colour rays: scores of a batch of rays, and of the object alone where masks are known."""

    def scene_span(self) -> float:
        """The depth error, in world units, of a picture that shows nothing where the object is."""
        raise NotImplementedError

    def get_metrics_dict(self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]) -> Dict[str, Tensor]:
        pair = (x.detach().T[None, :, None] for x in (outputs["rgb"], self._colours(batch)))
        return {"psnr": psnr(*pair).mean()}

    def mask_entropy(self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]) -> Float[Tensor, ""]:
        """Cross entropy between accumulation and ``batch["fg_mask"]``."""
        mask = (batch["fg_mask"].to(self.device) > 0.5).float()
        return F.binary_cross_entropy(outputs["accumulation"].clamp(1e-3, 1 - 1e-3), mask)

    def get_image_metrics_and_images(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        """Scores of the whole picture, and where masks and depth are known also those of the object alone.

        ``psnr`` counts all pixels, ``psnr_masked`` the object's only; ``ssim_masked`` is the similarity of the
        rectangle around the object, the true pixels beside it in both pictures; ``mask_iou`` compares accumulation
        above one half with the mask; ``depth_error`` is in world units, over the pixels that are object in both.
        """
        batch = {**batch, "image": batch["image"][..., :3]}
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        if "fg_mask" not in batch:
            return metrics, images
        mask, both = self.object_pixels(outputs, batch)
        solid = outputs["accumulation"][..., 0] > 0.5
        if bool(mask.any()):
            shown, wanted = outputs["rgb"].clamp(0, 1), self._colours(batch)
            error = (shown - wanted)[mask].square().mean()
            metrics["psnr_masked"] = float(-10 * torch.log10(error + 1e-9))
            metrics["ssim_masked"] = _ssim_masked(shown, wanted, mask)
        metrics["mask_iou"] = float(both.sum() / (mask | solid).sum().clamp(min=1))
        if "gt_depth" in batch:
            apart = (outputs["depth"] - batch["gt_depth"].to(self.device))[both].abs()
            metrics["depth_error"] = float(apart.mean()) if bool(both.any()) else self.scene_span()
        return metrics, images

    def object_pixels(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Bool[Tensor, "height width"], Bool[Tensor, "height width"]]:
        """Pixels of the object in truth, and those that are opaque in the render as well."""
        mask = batch["fg_mask"].to(self.device)[..., 0] > 0.5
        return mask, mask & (outputs["accumulation"][..., 0] > 0.5)

    def rectangle_scores(self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]) -> Dict[str, float]:
        """Scores of the rectangle around ``batch["box_mask"]``; none where no ray meets the box. Papers on ZJU-MoCap
        cut out that of the body's vertices and a few centimetres; whether this is theirs is for the data to say.

        ``psnr_box`` counts all of its pixels; ``ssim_zju`` is the similarity of these papers' tables, higher than
        ``ssim_box``.
        """
        where = batch["box_mask"][..., 0].cpu()
        if not bool(where.any()):
            return {}
        rows, columns = (torch.nonzero(where.any(1 - axis))[:, 0] for axis in (0, 1))
        window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        pair = [x[window].permute(2, 0, 1)[None].cpu() for x in (outputs["rgb"], self._colours(batch))]
        return {
            "psnr_box": float(psnr(*pair)),
            "ssim_box": float(ssim(*pair)),
            "ssim_zju": float(ssim_zju(*pair)),
        }

    def _colours(self, batch: Dict[str, Tensor]) -> Float[Tensor, "*rays 3"]:
        return batch["image"].to(self.device)[..., :3]


def _ssim_masked(
    shown: Float[Tensor, "height width 3"], wanted: Float[Tensor, "height width 3"], mask: Bool[Tensor, "height width"]
) -> float:
    """Structural similarity of the rectangle around a mask, which only the pixels of the mask can lower."""
    rows, columns = (torch.nonzero(mask.any(1 - axis))[:, 0] for axis in (0, 1))
    window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    judged = torch.where(mask[..., None], shown, wanted)
    return float(ssim(*(x[window].permute(2, 0, 1)[None] for x in (judged, wanted))))
