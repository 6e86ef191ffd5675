"""`ns-ext keypoints reconstruct`: a mesh of the person in one photograph."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, List, Literal, Optional, Tuple

import tyro

if TYPE_CHECKING:
    from nerfstudio_ext.fields.keypoint_icon_field import KeypointIconField
    from nerfstudio_ext.models.keypoint_icon import KeypointIconModelConfig


@dataclass
class Reconstruct:
    """Write a mesh of the person in one photo, colours included, and a sheet that shows it from all around.

    The person is cut out by --mask or by the photo's transparency; parts that no keypoint touches are left out.
    Keypoints come as JSON: either a transforms.json that names the photo, or keypoint_names with as many keypoints,
    each x, y and depth in pixels.
    """

    photo: Annotated[Path, tyro.conf.Positional]
    """Picture of one whole person."""
    output: Annotated[Path, tyro.conf.Positional]
    """Mesh to write (.obj, .ply or .glb), metres, +z up; sheet and film are written beside it."""
    keypoints: Path
    """JSON with the 24 keypoints of the body set."""
    mask: Optional[Path] = None
    """White where the person is, or a cut-out with transparency; none: the photo's transparency."""
    run: Path = Path("default")
    """Folder of a trained keypoint-icon run, or the word default for the small network that comes with the suite."""
    resolution: Literal[65, 129, 257] = 129
    """Points along each side of the finest lattice."""
    largest: bool = True
    """Keep the largest connected part only."""
    sheet: bool = True
    """Write OUTPUT_sheet.png; needs the extra human."""
    turntable: bool = True
    """Write OUTPUT_turntable.mp4, one turn around the mesh; needs the extra human."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: on CUDA where there is one."""

    def main(self) -> None:
        import math
        import time

        import torch
        from nerfstudio.utils.rich_utils import CONSOLE
        from rich.progress import Progress

        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.export.mesh_file import FORMATS, write_mesh
        from nerfstudio_ext.export.mesh_sheet import write_sheet, write_turntable
        from nerfstudio_ext.export.video import sheet_path
        from nerfstudio_ext.fields.photo_surface import PhotoSurface
        from nerfstudio_ext.human.single_photo import read_photo
        from nerfstudio_ext.procedural.person import BODY_KEYPOINTS
        from nerfstudio_ext.surface.mesh import Mesh, largest_component

        def tell(text: str) -> None:
            CONSOLE.print(text, soft_wrap=True, highlight=False)

        if self.output.suffix.lower() not in FORMATS:
            raise InputError(f"{self.output.name} names no mesh format: end it with {', '.join(FORMATS)}.")
        sheet = sheet_path(self.output) if self.sheet else None
        film = self.output.with_name(f"{self.output.stem}_turntable.mp4") if self.turntable else None
        self._require_room([path for path in (self.output, sheet, film) if path is not None])
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("There is no CUDA device here: leave --device out, or say --device cpu.")
        device = torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")
        begin = time.perf_counter()
        config, field = load_network(self.run)
        names = tuple(BODY_KEYPOINTS)
        photo, notes = read_photo(self.photo, self.keypoints, self.mask, names, config.photo_size)
        for note in notes:
            tell(note)
        levels = {65: 1, 129: 2, 257: 3}[self.resolution]
        with Progress(console=CONSOLE, transient=True) as progress, torch.no_grad():
            looking, cleaning, painting = (
                progress.add_task(text, total=1.0) for text in ("Looking for the surface", "Cleaning up", "Colouring")
            )
            surface = PhotoSurface.of(
                field.to(device), photo.to(device), levels, config.iso_level,
                lambda done: progress.update(looking, completed=done),
            )  # fmt: skip
            mesh = surface.mesh(largest=False)
            whole = len(mesh.faces)
            progress.update(cleaning, completed=0.3)
            mesh = largest_component(mesh) if self.largest else mesh
            progress.update(cleaning, completed=0.6)
            surface.require_person(mesh)
            progress.update(cleaning, completed=1.0)
            parts, colours = torch.from_numpy(mesh.verts).to(device).split(65536), []
            for part in parts:
                colours.append(surface.colours(part).cpu())
                progress.update(painting, advance=1 / len(parts))
        mesh = Mesh(mesh.verts, mesh.faces, (torch.cat(colours).clamp(0, 1) * 255).round().to(torch.uint8).numpy())
        write_mesh(mesh, self.output)
        seconds = time.perf_counter() - begin
        tell(
            f"{len(mesh.verts):,} vertices and {len(mesh.faces):,} faces ({whole - len(mesh.faces):,} faces of loose "
            f"parts left out) from {surface.evaluated:,} evaluated points "
            f"in {seconds:.0f} s on {device.type}: {self.output}"
        )
        ahead = photo.camera.world_to_camera[0, 2, :3]
        start = math.atan2(-float(ahead[1]), -float(ahead[0]))
        if sheet is not None:
            write_sheet(mesh, sheet, start)
            tell(f"seen from all around: {sheet}")
        if film is not None:
            with Progress(console=CONSOLE, transient=True) as progress:
                task = progress.add_task("Turning", total=1.0)
                write_turntable(mesh, film, start, lambda done: progress.update(task, completed=done))
            tell(f"one turn around it: {film}")

    def _require_room(self, paths: List[Path]) -> None:
        """Say before the work what would be in the way of its results.

        Raises:
            InputError: A file cannot be written, or needs a package that is not there.
        """
        import importlib.util
        import tempfile

        from nerfstudio_ext.engine.errors import InputError

        if folders := [path.name for path in paths if path.is_dir()]:
            raise InputError(f"{folders[0]} in {self.output.parent} is a folder: name another mesh.")
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.output.parent).close()
        except OSError as error:
            raise InputError(f"{self.output} cannot be written: {error.strerror or error}.") from error
        if len(paths) > 1 and importlib.util.find_spec("embreex") is None:
            raise InputError(
                "Sheet and film need embreex: pip install 'nerfstudio-ext[human]', or say --no-sheet --no-turntable."
            )


