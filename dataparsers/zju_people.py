"""Several people in the layout of ZJU-MoCap, split as the papers on unseen people split them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Tuple, Type

from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from dataparsers._people import people_outputs, source_views
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.capture import CaptureLayout
from nerfstudio_ext.human.zju_layout import UnitName, read_layout
from nerfstudio_ext.human.zju_people import Moment, ZjuPeople
from nerfstudio_ext.procedural.person import BODY_KEYPOINTS

TRAINED: Dict[str, Tuple[int, int, int]] = {
    "CoreView_313": (0, 60, 1),
    "CoreView_315": (0, 400, 6),
    "CoreView_377": (0, 300, 30),
    "CoreView_386": (0, 300, 6),
    "CoreView_390": (700, 1000, 6),
    "CoreView_392": (0, 300, 6),
    "CoreView_396": (810, 1080, 5),
}
"""Frames of the official training people: first, end, step."""


@dataclass
class ZjuPeopleDataParserConfig(DataParserConfig):
    """A folder with a folder for each person; the defaults are the official split."""

    _target: Type = field(default_factory=lambda: ZjuPeopleDataParser)
    data: Optional[Path] = None
    """Folder that holds the people's folders, each with annots.npy, pictures, masks and joints3d/."""
    train_people: Tuple[str, ...] = tuple(TRAINED)
    """Folders of the people to train on; those of the official split with its frames, others with --frame-step."""
    test_people: Tuple[str, ...] = ("CoreView_387", "CoreView_393", "CoreView_394")
    """Folders of the people to test with, whom training never sees."""
    frame_step: int = 6
    """Take every so-manieth frame of people to train on who are not in the official split."""
    eval_step: int = 30
    """Test with every so-manieth frame."""
    sources: str = "0,7,15"
    """Cameras that people are reconstructed from when they are tested: a number, or indices."""
    targets: str = "3,5,10,12,18,20"
    """Cameras to test with, or the word rest for all that are no sources."""
    size: int = 512
    """Shrink pictures until neither side has more pixels."""
    translation_unit: UnitName = "mm"
    """Unit of T in annots.npy; ZJU-MoCap's is the millimetre."""
    keypoint_names: Tuple[str, ...] = tuple(BODY_KEYPOINTS)
    """Rows of joints3d/; the names of SMPL's 24 joints."""


@dataclass
class ZjuPeopleDataParser(DataParser):
    """Each moment of each person counts as a person of its own."""

    config: ZjuPeopleDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        if config.data is None:
            raise InputError("zju-people-data reads a folder: give --data.")
        if both := set(config.train_people) & set(config.test_people):
            raise InputError(f"{', '.join(sorted(both))}: people to test with must not be trained on.")
        root = Path(config.data).expanduser()
        layouts = {root / name: self._layout(root / name) for name in (*config.train_people, *config.test_people)}
        trained = [m for name in config.train_people for m in self._moments(root / name, layouts, training=True)]
        tested = [m for name in config.test_people for m in self._moments(root / name, layouts, training=False)]
        if not trained or not tested:
            raise InputError("Name one person to train on and one to test with at least.")
        store = ZjuPeople(layouts, [*trained, *tested], config.size, config.keypoint_names)
        counts = [len(store.cameras(index)) for index in range(len(store))]
        tests = range(len(trained), len(store))
        sources = source_views(config.sources, min(counts[index] for index in tests), "--sources")
        targets = {index: self._targets(sources, counts[index]) for index in tests}
        if split == "train":
            views = [(index, camera) for index in range(len(trained)) for camera in range(counts[index])]
        else:
            views = [(index, camera) for index in tests for camera in targets[index]]
        return people_outputs(store, views, dict.fromkeys(range(len(store)), sources), shown=len(trained))

    def _layout(self, folder: Path) -> CaptureLayout:
        if not (folder / "annots.npy").is_file():
            raise InputError(f"There is no {folder / 'annots.npy'}: choose with --train-people and --test-people.")
        return read_layout(folder, self.config.translation_unit)

    def _moments(self, folder: Path, layouts: Dict[Path, CaptureLayout], training: bool) -> List[Moment]:
        config, count = self.config, len(layouts[folder].pictures)
        begin, end, step = (0, count, config.frame_step if training else config.eval_step)
        if training and folder.name in TRAINED:
            begin, end, step = TRAINED[folder.name]
        return [Moment(folder, frame) for frame in range(begin, end, max(step, 1))]

    def _targets(self, sources: Tuple[int, ...], count: int) -> List[int]:
        text = self.config.targets
        try:
            chosen = (
                [c for c in range(count) if c not in sources] if text == "rest" else [int(c) for c in text.split(",")]
            )
        except ValueError:
            raise InputError(f"--targets wants indices as in 3,5,10, or the word rest, not '{text}'.") from None
        if not chosen or set(chosen) & set(sources) or not all(0 <= c < count for c in chosen):
            raise InputError(f"--targets {text}: name cameras from 0 to {count - 1} that are no sources "
                             f"({','.join(map(str, sources))}).")  # fmt: skip
        return chosen


zju_people_data = DataParserSpecification(
    config=ZjuPeopleDataParserConfig(),
    description="Several people in the layout of ZJU-MoCap, with 3-D joints.",
)
