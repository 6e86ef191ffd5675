"""From the videos of cameras that stand still to a capture in the layout of ZJU-MoCap: pictures, masks, cameras."""

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.agreement import OVERLAY
from nerfstudio_ext.human.body_motion import write_body
from nerfstudio_ext.human.capture import CaptureCamera, Size
from nerfstudio_ext.human.keypoints import Keypoints2D
from nerfstudio_ext.human.masks import Background, background, body_region, person_mask, trunk_length
from nerfstudio_ext.human.people_snapshot import Snapshot
from nerfstudio_ext.human.smpl_body import SmplBody
from nerfstudio_ext.video.reader import open_source
from nerfstudio_ext.video.source import Source

BACKGROUND_FRAMES = 41
"""Frames of the clip that the background is made of."""
ROUND = 1.5
"""Widths of the body about the joints that may be the person, when the background is made."""
SHOWN, TILE = 6, 480
"""Pictures on a sheet, and their height."""

Joints = Dict[str, np.ndarray]
"""x, y in pixels and confidence of one person's joints."""


@dataclass(frozen=True)
class Selection:
    """Which pictures of the videos are taken, and how large."""

    begin: int = 0
    frames: Optional[int] = None
    step: int = 1
    size: Optional[Size] = None
    """Pictures are scaled until they cover this and cut about the middle; none: as they are."""

    def numbers(self, available: int) -> List[int]:
        """Frames of the videos, from 0.

        Raises:
            InputError: There are no such frames.
        """
        found = list(range(self.begin, available, self.step)) if self.begin >= 0 and self.step > 0 else []
        count = len(found) if self.frames is None else self.frames
        if not 0 < count <= len(found):
            raise InputError(
                f"The shortest video has {available} frames, too few for --begin {self.begin} --frames {self.frames} "
                f"--step {self.step}."
            )
        return found[:count]


def write_video_capture(
    videos: Sequence[Path],
    folder: Path,
    selection: Selection,
    strictness: float,
    keypoints: Optional[Keypoints2D] = None,
    cameras: Optional[Sequence[CaptureCamera]] = None,
) -> List[str]:
    """Write Camera_B1/000000.jpg and so on, mask/ likewise, a sheet per camera in sheets/, and annots.npy where the
    calibration is known.

    Args:
        videos: One per camera; all start at the same moment with the same rate.
        folder: Created where it is missing.
        selection: Frames and size.
        strictness: Standard deviations of the noise that are no difference yet.
        keypoints: Of every frame of the videos, in pixels of the written pictures.
        cameras: Calibrations for the written pictures.

    Returns:
        A line per camera.

    Raises:
        InputError: Videos, key points and cameras are not equally many, frames are missing, a calibration is of another
            size, or a picture shows nobody.
    """
    counts = {"key points": keypoints and keypoints.values.shape[1], "a calibration": cameras and len(cameras)}
    for name, given in counts.items():
        if given is not None and given != len(videos):
            raise InputError(f"There are {len(videos)} videos, but {name} of {given} cameras.")
    sources = [open_source(video.expanduser()) for video in videos]
    available = min(source.num_frames for source in sources)
    numbers = selection.numbers(available)
    if keypoints is not None and len(keypoints.values) <= numbers[-1]:
        raise InputError(f"The key points have {len(keypoints.values)} frames, but frame {numbers[-1]} is asked for.")
    for source, camera in zip(sources, cameras or ()):
        size = selection.size or (source.width, source.height)
        camera.require_fitting(source.name, size, "give the size that it was made for with --size WIDTH HEIGHT")
    lines = []
    for number, source in enumerate(sources):
        joints = None if keypoints is None else _joints(keypoints, number)
        lines.append(_write_camera(source, number, folder, selection.size, numbers, available, strictness, joints))
    if cameras is not None:
        write_annots(folder, cameras, len(numbers), None if keypoints is None else keypoints.values[numbers])
    return lines


def write_snapshot(snapshot: Snapshot, body: SmplBody, folder: Path, selection: Selection) -> int:
    """Write a subject of People-Snapshot: Camera_B1/, mask/, annots.npy and body.npz; returns how many pictures.

    Raises:
        InputError: There are no such frames, the poses are of another body, or a mask has another size than the video.
    """
    source = open_source(snapshot.video)
    numbers = selection.numbers(min(source.num_frames, snapshot.frames))
    camera, motion = snapshot.upright(body, numbers)
    for kind in ("", "mask"):
        (folder / kind / "Camera_B1").mkdir(parents=True, exist_ok=True)
    for k, (frame, picture) in enumerate(zip(numbers, source.read(numbers[0], numbers[-1], selection.step))):
        mask = snapshot.mask(frame)
        if mask.shape != picture.shape[:2]:
            raise InputError(
                f"The masks of {snapshot.folder} are {mask.shape[1]}x{mask.shape[0]}, but its video "
                f"{picture.shape[1]}x{picture.shape[0]}."
            )
        Image.fromarray(picture).save(folder / "Camera_B1" / f"{k:06d}.jpg", quality=95)
        Image.fromarray(255 * mask.astype(np.uint8)).save(folder / "mask" / "Camera_B1" / f"{k:06d}.png")
    write_annots(folder, [camera], len(numbers), None)
    write_body(motion, folder / "body.npz")
    return len(numbers)


