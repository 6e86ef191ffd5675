"""A folder of EasyMocap's: `intri.yml`, `extri.yml`, and `images/<camera>/000000.jpg`; and the body's parameters in
`output-smpl-3d/smpl/`."""

from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.camera_files import read_cameras
from nerfstudio_ext.human.capture import MASK_FOLDERS, CaptureLayout
from nerfstudio_ext.human.smpl_body import easymocap_motion, read_smpl
from nerfstudio_ext.human.smpl_params import read_params

PARAMS = Path("output-smpl-3d", "smpl")
"""Where EasyMocap writes a body's parameters, a file per frame."""


def read_easymocap_capture(
    folder: Path, masks: Optional[Path] = None, numbers: Optional[Sequence[int]] = None
) -> CaptureLayout:
    """Cameras, pictures and masks.

    Args:
        folder: Holds intri.yml, extri.yml and images/.
        masks: Folder with a folder of `.png` per camera; none: mask/ or mask_cihp/ below the folder, if there.
        numbers: Frames to take; none: all that the first camera has.

    Raises:
        InputError: Something is missing, or a camera missed a frame.
    """
    names, cameras = read_cameras(folder)
    pictures = [_numbered(folder / "images" / name, (".jpg", ".jpeg", ".png")) for name in names]
    chosen = sorted(pictures[0]) if numbers is None else list(numbers)
    below = [folder / name for name in MASK_FOLDERS if (folder / name).is_dir()] if masks is None else [masks]
    labels = [_numbered(below[0] / name, (".png",)) for name in names] if below else None
    kinds = [("picture", pictures)] if labels is None else [("picture", pictures), ("mask", labels)]
    for kind, found in kinds:
        for name, files in zip(names, found):
            if missed := [number for number in chosen if number not in files]:
                raise InputError(f"{folder}: camera {name} has no {kind} of frame {missed[0]}; leave out frames that a "
                                 "camera missed, or that camera.")  # fmt: skip
    return CaptureLayout(
        folder,
        cameras,
        [[str(files[number]) for files in pictures] for number in chosen],
        chosen,
        None,
        None if labels is None else [[str(files[number]) for files in labels] for number in chosen],
    )


def read_easymocap_body(folder: Path, model: Path) -> Tuple[List[int], BodyMotion]:
    """The frames that have parameters, and the posed body in them.

    Args:
        folder: Holds output-smpl-3d/smpl/.
        model: The licensed body that the parameters are of.

    Raises:
        InputError: A file is missing or broken, or the parameters are of another body.
    """
    params, body = read_params(folder / PARAMS), read_smpl(model)
    motion = easymocap_motion(body, params.poses, params.betas, params.root_rotation, params.root_translation,
                              expressions=params.expressions)  # fmt: skip
    return params.numbers, motion.check(str(folder / PARAMS))


def _numbered(folder: Path, kinds: Sequence[str]) -> Dict[int, Path]:
    """Absolute paths of the files in a folder that are named by their frame."""
    found: List[Path] = sorted(folder.absolute().glob("*")) if folder.is_dir() else []
    files = {int(path.stem): path for path in found if path.suffix.lower() in kinds and path.stem.isdigit()}
    if not files:
        raise InputError(f"{folder} holds no files named by their frame, as 000000{kinds[0]}.")
    return files