@dataclass
class IconWeights:
    """Cut the weights of a trained keypoint-icon run out into a small file, half precision."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    output: Annotated[Path, tyro.conf.Positional]
    """File to write, .safetensors."""
    note: str = ""
    """How the run was made, kept in the file's header."""

    def main(self) -> None:
        import json

        from nerfstudio_ext.cli.trained import write_weights

        config, weights = _trained(self.run)
        settings = {key: value for key, value in vars(config.field).items() if key != "_target"}
        metadata = {"method": "keypoint-icon-tiny", "note": self.note, "field": json.dumps(settings)}
        write_weights(weights, self.output, metadata)


def load_network(run: Path) -> Tuple["KeypointIconModelConfig", "KeypointIconField"]:
    """Settings and network of a run, or of the word default, ready to be used on the CPU.

    Raises:
        InputError: There is no such run, it was trained with another method, or no network comes with this copy.
    """
    from nerfstudio_ext.procedural.person import BODY_KEYPOINTS

    config, weights = _default() if run == Path("default") else _trained(run)
    field = config.field.setup(num_keypoints=len(BODY_KEYPOINTS))
    field.load_state_dict(weights)
    return config, field.eval()


def _trained(run: Path) -> Tuple["KeypointIconModelConfig", dict]:
    """Model and weights of a run.

    Raises:
        InputError: There is no such run, or it was trained with another method.
    """
    from nerfstudio_ext.cli.trained import field_weights, trained_run
    from nerfstudio_ext.engine.checkpoints import read_checkpoint
    from nerfstudio_ext.models.keypoint_icon import KeypointIconModelConfig

    config, checkpoint = trained_run(run, KeypointIconModelConfig, "makes no mesh of one photo")
    model: Any = config.pipeline.model
    return model, field_weights(read_checkpoint(checkpoint))


def _default() -> Tuple["KeypointIconModelConfig", dict]:
    """Model and weights of the small network that comes with the suite; the file's header says how it is built."""
    import copy
    import json

    from nerfstudio.configs.method_configs import all_methods

    from nerfstudio_ext.engine.errors import InputError
    from nerfstudio_ext.engine.weights import read_safetensors
    from nerfstudio_ext.fields.keypoint_icon_field import DEFAULT_WEIGHTS

    if not DEFAULT_WEIGHTS.is_file():
        raise InputError(
            "No trained network comes with this copy: train keypoint-icon-tiny and name its folder: --run."
        )
    weights, metadata = read_safetensors(DEFAULT_WEIGHTS)
    config = copy.deepcopy(all_methods["keypoint-icon-tiny"].pipeline.model)
    config.field = dataclasses.replace(config.field, **json.loads(metadata["field"]))
    return config, weights
