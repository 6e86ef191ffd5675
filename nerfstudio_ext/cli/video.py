"""`ns-ext video ...`: what the stock commands do not do for video representations."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Iterator, Optional

import tyro


@dataclass
class Render:
    """Write the whole clip of a trained run as a video, every frame once, at the source's frame rate."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or its config.yml."""
    output: Annotated[Optional[Path], tyro.conf.Positional] = None
    """Video to write (.mp4, .mov or .mkv); none: renders/ in the run's folder, named after the clip."""
    fps: Optional[float] = None
    """Frames per second; none: the source's. Runs with smooth time codes (frequency-base 1.05) show pictures between
    the frames, others play faster or slower."""
    side_by_side: bool = False
    """Show the source to the left of the decoded clip."""
    sheet: bool = True
    """Write a contact sheet beside the video (source above decoded where the source is there)."""

    def main(self) -> None:
        import numpy as np
        from nerfstudio.utils.rich_utils import CONSOLE
        from rich.progress import track

        from nerfstudio_ext.cli.folders import require_other
        from nerfstudio_ext.cli.frame_rate import check_rate, times_at
        from nerfstudio_ext.cli.run_folders import open_video_run, run_folder
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.export.video import contact_sheet, write_video
        from nerfstudio_ext.models.stored_video import as_picture

        check_rate(self.fps)
        config, model = open_video_run(self.run)
        source = model.frames
        clip = source.info
        if self.side_by_side and not source.available:
            raise InputError(
                f"--side-by-side needs the source, and {config.data} is gone: bring it back or leave it out."
            )
        output = self.output or run_folder(self.run) / "renders" / f"{clip.name}.mp4"
        require_other(output, config.data_path())
        tiles = np.linspace(0, clip.num_frames - 1, min(12, clip.num_frames)).round().astype(int).tolist()
        kept = {}

        def decoded() -> Iterator[np.ndarray]:
            for k in track(range(clip.num_frames), "Decoding", console=CONSOLE, transient=True):
                frame = as_picture(model.decode_frame(k))
                if k in tiles:
                    kept[k] = np.concatenate([source[k], frame]) if source.available else frame
                yield np.concatenate([source[k], frame], axis=1) if self.side_by_side else frame

        def between(fps: float) -> Iterator[np.ndarray]:
            times = times_at(clip.num_frames, clip.fps, fps)
            for time in track(times, "Decoding", console=CONSOLE, transient=True):
                yield as_picture(model.decode_between(time))

        if self.fps is not None and self.fps != clip.fps and model.between_frames:
            if self.side_by_side:
                raise InputError("--side-by-side has no source between the frames: leave out --fps.")
            count = write_video(between(self.fps), output, self.fps)
            CONSOLE.print(f"{count} frames at {self.fps:g} fps: {output}", soft_wrap=True, highlight=False)
            return
        count = write_video(decoded(), output, self.fps or clip.fps)
        CONSOLE.print(f"{count} frames at {self.fps or clip.fps:g} fps: {output}", soft_wrap=True, highlight=False)
        if self.sheet:
            sheet = output.with_suffix(".png")
            labels = [f"frame {k}" + (", source above" if source.available else "") for k in kept]
            contact_sheet(list(kept.values()), sheet, labels=labels)
            CONSOLE.print(f"contact sheet: {sheet}", soft_wrap=True, highlight=False)
