"""What sparse convolution and pruning are worth in time; ratios of one run, turn by turn.

Run from the repository's root:  python -m benchmarks.neural_body_speed
The tower is the paper's (code width 16, levels 32, 64, 128, 128) on one frame of the drawn person; its dense twin does
the same convolutions over the whole grid and masks them. Pruning and frames are those of neural-body-tiny, untrained
but made opaque near the body, which is where a trained one is. Times are the processor's, summed over its threads;
memory is what autograd keeps for the backward pass, parameters aside.
"""

import argparse
import copy
import time
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import torch
import torch.nn.functional as F
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from benchmarks._harness import Row, interleaved_seconds, kept_megabytes, write_rows
from dataparsers.procedural_human import ProceduralHumanDataParserConfig
from method_configs.neural_body import neural_body_tiny
from nerfstudio_ext.human.body_grid import BodyFrames
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.sparse_conv import SparseConv, SparseTables, SparseTower, build_tables, scatter_mean
from nerfstudio_ext.models.neural_body import NeuralBodyModel

CHANNELS = (32, 64, 128, 128)
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


def tower_rows(voxel: float, motion: BodyMotion, repeats: int) -> List[Row]:
    """Time and memory of the tower on one frame, sparse and dense, and what its tables take."""
    frame = BodyFrames(motion, voxel, 0.05, 2)[0]
    coords = frame.voxels(motion.vertices[0]).round().long()
    # The finest grid, which frames do not keep.
    shape = tuple(2 * (n - 2) for n in frame.tables.rows[1].shape)
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
    held = sum(x.nbytes for x in (*tables.same, *tables.down, *tables.rows)) / 1e6
    name, gated = f"{1000 * voxel:.0f}mm", voxel == 0.01
    gain = seconds["dense"] / seconds["sparse"]
    prefix = "neural-body/speed"

    def pair(what: str, text: str, one: float, other: Optional[float], unit: str) -> Row:
        other = None if other is None else round(other, 3)
        return Row(f"{prefix}/{what}-{name}", text, round(one, 3), other, unit, None, repeats, None, None)

    return [
        Row(f"{prefix}/tower-{name}", f"tower forward and backward at {name}, sparse against dense", round(gain, 1),
            1.0, "times", None, repeats, ">= 10 times" if gated else None, bool(gain >= 10) if gated else None),
        pair("tower-seconds", f"tower forward and backward at {name}, processor seconds; baseline: dense",
             seconds["sparse"], seconds["dense"], "s"),
        pair("tower-forward", f"tower forward alone at {name}, processor seconds; baseline: dense",
             seconds["sparse forward"], seconds["dense forward"], "s"),
        pair("tower-memory", f"kept for the backward pass at {name}; baseline: dense", *memory, "MB"),
        pair("tables", f"tables of one frame at {name}", held, None, "MB"),
        Row(f"{prefix}/sites-{name}", f"sites of the finest level at {name}; baseline: voxels of its grid",
            tables.counts[0], int(np.prod(shape)), "", None, 1, None, None),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--voxels", type=float, nargs="+", default=[0.005, 0.01, 0.02], help="metres")
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    outputs = ProceduralHumanDataParserConfig().setup().get_dataparser_outputs("val")
    motion = outputs.metadata["body_motion"]
    rows = []
    for voxel in arguments.voxels:
        rows += tower_rows(voxel, motion, arguments.repeats)
        print(rows[-6].what, rows[-6].value, flush=True)

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
    print(write_rows("neural_body_speed", rows))


if __name__ == "__main__":
    main()
