"""`ns-ext video encode | decode | info | play`: videos as .bnrv files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

import tyro


@dataclass
class Encode:
    """Write a trained run as a .bnrv file: everything that decoding needs, nothing else."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run that `ns-ext video compress` made; with --bits, of any trained run."""
    output: Annotated[Path, tyro.conf.Positional]
    """File to write, ending in .bnrv."""
    bits: Optional[int] = None
    """For a run that was not compressed: quantise its numbers to this many bits as they are."""

    def main(self) -> None:
        from nerfstudio_ext.cli.run_folders import open_video_run
        from nerfstudio_ext.engine.checkpoints import write_bytes
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.models.stored_video import StoredVideo, encode_model

        if self.output.suffix != ".bnrv":
            raise InputError(f"{self.output} must end in .bnrv.")
        config, model = open_video_run(self.run)
        data = encode_model(model, str(config.method_name), self.bits)
        video = StoredVideo(data, str(self.output))  # refuses now what could not be read later
        write_bytes(data, self.output)
        _describe(video, self.output)


@dataclass
class Decode:
    """Write the frames of a .bnrv file as a video or as pictures."""

    video: Annotated[Path, tyro.conf.Positional]
    """The .bnrv file."""
    output: Annotated[Path, tyro.conf.Positional]
    """Video to write (.mp4, .mov or .mkv), or a new folder for numbered pictures (PNG)."""
    keep_audio: Optional[Path] = None
    """Source file whose sound the written video gets."""
    fps: Optional[float] = None
    """Frames per second of the written video; none: the file's. Files with smooth time codes (hnerv-boost-interp) show
    pictures between the frames, others play faster or slower."""

    def main(self) -> None:
        import torch
        from PIL import Image
        from rich.progress import track

        from nerfstudio_ext.cli.folders import require_empty, require_other
        from nerfstudio_ext.cli.frame_rate import check_rate, times_at
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.export.audio import check_sound
        from nerfstudio_ext.export.video import VIDEO_SUFFIXES, write_video
        from nerfstudio_ext.models.stored_video import as_picture, read_video

        as_video = self.output.suffix.lower() in VIDEO_SUFFIXES
        if self.output.suffix and not as_video:
            raise InputError(f"{self.output} must end in one of {' '.join(VIDEO_SUFFIXES)}, or be a folder.")
        if self.keep_audio is not None and not as_video:
            raise InputError("--keep-audio needs a video to put the sound into, not a folder of pictures.")
        if self.keep_audio is not None:
            check_sound(self.keep_audio)
        if not as_video:
            require_empty(self.output)
        check_rate(self.fps)
        video = read_video(self.video, "cuda" if torch.cuda.is_available() else "cpu")

        require_other(self.output, self.video, self.keep_audio)
        fps = self.fps or video.fps
        frames, count = video.stream(), len(video)
        if fps != video.fps and video.between_frames:
            times = times_at(len(video), video.fps, fps)
            frames, count = (as_picture(video.decode_between(time)) for time in times), len(times)
        frames = track(frames, "Decoding", count, transient=True)
        if as_video:
            write_video(frames, self.output, fps, sound=self.keep_audio)
        else:
            try:
                self.output.mkdir(parents=True, exist_ok=True)
                for k, frame in enumerate(frames):
                    Image.fromarray(frame).save(self.output / f"frame_{k:05d}.png")
            except OSError as error:
                raise InputError(f"{self.output} cannot be written ({error.strerror}): choose another place.") from None
        print(f"{count} frames of {video.clip.width}x{video.clip.height} at {fps:g} fps: {self.output}")


@dataclass
class Info:
    """Show what a .bnrv file holds and where its bytes go."""

    video: Annotated[Path, tyro.conf.Positional]
    """The .bnrv file."""

    def main(self) -> None:
        from nerfstudio_ext.models.stored_video import read_video

        _describe(read_video(self.video), self.video)


@dataclass
class Play:
    """Show a .bnrv file in the browser, with a frame slider and playback; neither run nor source is needed."""

    video: Annotated[Path, tyro.conf.Positional]
    """The .bnrv file."""
    port: int = 7007
    """Port of the viewer."""
    host: str = "127.0.0.1"
    """Address that the viewer listens on; 0.0.0.0 lets other machines in."""

    def main(self) -> None:
        import time

        import torch

        from nerfstudio_ext.export.player import Player
        from nerfstudio_ext.models.stored_video import read_video

        video = read_video(self.video, "cuda" if torch.cuda.is_available() else "cpu")
        player = Player(video, video.fps, self.video.name, self.host, self.port)
        print(f"{self.video.name} plays at {player.address}; Ctrl-C ends.", flush=True)
        while True:
            time.sleep(1)


def _describe(video, path: Path) -> None:
    """Print a file's facts and the bytes of its parts."""
    clip, size = video.clip, video.field.num_decoder_parameters()
    embeddings = sum(codes.size for codes in video.codes()) - size
    print(
        f"{path}: {clip.num_frames} frames of {clip.width}x{clip.height} at {clip.fps:g} fps, {video.header['method']}"
    )
    print(f"  file       {video.num_bytes} bytes, {video.bpp:.4f} bits/pixel")
    print(f"  codes      {video.payload_bytes} bytes for {size} decoder numbers and {embeddings} embedding numbers")
    print(f"  the rest   {video.num_bytes - video.payload_bytes} bytes: header, distributions, checksum")
    if clip.source_bytes:
        print(f"  source     {clip.source_bytes} bytes for the whole of {clip.name}")
