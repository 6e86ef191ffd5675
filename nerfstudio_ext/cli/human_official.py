"""`ns-ext human official`: the checkpoints that Neural Body's authors published."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import tyro

PADDING = (0.0, 0.0, 0.05)
"""Metres along x, y and z that the published code pads its boxes by on ZJU-MoCap."""
REACH = 16
"""Voxels of half the resolution around the body beyond which the coarsest level holds nothing either."""


@dataclass
class Official:
    """Make a run folder of a checkpoint of Neural Body's published code, for ns-viewer, ns-render, ns-eval and ns-ext.

    Nothing is trained. The data is the person that it was trained on, in ZJU-MoCap's layout.
    """

    weights: Annotated[Path, tyro.conf.Positional]
    """The published latest.pth, of spconv 1.x or 2.x."""
    data: Path
    """Folder that holds annots.npy."""
    output: Optional[Path] = None
    """Folder to write; none: outputs/NAME_OF_THE_DATA-official."""
    begin: int = 0
    """First training frame, as 700 of sequence 390."""
    frame_step: int = 1
    """Every so-manieth frame was trained on."""
    novel_frames: int = 0
    """Frames that ns-eval scores as novel poses."""
    novel_begin: Optional[int] = None
    """First of those, as 0 of sequence 390; none: the one after the training frames."""
    fit: Literal["first", "new"] = "first"
    """The fit that it was trained with; the published ones were with the first (params/, vertices/)."""
    train_cameras: Optional[str] = None
    """Cameras that it was trained on; none: 0,6,12,18 where there are so many, else all but the last."""
    max_side: int = 512
    """Shrink pictures until neither side has more pixels."""

    def main(self) -> None:
        import copy

        import torch
        from nerfstudio.configs.method_configs import all_methods

        from dataparsers.zju_mocap import ZjuMocapDataParserConfig
        from nerfstudio_ext.cli.folders import require_empty
        from nerfstudio_ext.engine.checkpoints import atomic_save, relocate_run, write_config
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.fields.official_weights import read_official

        output = self.output or Path("outputs") / f"{self.data.resolve().name}-official"
        require_empty(output, "name a new folder with --output")
        if self.fit == "new":
            print(
                "new_params/ and new_vertices/ are a later fit: what the authors published was trained with the first, "
                "and with this one its pictures are off and its scores too low"
            )
        field, unused = read_official(self.weights.expanduser())
        vertices, frames = len(field.codes), len(field.latents)
        parser = ZjuMocapDataParserConfig(
            data=self.data.expanduser().resolve(), fit=self.fit, begin=self.begin, frames=frames,
            frame_step=self.frame_step, novel_frames=self.novel_frames, novel_begin=self.novel_begin,
            train_cameras=self.train_cameras, max_side=self.max_side,
        )  # fmt: skip
        body = parser.setup().get_dataparser_outputs("train").metadata["body_motion"]
        if body.vertices.shape[1] != vertices:
            raise InputError(
                f"{self.weights} holds codes for {vertices} vertices, but the body in {self.data} has "
                f"{body.vertices.shape[1]}: it was trained on another body model."
            )
        config: Any = copy.deepcopy(all_methods["neural-body"])
        config.machine.device_type = "cuda" if torch.cuda.is_available() else "cpu"
        model, manager = config.pipeline.model, config.pipeline.datamanager
        model.field.level_mapping, model.box_padding, model.reach = "official", PADDING, REACH
        manager.dataparser, manager.data, config.data = parser, parser.data, parser.data
        models = output / "nerfstudio_models"
        state = {f"_model.field.{name}": value for name, value in field.state_dict().items()}
        state["_model.device_indicator_param"] = torch.empty(0)  # the host's own, in every checkpoint
        atomic_save({"step": 0, "pipeline": state}, models / "step-000000000.ckpt")
        config.relative_model_dir = Path(models.name)
        write_config(config, output / "config.yml")
        path = relocate_run(output)
        if unused:
            print(f"not used: {', '.join(unused)}")
        print(f"codes of {vertices} vertices and {frames} frames: {output}")
        print(f"look at it with:  ns-viewer --load-config {path}")
