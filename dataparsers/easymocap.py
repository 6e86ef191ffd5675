"""EasyMocap's folders: a moving person, calibrated cameras, masks, and SMPL's parameters for every frame."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Sequence, Type

from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from dataparsers._capture import CaptureDataParser, CaptureDataParserConfig
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.capture import CaptureLayout
from nerfstudio_ext.human.easymocap_layout import read_easymocap_body, read_easymocap_capture


@dataclass
class EasymocapDataParserConfig(CaptureDataParserConfig):
    """A folder that holds intri.yml, extri.yml and images/."""

    _target: Type = field(default_factory=lambda: EasymocapDataParser)
    model: Optional[Path] = None
    """The licensed body that the parameters (output-smpl-3d/smpl/) are of; only frames that have some are taken. None:
    the body comes from --body."""
    masks: Optional[Path] = None
    """Folder with a folder of masks for each camera; none: mask/ or mask_cihp/ in the capture."""


@dataclass
class EasymocapDataParser(CaptureDataParser):
    """Of the folder's files; what comes out is the parent's."""

    config: EasymocapDataParserConfig

    def read(self, folder: Path) -> CaptureLayout:
        config = self.config
        if (config.model is None) == (config.body is None):
            raise InputError("Give --model or --body: the body comes from EasyMocap's parameters or from a file.")
        if config.model is None:
            return read_easymocap_capture(folder, config.masks)
        numbers, self._motion = read_easymocap_body(folder, config.model)
        return read_easymocap_capture(folder, config.masks, numbers)

    def motion(self, layout: CaptureLayout, frames: Sequence[int]) -> BodyMotion:
        return super().motion(layout, frames) if self.config.model is None else self._motion.at(frames)


easymocap_data = DataParserSpecification(
    config=EasymocapDataParserConfig(),
    description="A moving person in EasyMocap's folders: cameras, pictures, masks and parameters of SMPL.",
)
