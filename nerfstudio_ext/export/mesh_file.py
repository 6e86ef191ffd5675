"""Meshes as files: OBJ, PLY and GLB."""

from pathlib import Path

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.surface.mesh import Mesh

FORMATS = (".obj", ".ply", ".glb")


def require_format(path: Path) -> None:
    """Refuse a name that no mesh is written under, before there is any work to lose.

    Raises:
        InputError: Its ending is none of `FORMATS`.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path.name} names no mesh format: end it with {', '.join(FORMATS)}.")


def write_mesh(mesh: Mesh, path: Path) -> None:
    """Write a mesh as OBJ, PLY or GLB, by the name's ending.

    Raises:
        InputError: The ending is none of them, or the file cannot be written.
    """
    import trimesh

    require_format(path)
    colours = None if mesh.colours is None else mesh.colours
    shape = trimesh.Trimesh(mesh.verts, mesh.faces, vertex_colors=colours, process=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape.export(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
