"""What sparse convolution and pruning are worth in time; ratios of one run, turn by turn.

Run from the repository's root:  python -m benchmarks.neural_body_speed
The tower has the paper's widths (code 16, levels 32, 64, 128, 128) and layer norm, on one frame of the drawn person.
Its dense twin does the same convolutions over the whole grid and masks them; where the package spconv can be imported
(see benchmarks/_spconv_tower.py), a twin there does them, too. With `--only spconv` nothing else is measured, and the
other rows of the file of results stay. Pruning and frames are those of neural-body-tiny, untrained but made opaque near
the body, which is where a trained one is. Times are the processor's, summed over its threads; memory is what autograd
keeps for the backward pass, parameters aside.
"""

import argparse
import copy
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from benchmarks._harness import RESULTS, Row, interleaved_seconds, kept_megabytes, write_rows
from benchmarks._spconv_tower import SpconvTower, finest_sites, in_our_order, installed, on_any_machine
from dataparsers.procedural_human import ProceduralHumanDataParserConfig
from method_configs.neural_body import neural_body_tiny
from nerfstudio_ext.human.body_grid import BodyFrame, BodyFrames
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.sparse_conv import Shape, SparseConv, SparseTables, SparseTower, build_tables, scatter_mean
from nerfstudio_ext.models.neural_body import NeuralBodyModel

CHANNELS = (32, 64, 128, 128)
WIDTHS = "the paper's widths, layer norm"
CHUNK = 1024
"""Rays at once: a picture of the tiny preset's size makes sixteen such chunks."""


def dense_twin(tower: SparseTower, codes: Tensor, tables: SparseTables) -> Tensor:
    """Sum of all levels of the same tower, every convolution over the whole grid and masked."""
    masks = [(rows != count)[None, None, 1:-1, 1:-1, 1:-1].float() for rows, count in zip(tables.rows, tables.counts)]
    means = scatter_mean(codes, tables.site_of_point, tables.counts[0])
    padded = torch.cat([means, means.new_zeros(1, means.shape[1])])
    x = padded[tables.rows[0][1:-1, 1:-1, 1:-1].long()].permute(3, 0, 1, 2)[None]

    def layer(x: Tensor, conv: SparseConv, mask: Tensor, stride: int) -> Tensor:
        weight = conv.weight.view(3, 3, 3, x.shape[1], -1).permute(4, 3, 0, 1, 2)
        y = F.conv3d(x, weight, stride=stride, padding=1)
        norm = conv.norm(y.movedim(1, -1)).movedim(-1, 1)
        return torch.relu(norm) * mask

    for conv in tower.first:
        x = layer(x, conv, masks[0], 1)
    total = x.new_zeros(())
    for level, (down, layers) in enumerate(zip(tower.down, tower.same)):
        x = layer(x, down, masks[level + 1], 2)
        for conv in layers:
            x = layer(x, conv, masks[level + 1], 1)
        total = total + x.sum()
    return total


def processor(action: Callable[[], Any]) -> Callable[[], float]:
    """The action as a function that returns the processor's seconds for it, whatever else the machine does."""

    def run() -> float:
        start = time.process_time()
        action()
        return time.process_time() - start

    return run


@torch.no_grad()
def rebuilding(model: NeuralBodyModel, rays: RayBundle) -> Dict[str, Tensor]:
    """A picture whose every chunk diffuses the codes anew, as a ray bundle that is not known to be one picture does."""
    return super(NeuralBodyModel, model).get_outputs_for_camera_ray_bundle(rays)


def finest(voxel: float, motion: BodyMotion) -> Tuple[BodyFrame, Tensor, Shape]:
    """The first frame's grid, voxels of its vertices, and the shape of the finest grid, which frames do not keep."""
    frame = BodyFrames(motion, voxel, 0.05, 2)[0]
    coords = frame.voxels(motion.vertices[0]).round().long()
    return frame, coords, cast(Shape, tuple(2 * (n - 2) for n in frame.tables.rows[1].shape))


def kept_bytes(frame: BodyFrame) -> int:
    """What stays in memory of a frame's grid and tables."""
    tables = frame.tables
    held = (tables.site_of_point, *tables.same, *tables.down, *tables.rows, frame.near_body)
    return sum(x.nbytes for x in held)


