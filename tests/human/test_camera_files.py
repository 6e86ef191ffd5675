import cv2
import numpy as np
import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.camera_files import read_cameras

NAMES = ("01", "side")


def write(folder, unit=1.0, rotations="Rot", skip=()):
    """Two cameras as EasyMocap writes them; returns what they are."""
    cameras = {}
    files = {name: cv2.FileStorage(str(folder / f"{name}.yml"), cv2.FILE_STORAGE_WRITE) for name in ("intri", "extri")}
    for file in files.values():
        file.startWriteStruct("names", cv2.FileNode_SEQ)
        for name in NAMES:
            file.write("", name)
        file.endWriteStruct()
    for k, name in enumerate(NAMES):
        calibration = np.array([[500.0 + k, 0, 320], [0, 510, 240], [0, 0, 1]])
        vector, shift = np.array([[0.1 + k], [0.2], [-0.3]]), np.array([[0.1], [1.2], [3.0 + k]])
        values = {f"K_{name}": calibration, f"dist_{name}": np.array([[0.1, 0.2, 0.01, 0.02, 0.3]])}
        for key, value in values.items():
            if key not in skip:
                files["intri"].write(key, value)
        files["extri"].write(f"R_{name}", vector)
        if rotations == "Rot":
            files["extri"].write(f"Rot_{name}", cv2.Rodrigues(vector)[0])
        files["extri"].write(f"T_{name}", unit * shift)
        cameras[name] = calibration, cv2.Rodrigues(vector)[0], shift[:, 0]
    for file in files.values():
        file.release()
    return cameras


@pytest.mark.parametrize("unit", [1.0, 1000.0])
@pytest.mark.parametrize("rotations", ["Rot", "R"])
def test_easymocaps_cameras_are_read(tmp_path, unit, rotations):
    wanted = write(tmp_path, unit, rotations)
    for path in (tmp_path, tmp_path / "intri.yml"):
        names, cameras = read_cameras(path)
        assert tuple(names) == NAMES
        for name, camera in zip(names, cameras):
            calibration, rotation, shift = wanted[name]
            np.testing.assert_allclose(camera.calibration, calibration)
            np.testing.assert_allclose(camera.rotation, rotation, atol=1e-9)
            np.testing.assert_allclose(camera.translation, shift)
            np.testing.assert_allclose(camera.distortion, [0.1, 0.2, 0.01, 0.02, 0.3])


def test_what_is_no_calibration_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"neither annots\.npy nor intri\.yml"):
        read_cameras(tmp_path)
    with pytest.raises(InputError, match="no calibration that is known"):
        read_cameras(tmp_path / "cameras.txt")
    write(tmp_path, skip=("dist_side",))
    with pytest.raises(InputError, match="dist_side must be 5"):
        read_cameras(tmp_path)
    (tmp_path / "extri.yml").unlink()
    with pytest.raises(InputError, match=r"There is no .*extri\.yml"):
        read_cameras(tmp_path)
    (tmp_path / "intri.yml").write_text("%YAML:1.0\n---\nother: 3\n")
    (tmp_path / "extri.yml").write_text("%YAML:1.0\n---\nother: 3\n")
    with pytest.raises(InputError, match="lists no camera"):
        read_cameras(tmp_path)
    (tmp_path / "intri.yml").write_text("hello {")
    with pytest.raises(InputError, match=r"OpenCV's storage|lists no camera"):
        read_cameras(tmp_path)
