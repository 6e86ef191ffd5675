"""Many people or faces that the suite draws itself, as nerfstudio data: some to train on, others to test with."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Type

from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from dataparsers._people import people_outputs, source_views
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.people import PeopleOptions, ProceduralPeople, Subjects


@dataclass
class ProceduralPeopleDataParserConfig(DataParserConfig):
    """People in clothes with exact pictures, masks, depth, normals, keypoints and meshes; drawn when first needed."""

    _target: Type = field(default_factory=lambda: ProceduralPeopleDataParser)
    data: Optional[Path] = None
    """Unused: the people are drawn."""
    people: int = 80
    """People to train on."""
    test_people: int = 8
    """Other people, whom training never sees."""
    cameras: int = 8
    """Cameras on the ring around each person."""
    size: int = 128
    """Width and height of the pictures in pixels."""
    seed: int = 0
    """Decides who the people are; more of them change none of the first ones."""
    subjects: Subjects = "bodies"
    """bodies: whole people within a ring of cameras. faces: heads with facial expressions before an arc of cameras."""
    sources: str = "3"
    """Views that people are reconstructed from when they are tested: a number, or indices as in 0,2,5."""


@dataclass
class ProceduralPeopleDataParser(DataParser):
    """The test split holds the views of the test people that they are not reconstructed from."""

    config: ProceduralPeopleDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        if config.data is not None:
            raise InputError(
                f"procedural-people-data draws its people and reads no files: leave --data {config.data} out, or name "
                "the dataparser that reads it."
            )
        store = ProceduralPeople(
            PeopleOptions(config.cameras, config.size, config.seed, subjects=config.subjects),
            config.people,
            config.test_people,
        )
        sources = source_views(config.sources, config.cameras, "--sources", ring=config.subjects == "bodies")
        if len(sources) == config.cameras:
            raise InputError(f"--sources {config.sources} takes all {config.cameras} cameras: leave one to test with.")
        if split == "train":
            views = [(index, camera) for index in range(config.people) for camera in range(config.cameras)]
        else:
            targets = [camera for camera in range(config.cameras) if camera not in sources]
            views = [(index, camera) for index in range(config.people, len(store)) for camera in targets]
        return people_outputs(store, views, dict.fromkeys(range(len(store)), sources), shown=config.people)


procedural_people_data = DataParserSpecification(
    config=ProceduralPeopleDataParserConfig(),
    description="Many drawn people, each within a ring of cameras; needs the extra `human`.",
)
