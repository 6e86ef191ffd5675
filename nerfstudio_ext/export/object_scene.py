"""A procedural object scene as files, in the layout of IDR and VolSDF."""

from pathlib import Path

import numpy as np
from PIL import Image

from nerfstudio_ext.export.mesh_file import write_mesh
from nerfstudio_ext.procedural.object_scene import ObjectScene
from nerfstudio_ext.surface.mesh import Mesh


def write_object_scene(scene: ObjectScene, folder: Path) -> None:
    """Write image/, mask/, cameras.npz, and beside the layout depth/ and normals/ (.npy, world units) and mesh.ply.

    Args:
        scene: What to write.
        folder: Created where it is missing.
    """
    for name in ("image", "mask", "depth", "normals"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    arrays = {}
    for k, focal in enumerate(scene.focals):
        # Pixel centres at integers, as files of this kind have them.
        calibration = np.array([[focal, 0, scene.width / 2 - 0.5], [0, focal, scene.height / 2 - 0.5], [0, 0, 1]])
        view = scene.view(k)
        Image.fromarray((view.rgb.numpy() * 255).round().astype(np.uint8)).save(folder / "image" / f"{k:03d}.png")
        Image.fromarray(view.mask.numpy().astype(np.uint8) * 255).save(folder / "mask" / f"{k:03d}.png")
        np.save(folder / "depth" / f"{k:03d}.npy", view.depth.numpy())
        np.save(folder / "normals" / f"{k:03d}.npy", view.normals.numpy())
        pose = scene.poses[k].double().numpy()
        rotation = (pose[:, :3] * [1.0, -1.0, -1.0]).T
        world = np.eye(4)
        world[:3] = calibration @ np.concatenate([rotation, -rotation @ pose[:, 3:]], axis=1)
        arrays[f"world_mat_{k}"], arrays[f"scale_mat_{k}"] = world, np.eye(4)
    np.savez(folder / "cameras.npz", **arrays)
    verts, faces = scene.object.mesh()
    write_mesh(Mesh(verts, faces), folder / "mesh.ply")
