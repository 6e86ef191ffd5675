"""`ns-ext export ...`: what nerfstudio's own exporter does not do, on CPU and CUDA."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import tyro

if TYPE_CHECKING:
    from nerfstudio_ext.surface.mesh import Mesh


@dataclass
class ExportMesh:
    """Write the surface of a trained run as a mesh with vertex colours, in the units of its source data."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or its config.yml."""
    output: Annotated[Optional[Path], tyro.conf.Positional] = None
    """Mesh to write (.obj, .ply or .glb); none: mesh.ply in the run's folder."""
    resolution: int = 256
    """Grid points along each side of the cube."""
    half_side: Optional[float] = None
    """Half the side of the cube that is searched, in units of the normalised scene; none: 1.5, about the origin, and
    for a person what the body or its keypoints need, about them."""
    frame: int = 0
    """Frame of a moving person, from 0."""
    level: float = 10.0
    """Density on the surface, for methods that have no signed distance."""
    offset: float = 0.0
    """How far outside of distance 0 the surface is taken, in scales of the density (beta), for methods that have a
    signed distance; 1 shows thin parts that a short training has made dense and not yet solid."""
    smallest_part: float = 0.05
    """Connected parts with fewer faces than this share of the largest one's are left out; 1 keeps that one alone, 0
    all."""
    normalised: bool = False
    """Leave the mesh in the normalised frame of training instead of the source's units."""
    coarse: bool = True
    """Skip empty space by looking coarsely first; --no-coarse evaluates every grid point, as it is always done for
    densities and for a moving person."""

    def main(self) -> None:
        import torch
        from nerfstudio.utils.rich_utils import CONSOLE

        from nerfstudio_ext.cli.run_folders import run_folder
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.engine.runs import open_run
        from nerfstudio_ext.export.mesh_file import require_format, write_mesh
        from nerfstudio_ext.export.scene_mesh import colour_mesh, surface_values, to_source_units
        from nerfstudio_ext.surface.isosurface import extract_mesh
        from nerfstudio_ext.surface.mesh import large_components

        half_side = 1.5 if self.half_side is None else self.half_side
        if self.resolution < 8 or half_side <= 0:
            raise InputError(f"A mesh needs --resolution of 8 at least and a positive --half-side, not "
                             f"{self.resolution} and {half_side}.")  # fmt: skip
        if not 0 <= self.smallest_part <= 1 or not math.isfinite(self.offset):
            raise InputError(f"--smallest-part is a share from 0 to 1 and --offset a number, not {self.smallest_part} "
                             f"and {self.offset}.")  # fmt: skip
        output = self.output or run_folder(self.run) / "mesh.ply"
        require_format(output)
        config, pipeline = open_run(self.run)
        model: Any = pipeline.model
        if hasattr(model, "set_motion"):
            mesh = self._person(model.eval())
            write_mesh(mesh, output)
            CONSOLE.print(f"frame {self.frame}: {len(mesh.verts):,} vertices and {len(mesh.faces):,} faces: {output}",
                          soft_wrap=True, highlight=False)  # fmt: skip
            return
        if self.frame != 0:
            raise InputError(f"--frame {self.frame}: {self.run} was trained with {config.method_name}, which knows one "
                             "moment only.")  # fmt: skip
        values = surface_values(model, self.level, self.offset)
        if values is None:
            raise InputError(f"{self.run} was trained with {config.method_name}, which has no surface to export.")
        bake = getattr(getattr(model, "field", None), "bake", None)
        if bake is not None:
            bake()  # nothing is trained or saved from here on, and the prototypes are constants
        # Blocks are skipped by a rule for distances: a density says nothing about how far its surface is.
        coarse = self.coarse and hasattr(model, "signed_distance")
        centre = torch.zeros(3)
        if self.half_side is None and hasattr(model, "surface_box"):
            low, high = model.surface_box()
            centre, half_side = (low + high) / 2, float((high - low).max()) / 2
        mesh, evaluated = extract_mesh(
            lambda points: values(points + centre.to(points)), self.resolution, half_side, model.device, coarse=coarse
        )
        mesh, dropped = large_components(mesh, self.smallest_part)
        mesh = replace(mesh, verts=mesh.verts + centre.numpy())
        mesh = colour_mesh(model, mesh)
        if not self.normalised:
            mesh = to_source_units(mesh, pipeline.datamanager.train_dataparser_outputs)
        write_mesh(mesh, output)
        CONSOLE.print(
            f"{len(mesh.verts):,} vertices and {len(mesh.faces):,} faces from {evaluated:,} evaluated points "
            f"({evaluated / self.resolution**3:.0%} of the grid){_left_out(dropped)}: {output}",
            soft_wrap=True,
            highlight=False,
        )

    def _person(self, model: Any) -> "Mesh":
        """The surface of a moving person in one frame; their parsers leave the world as it is, in metres."""
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.export.body_mesh import body_mesh

        if not 0 <= self.frame < model.num_frames:
            raise InputError(f"--frame {self.frame} is none of the {model.num_frames} frames, counted from 0.")
        return body_mesh(model, self.frame, self.resolution, self.level, self.half_side, self.smallest_part)


def _left_out(parts: int) -> str:
    return f", {parts} small {'part' if parts == 1 else 'parts'} left out" if parts else ""
