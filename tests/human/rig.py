"""Cameras in a ring about a person of seventeen drawn joints who walks and waves."""

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from nerfstudio_ext.human.capture import CaptureCamera
from nerfstudio_ext.human.keypoints import SKELETONS, Keypoints2D
from nerfstudio_ext.procedural.rigs import rig_poses

SIDE = 1024


def ring(count=4, distortion=0.0):
    """Three metres off, looking at the person's middle."""
    cameras = []
    for pose in rig_poses("ring", count, 3.0).double().numpy():
        rotation = Rotation.from_matrix((pose[:, :3] * [1, -1, -1]).T).as_matrix()
        calibration = np.array([[800.0, 0, 511.5], [0, 800.0, 511.5], [0, 0, 1]])
        lens = np.array([distortion, 0, 0, 0, 0])
        cameras.append(CaptureCamera(calibration, lens, rotation, -rotation @ pose[:, 3], (SIDE, SIDE)))
    return cameras


def walk(frames=20):
    """[frames, 17, 3] in metres."""
    random = np.random.default_rng(5)
    body, phase = random.uniform([-0.25, -0.2, -0.8], [0.25, 0.2, 0.8], (17, 3)), random.uniform(0, 6, (17, 3))
    time = np.linspace(0, 2 * np.pi, frames)[:, None, None]
    swing = 0.15 * np.sin(2 * time + phase)
    return body + swing + np.concatenate([0.4 * np.cos(time), 0.4 * np.sin(time), 0 * time], axis=-1)


def detected(points, cameras, noise=0.5, wrong=0.0, seed=1):
    """What a detector finds, some of it elsewhere in the picture and as sure."""
    random = np.random.default_rng(seed)
    pixels = []
    for camera in cameras:
        flat = (camera.local(points) / camera.local(points)[..., 2:])[..., :2]
        flat = flat * (1 + camera.distortion[0] * (flat**2).sum(-1, keepdims=True))
        pixels.append(flat * 800.0 + 511.5)
    pixels = np.stack(pixels, axis=1) + noise * random.normal(size=(len(points), len(cameras), 17, 2))
    elsewhere = random.random(pixels.shape[:-1]) < wrong
    pixels = np.where(elsewhere[..., None], random.uniform(0, SIDE, pixels.shape), pixels)
    sure = random.uniform(0.5, 0.9, (*pixels.shape[:-1], 1))
    return Keypoints2D(np.concatenate([pixels, sure], axis=-1), SKELETONS["coco17"])


def shaken(camera, centimetres, degrees, seed):
    """The camera moved and turned by so much in a direction of its own."""
    random = np.random.default_rng(seed)
    way, axis = random.normal(size=(2, 3))
    turn = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    centre = camera.centre() + 0.01 * centimetres * way / np.linalg.norm(way)
    rotation = turn @ camera.rotation
    return replace(camera, rotation=rotation, translation=-rotation @ centre)


def apart(cameras, truth):
    """Metres and degrees between cameras and truth, each the largest, after the similarity that suits their centres."""
    ours, theirs = (np.stack([camera.centre() for camera in some]) for some in (cameras, truth))
    a, b = ours - ours.mean(0), theirs - theirs.mean(0)
    u, values, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.linalg.det(u @ vt)])
    turn = u @ sign @ vt
    scale = (values * np.diag(sign)).sum() / (a**2).sum()
    metres = np.linalg.norm(scale * a @ turn.T - b, axis=1).max()
    turns = [Rotation.from_matrix(x.rotation @ turn.T @ y.rotation.T).magnitude() for x, y in zip(cameras, truth)]
    return metres, np.degrees(max(turns)), scale, np.linalg.norm(ours - theirs, axis=1)