def spconv_rows(voxel: float, motion: BodyMotion, repeats: int) -> List[Row]:
    """Our tower against the same in spconv: the numbers, and the time where both find the neighbours anew."""
    _, coords, shape = finest(voxel, motion)
    codes = torch.randn(len(coords), 16, requires_grad=True)
    tower, tables = SparseTower(16, CHANNELS, "layer"), build_tables(coords, shape)
    twin, sites = SpconvTower(tower), finest_sites(tables)
    with on_any_machine():
        ours = tower(codes, tables)
        theirs = [in_our_order(volume, tables, level + 1) for level, volume in enumerate(twin(codes, tables, sites))]
        apart = [float((a - b).abs().amax().detach()) for a, b in zip(ours, theirs)]
        turned = [torch.autograd.grad(torch.stack([v.square().sum() for v in x]).sum(), codes)[0]
                  for x in (ours, theirs)]  # fmt: skip
        gradients = float((turned[0] - turned[1]).abs().amax() / turned[0].abs().amax())
        del ours, theirs, turned

        def one() -> Tensor:
            return torch.stack([v.sum() for v in tower(codes, build_tables(coords, shape))]).sum()

        def other() -> Tensor:
            return torch.stack([v.features.sum() for v in twin(codes, tables, sites)]).sum()

        actions = {
            "one forward": processor(torch.no_grad()(one)),
            "other forward": processor(torch.no_grad()(other)),
            "one": processor(lambda: one().backward()),
            "other": processor(lambda: other().backward()),
        }
        seconds = {k: round(float(np.median(x)), 3) for k, x in interleaved_seconds(actions, repeats, 1).items()}
    name, prefix = f"{1000 * voxel:.0f}mm", "neural-body/speed/spconv"
    anew = "processor seconds with neighbours found anew; baseline: spconv on the CPU"
    return [
        Row(f"{prefix}-same-{name}", f"largest difference of a tower's features to spconv's at {name}; the baseline is "
            "that of the codes' gradients, over the largest", round(1e6 * max(apart), 2), round(1e6 * gradients, 2),
            "millionths", None, 1, None, None),
        Row(f"{prefix}-forward-{name}", f"tower forward alone at {name}, {anew}", seconds["one forward"],
            seconds["other forward"], "s", None, repeats, None, None),
        Row(f"{prefix}-seconds-{name}", f"tower forward and backward at {name}, {anew}", seconds["one"],
            seconds["other"], "s", None, repeats, None, None),
    ]  # fmt: skip


def tower_rows(voxel: float, motion: BodyMotion, repeats: int) -> List[Row]:
    """Time and memory of the tower on one frame, sparse and dense, and what its tables take."""
    frame, coords, shape = finest(voxel, motion)
    tables = build_tables(coords, shape)
    codes = torch.randn(len(coords), 16, requires_grad=True)
    tower = SparseTower(16, CHANNELS, "layer")

    def sparse() -> Tensor:
        return torch.stack([v.sum() for v in tower(codes, tables)]).sum()

    def dense() -> Tensor:
        return dense_twin(tower, codes, tables)

    ours, theirs = sparse(), dense()
    assert abs(float(ours - theirs)) < 1e-3 * abs(float(theirs)), "the twins must agree"
    del ours, theirs
    actions = {
        "sparse forward": processor(torch.no_grad()(sparse)),
        "dense forward": processor(torch.no_grad()(dense)),
        "sparse": processor(lambda: sparse().backward()),
        "dense": processor(lambda: dense().backward()),
    }
    seconds = {name: float(np.median(x)) for name, x in interleaved_seconds(actions, repeats, warm_up=1).items()}
    memory = [kept_megabytes(action, tower.parameters()) for action in (sparse, dense)]
    name, gated = f"{1000 * voxel:.0f}mm", voxel == 0.01
    gain = seconds["dense"] / seconds["sparse"]
    prefix = "neural-body/speed"

    def pair(what: str, text: str, one: float, other: Optional[float], unit: str) -> Row:
        other = None if other is None else round(other, 3)
        return Row(f"{prefix}/{what}-{name}", text, round(one, 3), other, unit, None, repeats, None, None)

    return [
        Row(f"{prefix}/tower-{name}", f"tower ({WIDTHS}) forward and backward at {name}, sparse against dense",
            round(gain, 1), 1.0, "times", None, repeats, ">= 10 times" if gated else None,
            bool(gain >= 10) if gated else None),
        pair("tower-seconds", f"tower forward and backward at {name}, processor seconds; baseline: dense",
             seconds["sparse"], seconds["dense"], "s"),
        pair("tower-forward", f"tower forward alone at {name}, processor seconds; baseline: dense",
             seconds["sparse forward"], seconds["dense forward"], "s"),
        pair("tower-memory", f"kept for the backward pass at {name}; baseline: dense", *memory, "MB"),
        pair("tables", f"grid and tables kept of one frame at {name}", kept_bytes(frame) / 1e6, None, "MB"),
        Row(f"{prefix}/sites-{name}", f"sites of the finest level at {name}; baseline: voxels of its grid",
            tables.counts[0], int(np.prod(shape)), "", None, 1, None, None),
    ]  # fmt: skip


