"""The suite's neutral layout of a filmed person: `transforms.json`, pictures, masks and a `body.npz`; no pickles."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Type

from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from dataparsers._capture import CaptureDataParser, CaptureDataParserConfig
from nerfstudio_ext.human.capture import CaptureLayout
from nerfstudio_ext.human.neutral_layout import read_neutral


@dataclass
class MultiviewHumanDataParserConfig(CaptureDataParserConfig):
    """A folder that holds transforms.json, as `ns-ext human convert` writes it."""

    _target: Type = field(default_factory=lambda: MultiviewHumanDataParser)


@dataclass
class MultiviewHumanDataParser(CaptureDataParser):
    """Of the layout's files; what comes out is the parent's."""

    config: MultiviewHumanDataParserConfig

    def read(self, folder: Path) -> CaptureLayout:
        return read_neutral(folder)


multiview_human_data = DataParserSpecification(
    config=MultiviewHumanDataParserConfig(),
    description="A moving person in the suite's neutral layout: transforms.json, pictures, masks and body.npz.",
)
