"""`ns-ext video rd`: rate and distortion of .bnrv files beside x264 and x265 on the same frames."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Iterator, Optional, Tuple

import tyro


@dataclass
class RateDistortion:
    """Measure .bnrv files of a clip beside x264 and x265 on the same frames; writes a table and a picture.

    The files are of several model sizes: --sizes trains and compresses them one after the other, or give --files of
    runs of your own. Four or more give a BD-rate. A series that was stopped goes on when the command is given again.
    """

    data: Annotated[Path, tyro.conf.Positional]
    """The source clip."""
    files: Tuple[Path, ...] = ()
    """.bnrv files of that clip."""
    sizes: Tuple[int, ...] = ()
    """Train these sizes, in stored numbers (decoder and embeddings), such as 100000 200000 400000 800000."""
    method: str = "hnerv-boost-tiny"
    """Preset that the sizes are trained with."""
    epochs: Optional[int] = None
    """Passes over the clip in the first stage; none: the preset's."""
    compress_epochs: int = 100
    """Passes over the clip in the second stage."""
    bits: float = 4.0
    """Bits per stored number that the second stage comes down to."""
    ray: bool = False
    """Train each size as a task of a Ray cluster (the local machine where there is none) instead of in sequence."""
    first_frame: int = 0
    """First frame used, as in training."""
    last_frame: Optional[int] = None
    """Last frame used, as in training."""
    max_side: Optional[int] = None
    """Longer side of the frames, as in training."""
    presets: Tuple[str, ...] = ("medium", "veryslow")
    """Efforts of x264 and x265."""
    output: Path = Path("outputs/rd")
    """Folder of the table (rd.csv), the picture (rd.png), and with --sizes of the runs."""

    def main(self) -> None:
        from collections import defaultdict

        from rich.progress import track

        from nerfstudio_ext.engine.checkpoints import write_text
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.engine.metrics import psnr_8bit
        from nerfstudio_ext.export.anchors import CRFS, RatePoint, bd_rate, classical_point
        from nerfstudio_ext.models.stored_video import read_video
        from nerfstudio_ext.video.frames import ClipOptions, open_clip

        self._check()
        max_side = self.max_side or self._side_of_preset()
        store = open_clip(
            ClipOptions(self.data, first_frame=self.first_frame, last_frame=self.last_frame, max_side=max_side)
        )
        info = store.info
        combinations = [
            (codec, preset, pixel_format)
            for codec in ("libx264", "libx265")
            for preset in self.presets
            for pixel_format in ("yuv420p", "yuv444p")
        ]
        for codec, preset, pixel_format in combinations:  # what does not work is told before anything is trained
            classical_point([store[0]], codec, CRFS[-1], preset, pixel_format, info.fps)

        curves = defaultdict(list)
        for path in self._videos(max_side):
            video = read_video(path)
            if (len(video), video.clip.height, video.clip.width) != (info.num_frames, info.height, info.width):
                raise InputError(
                    f"{path} holds {len(video)} frames of {video.clip.width}x{video.clip.height}, and the options take "
                    f"{info.num_frames} of {info.width}x{info.height} from {self.data}: give those of the training."
                )
            method = video.header.get("method", "bnrv")
            decoded = track(video.stream(), f"Scoring {path.name}", len(video), transient=True)
            values = [psnr_8bit(picture, store[k]) for k, picture in enumerate(decoded)]
            curves[f"{method} .bnrv"].append(RatePoint(method, video.bpp, sum(values) / len(values)))
        frames = [store[k] for k in range(len(store))]
        encodings = [(*combination, crf) for combination in combinations for crf in CRFS]
        for codec, preset, pixel_format, crf in track(encodings, "Anchors", transient=True):
            point = classical_point(frames, codec, crf, preset, pixel_format, info.fps)
            curves[point.name].append(point)

        rows = [(name, point.bpp, point.psnr) for name, points in curves.items() for point in points]
        write_text("name,bpp,psnr\n" + "".join(f"{n},{b:.6f},{p:.4f}\n" for n, b, p in rows), self.output / "rd.csv")
        for name, bpp, psnr in rows:
            print(f"  {name:28s} {bpp:8.4f} bits/pixel {psnr:7.2f} dB")
        if info.source_bytes:
            # The clip may be a small or short part of it: then its bytes say nothing about rate.
            own = 8 * info.source_bytes / (info.num_frames * info.height * info.width)
            print(f"  the whole source file: {info.source_bytes} bytes, {own:.4f} bits for each pixel used here")
        anchors = [name for name in curves if not name.endswith(".bnrv")]
        for ours in [name for name in curves if name.endswith(".bnrv") and len(curves[name]) >= 4]:
            for anchor in anchors:
                try:
                    print(f"  BD-rate of {ours} against {anchor}: {bd_rate(curves[anchor], curves[ours]):+.1f} %")
                except InputError as error:
                    print(f"  no BD-rate of {ours} against {anchor}: {error}")
        self._draw(curves)
        print(f"table and picture: {self.output / 'rd.csv'} {self.output / 'rd.png'}")

    def _check(self) -> None:
        """Refuse before the first training what would fail after it."""
        from nerfstudio_ext.cli.compress import Compress
        from nerfstudio_ext.cli.stages import check_numbers
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.engine.packages import require_packages

        curve = len(self.files) + len(self.sizes)
        needed = ["matplotlib", *(["constriction"] if curve else []), *(["bjontegaard"] if curve >= 4 else [])]
        require_packages("ns-ext video rd", "video", *needed)
        check_numbers(self.epochs, None)
        if self.compress_epochs < 1:
            raise InputError(f"--compress-epochs {self.compress_epochs} must be at least 1.")
        Compress(self.output, bits=self.bits).check()

    def _side_of_preset(self) -> Optional[int]:
        """Longer side that the trained preset shrinks frames to; none where nothing is trained or shrunk."""
        from nerfstudio.configs.method_configs import all_methods

        from dataparsers.video_frames import VideoDataParserConfig
        from nerfstudio_ext.engine.errors import InputError

        if not self.sizes:
            return None
        config = all_methods.get(self.method)
        parser = None if config is None else getattr(config.pipeline.datamanager, "dataparser", None)
        if not isinstance(parser, VideoDataParserConfig):
            raise InputError(f"--method {self.method} is no video representation: 'ns-ext list' names those there are.")
        return parser.max_side

    def _videos(self, max_side: Optional[int]) -> Iterator[Path]:
        """The files that are given, and then those of the sizes, which nothing is trained for while a file is wrong."""
        from nerfstudio_ext.cli.series import Series, train_all

        clip = ["--first-frame", str(self.first_frame)]
        clip += [] if self.last_frame is None else ["--last-frame", str(self.last_frame)]
        clip += [] if max_side is None else ["--max-side", str(max_side)]
        series = Series(
            data=self.data.resolve(),
            method=self.method,
            clip=tuple(clip),
            epochs=self.epochs,
            compress_epochs=self.compress_epochs,
            bits=self.bits,
            folder=self.output.resolve(),
        )
        yield from self.files
        yield from train_all(series, self.sizes, self.ray)

    def _draw(self, curves) -> None:
        """Draw PSNR over rate."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(8, 5))
        for name, points in curves.items():
            ordered = sorted(points, key=lambda point: point.bpp)
            style = "-o" if name.endswith(".bnrv") else "--."
            axes.plot([point.bpp for point in ordered], [point.psnr for point in ordered], style, label=name)
        axes.set(xscale="log", xlabel="bits per pixel", ylabel="PSNR (dB)")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(self.output / "rd.png", dpi=120)
        pyplot.close(figure)
