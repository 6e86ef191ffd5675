"""`ns-ext export ...`: what nerfstudio's own exporter does not do, on CPU and CUDA."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

import tyro


@dataclass
class ExportMesh:
    """Write the surface of a trained run as a mesh with vertex colours, in the units of its source data."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or its config.yml."""
    output: Annotated[Optional[Path], tyro.conf.Positional] = None
    """Mesh to write (.obj, .ply or .glb); none: mesh.ply in the run's folder."""
    resolution: int = 256
    """Grid points along each side of the cube."""
    half_side: float = 1.5
    """Half the side of the cube that is searched, in units of the normalised scene."""
    level: float = 10.0
    """Density on the surface, for methods that have no signed distance."""
    largest: bool = True
    """Keep the largest connected part only."""
    normalised: bool = False
    """Leave the mesh in the normalised frame of training instead of the source's units."""
    coarse: bool = True
    """Skip empty space by looking coarsely first; --no-coarse evaluates every grid point."""

    def main(self) -> None:
        from nerfstudio.utils.rich_utils import CONSOLE

        from nerfstudio_ext.cli.run_folders import run_folder
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.engine.runs import open_run
        from nerfstudio_ext.export.isosurface import extract_mesh, write_mesh
        from nerfstudio_ext.export.scene_mesh import colour_mesh, surface_values, to_source_units
        from nerfstudio_ext.surface.mesh import largest_component

        if self.resolution < 8 or self.half_side <= 0:
            raise InputError(f"A mesh needs --resolution of 8 at least and a positive --half-side, not "
                             f"{self.resolution} and {self.half_side}.")  # fmt: skip
        output = self.output or run_folder(self.run) / "mesh.ply"
        config, pipeline = open_run(self.run)
        values = surface_values(pipeline.model, self.level)
        if values is None:
            raise InputError(f"{self.run} was trained with {config.method_name}, which has no surface to export.")
        mesh, evaluated = extract_mesh(
            values, self.resolution, self.half_side, pipeline.model.device, coarse=self.coarse
        )
        if self.largest:
            mesh = largest_component(mesh)
        mesh = colour_mesh(pipeline.model, mesh)
        if not self.normalised:
            mesh = to_source_units(mesh, pipeline.datamanager.train_dataparser_outputs)
        write_mesh(mesh, output)
        CONSOLE.print(
            f"{len(mesh.verts):,} vertices and {len(mesh.faces):,} faces from {evaluated:,} evaluated points "
            f"({evaluated / self.resolution**3:.0%} of the grid): {output}",
            soft_wrap=True,
            highlight=False,
        )