def kept_rows(name: str, part: str, results: Path = RESULTS) -> List[Row]:
    """Rows of a file of results in whose claim a word occurs; none where there is no file."""
    path = results / f"{name}.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    return [Row(**row) for row in rows if part in row["claim"]]


def add_rows(name: str, rows: List[Row], results: Path = RESULTS) -> Path:
    """Put rows into a file of results, in the place of those of the same claim or behind all."""
    path = results / f"{name}.json"
    content = json.loads(path.read_text())
    found = {row["claim"]: row for row in content["rows"]}
    found.update({row.claim: asdict(row) for row in rows})
    path.write_text(json.dumps({**content, "rows": list(found.values())}, indent=1, allow_nan=False) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--voxels", type=float, nargs="+", default=[0.005, 0.01, 0.02], help="metres")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--only", choices=["spconv"], help="measure these rows alone and keep the others")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    outputs = ProceduralHumanDataParserConfig().setup().get_dataparser_outputs("val")
    motion = outputs.metadata["body_motion"]
    rows = []
    for voxel in arguments.voxels:
        if arguments.only is None:
            rows += tower_rows(voxel, motion, arguments.repeats)
            print(rows[-6].what, rows[-6].value, flush=True)
        if installed():
            rows += spconv_rows(voxel, motion, arguments.repeats)
            print(*(f"{row.what}: {row.value} {row.baseline}" for row in rows[-3:]), sep="\n", flush=True)
    if arguments.only == "spconv":
        if not installed():
            raise SystemExit("spconv cannot be imported: see benchmarks/_spconv_tower.py")
        print(f"{add_rows('neural_body_speed', rows)}: the other rows are as they were")
        return

    def tiny(reach: int):
        config = copy.deepcopy(neural_body_tiny.config.pipeline.model)
        config.reach = reach
        model = config.setup(scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=1,
                             metadata={"body_motion": motion}, device="cpu").eval()  # fmt: skip
        model.field.density_head.bias.data.fill_(60.0)
        return model

    pruned, whole = tiny(neural_body_tiny.config.pipeline.model.reach), tiny(200)
    camera = outputs.cameras[:1]
    large = Cameras(camera.camera_to_worlds, camera.fx * arguments.size / camera.width,
                    camera.fy * arguments.size / camera.height, arguments.size / 2, arguments.size / 2,
                    arguments.size, arguments.size, times=camera.times)  # fmt: skip
    small = copy.deepcopy(camera)
    chunked = tiny(neural_body_tiny.config.pipeline.model.reach)
    chunked.config.eval_num_rays_per_chunk = CHUNK
    rays = small.generate_rays(camera_indices=0, keep_shape=True)
    times = interleaved_seconds(
        {
            "pruned": processor(lambda: pruned.get_outputs_for_camera(small)),
            "whole": processor(lambda: whole.get_outputs_for_camera(small)),
            "large": processor(lambda: pruned.get_outputs_for_camera(large)),
            "kept": processor(lambda: chunked.get_outputs_for_camera_ray_bundle(rays)),
            "rebuilt": processor(lambda: rebuilding(chunked, rays)),
        },
        arguments.repeats,
        warm_up=1,
    )
    seconds = {name: float(np.median(x)) for name, x in times.items()}
    gain, frame_seconds = seconds["whole"] / seconds["pruned"], seconds["large"]
    rows += [
        Row("neural-body/speed/pruning", "rendering the tiny preset, samples near the body against all in its box",
            round(gain, 1), 1.0, "times", None, arguments.repeats, ">= 2 times", bool(gain >= 2)),
        Row("neural-body/speed/frame", f"a {arguments.size}x{arguments.size} picture, tiny preset, processor seconds",
            round(frame_seconds, 2), None, "s", None, arguments.repeats, "< 10 s", frame_seconds < 10),
        Row("neural-body/speed/volumes", f"picture in chunks of {CHUNK} rays, codes diffused once, processor seconds; "
            "baseline: for each chunk", round(seconds["kept"], 3), round(seconds["rebuilt"], 3), "s", None,
            arguments.repeats, None, None),
    ]  # fmt: skip
    if not installed():
        print("spconv cannot be imported (see benchmarks/_spconv_tower.py): its rows stay as they are")
        rows += kept_rows("neural_body_speed", "/spconv-")
    print(write_rows("neural_body_speed", rows))


if __name__ == "__main__":
    main()
