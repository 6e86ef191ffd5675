"""2-D key points of a body as detectors write them, by the name of their joint."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from jaxtyping import Float

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.archives import read_arrays

_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_LIMBS = tuple(
    f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
)
SKELETONS: Dict[str, Tuple[str, ...]] = {
    "coco17": (*_FACE, *_LIMBS),
    "body25": (
        "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
        "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye",
        "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
        "right_small_toe", "right_heel",
    ),
    "body25b": (
        *_FACE, *_LIMBS, "neck", "head_top", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
        "right_small_toe", "right_heel",
    ),
    "halpe26": (
        *_FACE, *_LIMBS, "head_top", "neck", "mid_hip", "left_big_toe", "right_big_toe", "left_small_toe",
        "right_small_toe", "left_heel", "right_heel",
    ),
}  # fmt: skip
"""Joints of each skeleton in the order of its files. BODY_25 and BODY_25B have equally many in different orders."""
NAMES = tuple(dict.fromkeys(name for names in SKELETONS.values() for name in names))
People = List[np.ndarray]
"""[joints, 3] of each person in a picture."""


@dataclass(frozen=True)
class Keypoints2D:
    """The person's joints in all pictures: x, y in pixels (centres at integers) and confidence, 0 where not seen."""

    values: Float[np.ndarray, "frames cameras joints 3"]
    names: Tuple[str, ...]

    def scaled(self, ratio: float) -> "Keypoints2D":
        """In pictures whose sides are so many times as long."""
        return Keypoints2D(self.values * [ratio, ratio, 1.0], self.names)


def read_keypoints(path: Path, skeleton: Optional[str]) -> Keypoints2D:
    """Key points from a file or folder, whichever of the known forms it has.

    Known are: an `.npz` whose kpts2d is [cameras, frames, joints, 3]; a folder with one entry per camera (in the order
    of their names), which is an MMPose/RTMPose or COCO `.json` or a folder of OpenPose's `..._keypoints.json`, one per
    frame. Where a picture shows several people, the one whose joints are surest and span the largest box is taken.
    Frames that a file numbers keep their numbers: those in which no one was found may be missing from it.

    Args:
        path: File or folder.
        skeleton: Name in SKELETONS; none: COCO where there are 17 joints, Halpe where there are 26.

    Raises:
        InputError: The form is none of these, cameras differ in frames, no frame is number 0 or 1, or the skeleton does
            not fit.
    """
    if path.suffix == ".npz":
        values = _read_npz(path)
    elif path.is_dir():
        values = _read_folder(path)
    else:
        raise InputError(f"{path} is neither an .npz with kpts2d nor a folder with one entry per camera.")
    return named(values, skeleton, str(path))


def read_photo_keypoints(folder: Path, photos: Sequence[str], skeleton: Optional[str]) -> Keypoints2D:
    """Key points of photographs in a folder that has a file for each, called like it: for `a.jpg` OpenPose's
    `a_keypoints.json`, or an `a.json` of MMPose/RTMPose or COCO. As one frame, with a camera for each photo.

    Args:
        folder: The folder.
        photos: Names of the photos.
        skeleton: As for `read_keypoints`.

    Raises:
        InputError: A file is missing or has another form, photos differ in joints, or the skeleton does not fit.
    """
    people = []
    for stem in (Path(photo).stem for photo in photos):
        files = [path for end in ("_keypoints", "") if (path := folder / f"{stem}{end}.json").is_file()]
        if not files:
            raise InputError(f"{folder} has neither {stem}_keypoints.json nor {stem}.json: each photo needs a file of "
                             "2-D key points that is called like it.")  # fmt: skip
        people.append(_read_picture(files[0]))
    if len({person.shape for person in people}) > 1:
        told = ", ".join(f"{photo} {len(person)}" for photo, person in zip(photos, people))
        raise InputError(f"The photos' key points in {folder} differ in the number of joints: {told}.")
    return named(np.stack(people)[None], skeleton, str(folder))


def named(values: Float[np.ndarray, "frames cameras joints 3"], skeleton: Optional[str], where: str) -> Keypoints2D:
    """Give joints their names; what is not finite or negative counts as not seen.

    Raises:
        InputError: There is no such skeleton, or it has another number of joints, or two have this number.
    """
    count = values.shape[2]
    if skeleton is None:
        fitting = [name for name, joints in SKELETONS.items() if len(joints) == count]
        if len(fitting) != 1:
            raise InputError(
                f"{where} has {count} joints, which fits {' and '.join(fitting) or 'no skeleton'}: choose one with "
                f"--skeleton ({', '.join(SKELETONS)})."
            )
        skeleton = fitting[0]
    if skeleton not in SKELETONS or len(SKELETONS[skeleton]) != count:
        raise InputError(f"{where} has {count} joints, which is not --skeleton {skeleton}: there are "
                         f"{', '.join(f'{k} ({len(v)})' for k, v in SKELETONS.items())}.")  # fmt: skip
    seen = np.isfinite(values).all(-1) & (values[..., 2] > 0)
    return Keypoints2D(np.where(seen[..., None], values, 0.0), SKELETONS[skeleton])


def _read_npz(path: Path) -> np.ndarray:
    values = read_arrays(path, ["kpts2d"])["kpts2d"]
    if values.ndim != 4 or values.shape[3] != 3 or values.dtype.kind not in "fiu":
        raise InputError(f"{path}: kpts2d is {list(values.shape)}, but must be numbers [cameras, frames, joints, 3].")
    return values.astype(np.float64).transpose(1, 0, 2, 3)


