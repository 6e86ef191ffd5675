"""`ns-ext human convert`: captures in other layouts, in the suite's neutral one."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional, Tuple

import tyro

if TYPE_CHECKING:
    from nerfstudio_ext.human.body_motion import BodyMotion
    from nerfstudio_ext.human.capture import CaptureLayout


@dataclass
class Convert:
    """Write a capture of ZJU-MoCap's or EasyMocap's layout in the neutral one: transforms.json, pictures, masks and
    body.npz, without pickles, which multiview-human-data trains on."""

    source: Annotated[Path, tyro.conf.Positional]
    """Folder that holds annots.npy, or EasyMocap's intri.yml, extri.yml and images/."""
    output: Annotated[Path, tyro.conf.Positional]
    """Folder to write; must be empty or new."""
    model: Optional[Path] = None
    """The licensed body that EasyMocap's parameters (output-smpl-3d/smpl/) are of; only frames that have some are
    taken."""
    body: Optional[Path] = None
    """A body.npz for all frames; none: the folder's own fit."""
    masks: Optional[Path] = None
    """Folder with a folder of masks for each of EasyMocap's cameras; none: mask/ or mask_cihp/ in its folder."""
    fit: Literal["auto", "new", "first"] = "auto"
    """Which fit of ZJU-MoCap's."""
    translation_unit: Literal["mm", "m"] = "mm"
    """Unit of T in annots.npy; EasyMocap's is told from its size."""

    def main(self) -> None:
        from nerfstudio_ext.cli.folders import drafted, require_empty
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.export.neutral_capture import write_neutral

        require_empty(self.output)
        if self.model is not None and self.body is not None:
            raise InputError("Give --model or --body: the body comes from EasyMocap's parameters or from a file.")
        source = self.source.expanduser()
        layout, motion = self._zju(source) if (source / "annots.npy").is_file() else self._easymocap(source)
        with drafted(self.output) as draft:
            write_neutral(layout, draft, motion)
        print(f"{len(layout.numbers)} frames from {len(layout.cameras)} cameras: {self.output}")
        if not layout.has_masks():
            print("there are no masks, which training needs: name their folder with --masks")
        if motion is None:
            print(f"there is no body: fit one with 'ns-ext human fit {self.output} {self.output / 'body.npz'}'")
        else:
            print(f"train on it with:  ns-train neural-body-tiny multiview-human-data --data {self.output}")

    def _zju(self, source: Path) -> Tuple["CaptureLayout", Optional["BodyMotion"]]:
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.human.zju_layout import capture_body, read_layout

        if self.model is not None or self.masks is not None:
            raise InputError("--model and --masks are for EasyMocap's folders; ZJU-MoCap's name their own.")
        layout = read_layout(source, self.translation_unit)
        if self.body is None and not any((source / name).is_dir() for name in ("vertices", "new_vertices")):
            return layout, None
        return layout, capture_body(layout, self.body, self.fit, range(len(layout.numbers)))

    def _easymocap(self, source: Path) -> Tuple["CaptureLayout", Optional["BodyMotion"]]:
        from nerfstudio_ext.human.easymocap_layout import read_easymocap_body, read_easymocap_capture
        from nerfstudio_ext.human.zju_layout import capture_body

        if self.model is None:
            layout = read_easymocap_capture(source, self.masks)
            frames = range(len(layout.numbers))
            return layout, None if self.body is None else capture_body(layout, self.body, "auto", frames)
        numbers, motion = read_easymocap_body(source, self.model)
        return read_easymocap_capture(source, self.masks, numbers), motion
