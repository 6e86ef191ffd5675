"""Calibrated photographs of people with masks and keypoints: what a trained network is conditioned on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Optional, Tuple, Type

from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from dataparsers._people import people_outputs, source_views
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.photo_sequence import read_person
from nerfstudio_ext.procedural.person import BODY_KEYPOINTS


@dataclass
class PersonPhotosDataParserConfig(DataParserConfig):
    """A folder with transforms.json, masks, keypoint_names and keypoints3d, or several in a folder: one per moment of a
    person, or one per person."""

    _target: Type = field(default_factory=lambda: PersonPhotosDataParser)
    data: Optional[Path] = None
    """Folder that holds transforms.json, or a folder like that for each moment or person."""
    folders: Literal["moments", "people"] = "moments"
    """What several folders are: moments of a person from the same cameras, or people, each with cameras of its own."""
    size: int = 128
    """Side in pixels of the squares that photos are cut to; as in training."""
    sources: str = "all"
    """Photos that each person is reconstructed from: all, a number, or indices as in 0,2,3."""
    keypoint_names: Tuple[str, ...] = tuple(BODY_KEYPOINTS)
    """Keypoints in the order that the network was trained with."""


@dataclass
class PersonPhotosDataParser(DataParser):
    """The train split holds all photos; the test split those that are not sources, or all of a person where every one
    is. Of several moments, cameras carry the time, 0 at the first and 1 at the last."""

    config: PersonPhotosDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        if config.data is None:
            raise InputError("person-photos-data reads a folder: give --data.")
        moments = config.folders == "moments"
        store = read_person(Path(config.data).expanduser(), config.size, config.keypoint_names, moments)
        counts = [len(store.cameras(index)) for index in range(len(store))]
        if config.sources == "all" and len(set(counts)) > 1:
            raise InputError(
                f"The people in {config.data} have {min(counts)} to {max(counts)} photos, but are reconstructed from "
                f"equally many: say --sources {min(counts)}, or fewer."
            )
        sources, views = {}, []
        for index, count in enumerate(counts):
            text = str(count) if config.sources == "all" else config.sources
            sources[index] = source_views(text, count, f"{store.name(index)}: --sources")
            others = [view for view in range(count) if view not in sources[index]]
            views += [(index, view) for view in (range(count) if split == "train" or not others else others)]
        return people_outputs(store, views, sources, shown=0, moments=moments and len(store) > 1)


person_photos_data = DataParserSpecification(
    config=PersonPhotosDataParserConfig(),
    description="Calibrated photos of one person or several with masks and 3-D keypoints.",
)