def _read_folder(folder: Path) -> np.ndarray:
    entries = sorted((p for p in folder.iterdir() if p.is_dir() or p.suffix == ".json"), key=_in_order)
    if not entries:
        raise InputError(f"{folder} holds neither .json files nor folders of them, one per camera.")
    found = [_read_openpose(entry) if entry.is_dir() else _read_json(entry) for entry in entries]
    cameras = [_one_person(frames, entry) for frames, entry in zip(_aligned(found, folder), entries)]
    shapes = {camera.shape for camera in cameras}
    if len(shapes) > 1:
        told = ", ".join(f"{entry.name} {len(camera)}x{camera.shape[1]}" for entry, camera in zip(entries, cameras))
        raise InputError(f"The cameras in {folder} differ in frames or joints: {told}.")
    return np.stack(cameras, axis=1)


def _aligned(cameras: Sequence[Union[List[People], Dict[Any, People]]], folder: Path) -> List[List[People]]:
    """Every camera's frames from the first to the last that any has: a frame that a file does not name shows no one.

    Raises:
        InputError: Nothing tells which frame a number is.
    """
    cameras = [{_frame_number(k, folder): v for k, v in x.items()} if isinstance(x, dict) else x for x in cameras]
    numbers = sorted({number for frames in cameras if isinstance(frames, dict) for number in frames})
    if numbers and numbers[0] not in (0, 1):
        raise InputError(
            f"The files in {folder} number their frames from {numbers[0]} on, so it is not known how many came before: "
            "number them from 0 or 1, or give COCO's annotations, which list all images."
        )
    whole = range(numbers[0], numbers[-1] + 1) if numbers else range(0)
    return [[frames.get(k, []) for k in whole] if isinstance(frames, dict) else frames for frames in cameras]


def _in_order(path: Path) -> List[Any]:
    """Names with their numbers as numbers: cam2 stands before cam10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}).") from error


def _read_openpose(folder: Path) -> List[People]:
    """People of each frame in a folder with one file per frame."""
    files = sorted(folder.glob("*.json"), key=_in_order)
    if not files:
        raise InputError(f"{folder} holds no .json files, one per frame.")
    return [_openpose_people(_load(path), path) for path in files]


def _openpose_people(content: Any, path: Path) -> People:
    try:
        return [np.array(p["pose_keypoints_2d"], dtype=float).reshape(-1, 3) for p in content["people"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no file of OpenPose: it needs people with pose_keypoints_2d.") from error


def _read_picture(path: Path) -> np.ndarray:
    """[joints, 3] of the file of one picture: OpenPose's, MMPose's (a list of instances, bare or as instance_info), or
    one that could be a video's, too, with a single frame."""
    content = _load(path)
    rows = content.get("instance_info") if isinstance(content, dict) else content
    if isinstance(content, dict) and "people" in content:
        frames = _one_person([_openpose_people(content, path)], path)
    elif isinstance(rows, list) and any(isinstance(row, dict) and "keypoint_scores" in row for row in rows):
        try:
            frames = _one_person([[_with_scores(row) for row in rows]], path)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} needs keypoints and keypoint_scores for each person ({error!r}).") from error
    else:
        found = _read_json(path)
        frames = _one_person(list(found.values()) if isinstance(found, dict) else found, path)
    if len(frames) != 1:
        raise InputError(f"{path} has key points of {len(frames)} pictures, but is the file of one photo.")
    return frames[0]


def _read_json(path: Path) -> Union[List[People], Dict[Any, People]]:
    """People in one file for a whole video: MMPose's (RTMPose), or COCO's results or annotations.

    Annotations list all images; the others by number only frames in which someone was found, or may do so.
    """
    content = _load(path)
    try:
        if isinstance(content, dict) and "instance_info" in content:
            return {int(f["frame_id"]): [_with_scores(p) for p in f["instances"]] for f in content["instance_info"]}
        by_image: Dict[Any, People] = {}
        for row in content["annotations"] if isinstance(content, dict) else content:
            by_image.setdefault(row["image_id"], []).append(np.array(row["keypoints"], dtype=float).reshape(-1, 3))
        if isinstance(content, dict):
            return [by_image.get(image["id"], []) for image in content["images"]]
        return by_image
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is neither of MMPose (instance_info) nor of COCO (a list or annotations with keypoints): "
            f"{error!r}."
        ) from error


def _frame_number(image: Any, where: Path) -> int:
    """Of a picture by its id, which is a number or, as AlphaPose writes it, a file's name."""
    found = re.fullmatch(r"\D*(\d+)(\.\w+)?", str(image))
    if found is None:
        raise InputError(f"A file in {where} calls a picture {image}: its image_id must be the number of a frame.")
    return int(found[1])


def _with_scores(person: Dict[str, Any]) -> np.ndarray:
    points = np.array(person["keypoints"], dtype=float).reshape(-1, 2)
    return np.concatenate([points, np.array(person["keypoint_scores"], dtype=float).reshape(-1, 1)], axis=1)


def _one_person(frames: Sequence[People], where: Path) -> np.ndarray:
    """The main person of each frame; zeros where there is none."""
    shapes = {person.shape for people in frames for person in people}
    if len(shapes) != 1:
        raise InputError(f"{where} shows no one, or people with different numbers of joints.")
    empty = np.zeros(shapes.pop())
    return np.stack([max(people, key=_weight, default=empty) for people in frames])


def _weight(person: np.ndarray) -> float:
    """Confidence times the diagonal of the box around the joints that are seen."""
    seen = person[person[:, 2] > 0.1]
    return float(seen[:, 2].sum() * np.linalg.norm(np.ptp(seen[:, :2], axis=0))) if len(seen) else 0.0
