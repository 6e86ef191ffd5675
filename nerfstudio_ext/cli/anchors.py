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
        from rich.progress import track

        from nerfstudio_ext.cli.run_folders import open_video_run, run_folder
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.export.video import contact_sheet
        from nerfstudio_ext.models.stored_video import as_picture
        from nerfstudio_ext.video.fills import inpainted, interpolated, keep_of, scores

        config, model = open_video_run(self.run)
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
            numbers = list(range(len(source)))
            fills = inpainted(source, model.masks, lambda frames, name: track(frames, name, transient=True))
            shown = {"given": [frame * keep[..., None] for frame, keep in zip(source, keeps)]}
        truth = [source[k] for k in numbers]
        decoded = [as_picture(model.decode_frame(k)) for k in track(numbers, "Decoding", transient=True)]
        shown |= {str(config.method_name): decoded, **fills, "source": truth}

        header = ("whole frame", *(("in the holes", "elsewhere") if keeps else ()))
        print(f"{'PSNR in dB, ' + str(len(truth)) + ' frames':24s}" + "".join(f"{text:>14s}" for text in header))
        names = (str(config.method_name), *fills)
        rows = [scores(shown[name], truth, keeps) for name in track(names, "Scoring", transient=True)]
        for name, row in zip(names, rows):
            print(f"{name:24s}" + "".join(f"{value:14.2f}" for value in row.values()))
        if model.masks is not None and not model.interpolates and "temporal median" not in fills:
            print("The holes never move, so no frame shows what is behind them: there is no temporal median.")

        places = np.linspace(0, len(truth) - 1, min(SHOWN, len(truth))).round().astype(int).tolist()
        tiles = [pictures[place] for place in places for pictures in shown.values()]
        labels = [f"{name}, frame {numbers[place]}" for place in places for name in shown]
        output = self.output or run_folder(self.run) / "renders" / "anchors.png"
        contact_sheet(tiles, output, num_tiles=len(tiles), columns=len(shown), labels=labels)
        print(f"picture: {output}")
