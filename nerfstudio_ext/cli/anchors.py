"""`ns-ext video anchors`: a run that fills holes or missing frames beside fills that need no network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

import tyro

SHOWN = 3
"""Frames in the picture."""


@dataclass
class Anchors:
    """Score a run with holes (`--mask`) or missing frames (`--task interpolation`) beside fills without a network.

    Holes: OpenCV's Telea, and the temporal median where holes move. Missing frames: mean of the neighbours, and the
    frame before once more. Writes a table to the terminal and a picture.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or its config.yml."""
    output: Optional[Path] = None
    """Picture to write (PNG); none: renders/anchors.png in the run's folder."""

    def main(self) -> None:
        import numpy as np
        import torch

        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.engine.runs import open_run
        from nerfstudio_ext.export.video import contact_sheet
        from nerfstudio_ext.models.boosting_nerv import BoostingNeRVModel
        from nerfstudio_ext.video.fills import inpainted, interpolated, keep_of, scores

        config, pipeline = open_run(self.run)
        model = pipeline.model
        if not isinstance(model, BoostingNeRVModel):
            raise InputError(f"{self.run} was trained with {config.method_name}, which is not a video representation.")
        if not model.frames.available:
            raise InputError(f"The anchors are made from the source, and {config.data} is gone: bring it back.")
        if model.masks is None and not model.interpolates:
            raise InputError(
                f"{self.run} has neither holes nor missing frames: train with video-data --mask center or --task "
                "interpolation; `ns-ext video rd` sets a codec beside others."
            )

        source = [model.frames[k] for k in range(len(model.frames))]
        keeps = [] if model.masks is None else keep_of(model.masks, len(source))
        if model.interpolates:
            numbers, fills = list(range(1, len(source), 2)), interpolated(source)
            shown, keeps = {}, [keeps[k] for k in numbers] if keeps else []
        else:
            assert model.masks is not None
            numbers, fills = list(range(len(source))), inpainted(source, model.masks)
            shown = {"given": [frame * keep[..., None] for frame, keep in zip(source, keeps)]}
        truth = [source[k] for k in numbers]
        decoded = []
        for k in numbers:
            picture = (255 * model.decode_frame(k)).round().permute(1, 2, 0)
            decoded.append(picture.to(torch.uint8).cpu().numpy())
        shown |= {str(config.method_name): decoded, **fills, "source": truth}

        header = ("whole frame", *(("in the holes", "elsewhere") if keeps else ()))
        print(f"{'PSNR in dB, ' + str(len(truth)) + ' frames':24s}" + "".join(f"{text:>14s}" for text in header))
        for name in (str(config.method_name), *fills):
            print(f"{name:24s}" + "".join(f"{value:14.2f}" for value in scores(shown[name], truth, keeps).values()))
        if model.masks is not None and not model.interpolates and "temporal median" not in fills:
            print("The holes never move, so no frame shows what is behind them: there is no temporal median.")

        places = np.linspace(0, len(truth) - 1, min(SHOWN, len(truth))).round().astype(int).tolist()
        tiles = [pictures[place] for place in places for pictures in shown.values()]
        labels = [f"{name}, frame {numbers[place]}" for place in places for name in shown]
        folder = self.run.parent if self.run.name == "config.yml" else self.run
        output = self.output or folder / "renders" / "anchors.png"
        contact_sheet(tiles, output, num_tiles=len(tiles), columns=len(shown), labels=labels)
        print(f"picture: {output}")
