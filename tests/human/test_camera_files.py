import sys

import cv2
import numpy as np
import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.camera_files import read_cameras
from nerfstudio_ext.human.zju_layout import read_layout

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


TOML = pytest.mark.skipif(sys.version_info < (3, 11), reason="needs Python's tomllib")
CALISCOPE = """
[cameras.7]
size = [640, 480]
matrix = [[500.0, 0.0, 320.0], [0.0, 510.0, 240.0], [0.0, 0.0, 1.0]]
distortions = [0.1, 0.2, 0.01, 0.02, 0.3]
rotation = {rotation}
translation = [0.1, 1.2, 3.0]
[cameras.8]
ignore = true
matrix = [[1.0]]
"""
POSE2SIM = """
[cam_0]
name = "left"
matrix = [[500.0, 0.0, 320.0], [0.0, 510.0, 240.0], [0.0, 0.0, 1.0]]
distortions = [0.1, 0.2, 0.01, 0.02]
rotation = [0.1, 0.2, -0.3]
translation = [100.0, 1200.0, 3000.0]
fisheye = false
[metadata]
adjusted = false
"""


@TOML
@pytest.mark.parametrize("kind,name,last", [("caliscope", "7", 0.3), ("pose2sim", "left", 0.0)])
def test_toml_of_several_programs_is_read(tmp_path, kind, name, last):
    rotation = cv2.Rodrigues(np.array([0.1, 0.2, -0.3]))[0]
    text = CALISCOPE.format(rotation=rotation.tolist()) if kind == "caliscope" else POSE2SIM
    (tmp_path / "c.toml").write_text(text)
    names, (camera,) = read_cameras(tmp_path / "c.toml")
    assert names == [name] and camera.size == ((640, 480) if kind == "caliscope" else None)
    np.testing.assert_allclose(camera.rotation, rotation)
    np.testing.assert_allclose(camera.translation, [0.1, 1.2, 3.0])
    np.testing.assert_allclose(camera.distortion, [0.1, 0.2, 0.01, 0.02, last])
    np.testing.assert_allclose(camera.calibration, [[500, 0, 320], [0, 510, 240], [0, 0, 1]])


@TOML
@pytest.mark.parametrize(
    "old,new,message",
    [
        ("fisheye = false", "fisheye = true", "left has a fisheye"),
        ("rotation = [0.1, 0.2, -0.3]", "rotation = [0.1]", "rotation of camera left must be 3 or 9"),
        ("matrix =", "other =", "no table of a camera"),
        ("[cam_0]", "[cam_0", "is no TOML"),
    ],
)
def test_broken_toml_is_refused(tmp_path, old, new, message):
    (tmp_path / "c.toml").write_text(POSE2SIM.replace(old, new))
    with pytest.raises(InputError, match=message):
        read_cameras(tmp_path / "c.toml")


QUALISYS = """<?xml version='1.0' encoding='ASCII'?>
<calibration><cameras><camera serial="one">
<transform r11="0" r12="1" r13="0" r21="0" r22="0" r23="1" r31="1" r32="0" r33="0" x="3000" y="0" z="1000"/>
<intrinsic centerPointU="20480" centerPointV="15360" focalLengthU="32000" focalLengthV="32640" radialDistortion1="0.1"
 radialDistortion2="0.2" radialDistortion3="0.3" tangentalDistortion1="0.01" tangentalDistortion2="0.02"/>
</camera></cameras></calibration>"""


def test_qualisys_is_read(tmp_path):
    """Three metres along x and one up, looking back along x: the world's y is to the right, its z up."""
    (tmp_path / "c.qca.txt").write_text(QUALISYS)
    names, (camera,) = read_cameras(tmp_path / "c.qca.txt")
    assert names == ["one"] and camera.size is None
    np.testing.assert_allclose(camera.calibration, [[500, 0, 320], [0, 510, 240], [0, 0, 1]])
    np.testing.assert_allclose(camera.distortion, [0.1, 0.2, 0.01, 0.02, 0.3])
    np.testing.assert_allclose(camera.centre(), [3, 0, 1])
    pixels = camera.project(np.array([[0.0, 0.3, 1.0], [0.0, 0.0, 1.3]]))
    np.testing.assert_allclose(pixels, [[370, 240], [320, 189]])
    view = '<fov_video left="0" top="0" right="639" bottom="479"/><transform'
    (tmp_path / "c.qca.txt").write_text(QUALISYS.replace("<transform", view))
    assert read_cameras(tmp_path / "c.qca.txt")[1][0].size == (640, 480)
    for old, new, message in (("<transform", "<t", "camera one needs numbers in r11"), ("</cam", "<", "is no calib")):
        (tmp_path / "c.qca.txt").write_text(QUALISYS.replace(old, new))
        with pytest.raises(InputError, match=message):
            read_cameras(tmp_path / "c.qca.txt")


@TOML
@pytest.mark.parametrize(
    "folder,calibration,converted,ratio",
    [
        ("human_pose2sim", "calibration/Calib.qca.txt", "annots_original_calibration.npy", 2),
        ("human_caliscope", "camera_array.toml", "annots.npy", 2),
    ],
)
def test_the_real_recordings_cameras_are_those_of_their_captures(
    shared_data, tmp_path, folder, calibration, converted, ratio
):
    """Whoever made the captures converted the calibrations by another program."""
    _, found = read_cameras(shared_data / folder / calibration)
    (tmp_path / "annots.npy").write_bytes((shared_data / folder / "zju_layout" / converted).read_bytes())
    wanted = read_layout(tmp_path).cameras
    assert len(found) == len(wanted) == 4
    for one, other in zip(found, wanted):
        np.testing.assert_allclose(one.rotation, other.rotation, atol=1e-6)
        np.testing.assert_allclose(one.translation, other.translation, atol=1e-5)
        np.testing.assert_allclose(np.diag(one.calibration)[:2], ratio * np.diag(other.calibration)[:2], rtol=1e-6)
        np.testing.assert_allclose(one.calibration[:2, 2], ratio * other.calibration[:2, 2], atol=0.6)
