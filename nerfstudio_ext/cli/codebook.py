"""`ns-ext codebook ...`: make, convert and look at tables of code vectors."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Optional

import tyro


@dataclass
class LearnOptionsFlags:
    """Size of the table and how it is learned."""

    codes: int = 1024
    """Code vectors."""
    width: int = 64
    """Numbers in each."""
    seed: int = 0
    """Decides which parts of the pictures are drawn, and where learning starts."""


@dataclass
class Learn:
    """Learn a codebook from pictures (none given: random solids that the suite draws) and say how good it is."""

    output: Annotated[Path, tyro.conf.Positional]
    """File to write, .safetensors."""
    images: Optional[Path] = None
    """Folder of pictures to learn from."""
    route: Literal["patches", "autoencoder"] = "patches"
    """patches (k-means over small patches: quick, and the same file on every machine) or autoencoder (what pictures
    can be rebuilt from, as image tokenizers learn it: some minutes)."""
    steps: int = 4000
    """Training steps of the autoencoder."""
    options: Annotated[LearnOptionsFlags, tyro.conf.arg(name="")] = field(default_factory=LearnOptionsFlags)
    """Size of the table and how it is learned."""

    def main(self) -> None:
        import dataclasses
        import shlex

        import numpy as np
        import torch
        from nerfstudio.utils.rich_utils import CONSOLE

        from dataparsers._common import read_pixels
        from nerfstudio_ext.codebook.autoencoder import AutoencoderOptions, learn_by_autoencoder
        from nerfstudio_ext.codebook.learn import LearnOptions, below_gate, learn_codebook
        from nerfstudio_ext.codebook.table import write_codebook
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.procedural.pictures import procedural_pictures

        if self.output.suffix != ".safetensors":
            raise InputError(f"A codebook is written as .safetensors, so {self.output.name} needs that ending.")
        if self.images is None:
            pictures = procedural_pictures()
            size = "x".join(map(str, pictures[0].shape[:2]))
            source = f"{len(pictures)} random solids of {size} pixels, drawn by the suite; none is a test object"
        else:
            endings = (".png", ".jpg", ".jpeg")
            paths = sorted(p for p in self.images.glob("*") if p.suffix.lower() in endings)
            if not paths:
                raise InputError(
                    f"{self.images} holds no pictures ({', '.join(endings)}): name the folder they are in."
                )
            pictures = [torch.from_numpy(read_pixels(path, "RGB").astype(np.float32) / 255) for path in paths]
            source = f"{len(paths)} pictures"
        settings = dataclasses.asdict(self.options)
        if self.route == "patches":
            learned = learn_codebook(pictures, LearnOptions(**settings))
        else:
            learned = learn_by_autoencoder(pictures, AutoencoderOptions(steps=self.steps, **settings))
            settings["steps"] = self.steps
        given = {} if self.images is None else {"images": shlex.quote(str(self.images))}
        flags = " ".join(f"--{key} {value}" for key, value in {**given, "route": self.route, **settings}.items())
        faults = below_gate(learned.report)
        report = {key: f"{value:.4f}" for key, value in learned.report.items()}
        metadata = {"command": f"ns-ext codebook learn {flags}", "pictures": source, **report}
        if faults:
            metadata["below_gate"] = "; ".join(faults)
        write_codebook(learned.table, self.output, metadata)
        for key, value in metadata.items():
            print(f"{key}: {value}")
        if faults:
            CONSOLE.print(
                "This table is below the gate that the shipped one passed, and hardly a prior: give more pictures, or "
                "ask for fewer codes.",
                style="bold yellow",
                soft_wrap=True,
            )


@dataclass
class Load:
    """Cut the code vectors out of a checkpoint and write them as a small file of their own."""

    source: Annotated[Path, tyro.conf.Positional]
    """Checkpoint or table: .ckpt, .pt, .pth, .bin, .safetensors, .msgpack, .npy or .npz."""
    output: Annotated[Path, tyro.conf.Positional]
    """File to write, .safetensors, half precision."""
    prune: bool = False
    """Drop code vectors that training never used."""
    allow_pickle: bool = False
    """Let the checkpoint run the code it may contain."""

    def main(self) -> None:
        from nerfstudio_ext.codebook.table import load_codebook, prune_dead, write_codebook
        from nerfstudio_ext.engine.errors import InputError

        if self.output.suffix != ".safetensors":
            raise InputError(f"A codebook is written as .safetensors, so {self.output.name} needs that ending.")
        table = load_codebook(self.source, self.allow_pickle)
        table = prune_dead(table) if self.prune else table
        write_codebook(table, self.output, {"source": self.source.name})
        print(f"{len(table)} codes of width {table.shape[1]}: {self.output}")


@dataclass
class Inspect:
    """Say how large a codebook is, how much of it is alive, and draw the histogram of its norms."""

    source: Annotated[Path, tyro.conf.Positional] = Path("default")
    """File, or the word default."""
    histogram: Optional[Path] = None
    """PNG to write."""
    allow_pickle: bool = False
    """Let the checkpoint run the code it may contain."""

    def main(self) -> None:
        from nerfstudio_ext.codebook.table import (
            DEFAULT_CODEBOOK,
            dead_codes,
            effective_rank,
            load_codebook,
        )
        from nerfstudio_ext.engine.weights import read_safetensors

        path = DEFAULT_CODEBOOK if self.source == Path("default") else self.source
        table = load_codebook(path, self.allow_pickle)
        norms = table.norm(dim=1)
        print(f"{len(table)} codes of width {table.shape[1]}, {int(dead_codes(table).sum())} of them dead")
        print(f"norms {float(norms.min()):.3g} to {float(norms.max()):.3g}, median {float(norms.median()):.3g}")
        print(f"effective rank {effective_rank(table):.1f} of {table.shape[1]}")
        if path.suffix == ".safetensors":
            for key, value in read_safetensors(path)[1].items():
                print(f"{key}: {value}")
        if self.histogram is not None:
            _draw_histogram(norms.tolist(), self.histogram)
            print(f"histogram of norms: {self.histogram}")


def _draw_histogram(values: list, path: Path) -> None:
    """Bars on white, 480x240 pixels, smallest value left."""
    import numpy as np
    from PIL import Image, ImageDraw

    counts, edges = np.histogram(values, bins=48)
    picture = Image.new("RGB", (480, 240), "white")
    draw = ImageDraw.Draw(picture)
    for k, count in enumerate(counts):
        height = 200 * count / max(1, counts.max())
        draw.rectangle([k * 10 + 1, 215 - height, k * 10 + 8, 215], fill=(60, 90, 160))
    draw.text((4, 222), f"{edges[0]:.3g}", fill="black")
    draw.text((436, 222), f"{edges[-1]:.3g}", fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
