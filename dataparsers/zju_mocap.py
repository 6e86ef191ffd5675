"""The layout of ZJU-MoCap: one moving person, calibrated cameras, masks, and a body fitted to every frame."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Type

from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from dataparsers._capture import CaptureDataParser, CaptureDataParserConfig
from nerfstudio_ext.human.capture import CaptureLayout
from nerfstudio_ext.human.zju_layout import FitName, UnitName, read_layout


@dataclass
class ZjuMocapDataParserConfig(CaptureDataParserConfig):
    """A folder in the layout of ZJU-MoCap, which holds annots.npy."""

    _target: Type = field(default_factory=lambda: ZjuMocapDataParser)
    fit: FitName = "auto"
    """Which of the folder's fits: first (params/, vertices/), new (new_params/, new_vertices/) or new where it is
    there."""
    translation_unit: UnitName = "mm"
    """Unit of T in annots.npy; ZJU-MoCap's is the millimetre."""


@dataclass
class ZjuMocapDataParser(CaptureDataParser):
    """Of the layout's files; what comes out is the parent's."""

    config: ZjuMocapDataParserConfig

    def read(self, folder: Path) -> CaptureLayout:
        return read_layout(folder, self.config.translation_unit)

    def fit(self) -> FitName:
        return self.config.fit


zju_mocap_data = DataParserSpecification(
    config=ZjuMocapDataParserConfig(),
    description="A moving person in ZJU-MoCap's layout: annots.npy, pictures, masks and a fitted body.",
)