def _joints(keypoints: Keypoints2D, camera: int) -> List[Joints]:
    return [dict(zip(keypoints.names, frame[camera])) for frame in keypoints.values]


def _write_camera(
    source: Source,
    number: int,
    folder: Path,
    size: Optional[Size],
    numbers: List[int],
    available: int,
    strictness: float,
    joints: Optional[List[Joints]],
) -> str:
    """Pictures, masks and the sheet of one camera; returns what there is to say about them."""
    every = max(1, -(-available // BACKGROUND_FRAMES))
    frames = np.stack([covering(frame, size) for frame in source.read(0, available - 1, every)])
    trunk = float("nan") if joints is None else trunk_length(joints)
    covered = None
    if joints is not None:
        if not np.isfinite(trunk):
            raise InputError(f"No frame of {source.name} shows both shoulders and both hips in its key points.")
        places = [joints[min(k * every, len(joints) - 1)] for k in range(len(frames))]
        covered = np.stack([body_region(place, trunk, frames.shape[1:3], ROUND) for place in places])
    behind = background(frames, covered)
    del frames, covered
    shown = set(np.linspace(0, len(numbers) - 1, SHOWN).round().astype(int).tolist())
    shares, tiles = [], [_tile(behind.colour)]
    pictures = source.read(numbers[0], numbers[-1], numbers[1] - numbers[0] if len(numbers) > 1 else 1)
    name = f"Camera_B{number + 1}"
    for kind in ("", "mask"):
        (folder / kind / name).mkdir(parents=True, exist_ok=True)
    for k, (frame, picture) in enumerate(zip(numbers, pictures)):
        picture = covering(picture, size)
        mask = person_mask(picture, behind, strictness, None if joints is None else joints[frame], trunk)
        if not mask.any():
            raise InputError(
                f"Frame {frame} of {source.name} shows nobody before the background: leave it out with --begin and "
                "--frames, or lower --strictness."
            )
        Image.fromarray(picture).save(folder / name / f"{k:06d}.jpg", quality=95)
        Image.fromarray(255 * mask.astype(np.uint8)).save(folder / "mask" / name / f"{k:06d}.png")
        shares.append(float(mask.mean()))
        if k in shown:
            tiles.append(_tile(_marked(picture, mask)))
    if len(shares) < len(numbers):
        raise InputError(f"{source.name} breaks off after {len(shares)} of the {len(numbers)} frames asked for.")
    (folder / "sheets").mkdir(exist_ok=True)
    Image.fromarray(np.concatenate(tiles, axis=1)).save(folder / "sheets" / f"camera_{number:02d}.jpg", quality=90)
    height, width = behind.known.shape
    return (
        f"camera {number} ({source.name}): {len(numbers)} pictures {width}x{height}, person {np.mean(shares):.1%} of "
        f"them ({min(shares):.1%} to {max(shares):.1%}){_never_seen(behind)}"
    )


def _never_seen(behind: Background) -> str:
    hidden = float((~behind.known).mean())
    return f", background never seen at {hidden:.1%}" if hidden > 0 else ""


def covering(frame: UInt8[np.ndarray, "height width 3"], size: Optional[Size]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture scaled until it covers a size, cut about the middle."""
    height, width = frame.shape[:2]
    if size is None or size == (width, height):
        return frame
    ratio = max(size[0] / width, size[1] / height)
    left, top = (round((have - want / ratio) / 2) for have, want in zip((width, height), size))
    cut = frame[max(top, 0) : height - max(top, 0), max(left, 0) : width - max(left, 0)]
    way = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    return cv2.resize(cut, size, interpolation=way)


def _marked(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture dark beside the person, with the person's outline."""
    dim = np.ascontiguousarray(np.where(mask[..., None], picture, picture // 4))
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(dim, outlines, -1, OVERLAY, 1)


def _tile(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    if height <= TILE:
        return picture
    return cv2.resize(picture, (round(width * TILE / height), TILE), interpolation=cv2.INTER_AREA)


def write_annots(folder: Path, cameras: Sequence[CaptureCamera], frames: int, keypoints: Optional[np.ndarray]) -> None:
    """annots.npy with T in millimetres, and the key points of the written pictures."""
    rows: List[Dict[str, object]] = []
    for frame in range(frames):
        row: Dict[str, object] = {"ims": [f"Camera_B{c + 1}/{frame:06d}.jpg" for c in range(len(cameras))]}
        if keypoints is not None:
            row["kpts2d"] = keypoints[frame]
        rows.append(row)
    cams = {
        "K": [camera.calibration for camera in cameras],
        "D": [camera.distortion[:, None] for camera in cameras],
        "R": [camera.rotation for camera in cameras],
        "T": [1000 * camera.translation[:, None] for camera in cameras],
    }
    annots = np.array({"cams": cams, "ims": rows}, dtype=object)
    np.save(folder / "annots.npy", annots, allow_pickle=True)
