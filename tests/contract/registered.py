"""What the installed suite registers, read from its entry points: importing the host takes ten seconds."""

from importlib.metadata import distribution
from typing import Dict

PACKAGES = ("nerfstudio_ext", "method_configs", "dataparsers")
METHOD_GROUP = "nerfstudio.method_configs"
DATAPARSER_GROUP = "nerfstudio.dataparser_configs"


def registered(group: str) -> Dict[str, str]:
    """Name -> `module:attribute` of one entry-point group; a name given twice raises."""
    points = [point for point in distribution("nerfstudio-ext").entry_points if point.group == group]
    names = [point.name for point in points]
    if len(names) != len(set(names)):
        raise ValueError(f"{group} registers a name twice: {sorted(names)}")
    return {point.name: point.value for point in points}


METHODS = sorted(registered(METHOD_GROUP))
VIDEO_METHODS = [name for name in METHODS if registered(METHOD_GROUP)[name].startswith("method_configs.boosting_nerv:")]
"""Methods that decode whole frames."""
RAY_METHODS = [name for name in METHODS if name not in VIDEO_METHODS]
"""Methods that shoot rays at a scene."""
HUMAN_METHODS = [name for name in METHODS if registered(METHOD_GROUP)[name].startswith("method_configs.neural_body:")]
"""Methods that shoot rays at a moving person."""
PEOPLE_METHODS = [
    name for name in METHODS if registered(METHOD_GROUP)[name].startswith("method_configs.keypoint_nerf:")
]
"""Methods that know many people and are shown one from photographs."""
PHOTO_METHODS = [name for name in METHODS if registered(METHOD_GROUP)[name].startswith("method_configs.keypoint_icon:")]
"""Methods that know many people and are shown one from a single photograph."""
SURFACE_METHODS = [name for name in RAY_METHODS if name not in HUMAN_METHODS + PEOPLE_METHODS + PHOTO_METHODS]
DATAPARSERS = sorted(registered(DATAPARSER_GROUP))
