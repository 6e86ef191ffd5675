"""What keeping the prototypes and looking coarsely first are worth in time; ratios of one run, turn by turn.

Run from the repository's root:  python -m benchmarks.coco_inr_speed
The step is that of coco-inr-tiny with a codebook of the paper's size, 16384 x 256.
"""

import argparse
import copy

import numpy as np
import torch
from nerfstudio.data.scene_box import SceneBox

from benchmarks._harness import Row, interleaved_seconds, timed, write_rows
from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from method_configs.coco_inr import coco_inr_tiny
from nerfstudio_ext.codebook.attention import CodebookAttention
from nerfstudio_ext.surface.isosurface import extract_mesh

CODES, WIDTH = 16384, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--resolution", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    config = copy.deepcopy(coco_inr_tiny.config.pipeline.model)
    model = config.setup(scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=1, metadata={}, device="cpu").train()
    field = model.field
    field.codebook = torch.randn(CODES, WIDTH)
    for name in list(field.prototypes):
        c = config.field
        field.prototypes[name] = CodebookAttention(
            WIDTH, c.num_prototypes, c.prototype_width, c.heads, c.head_width, c.depth
        )
    outputs = ProceduralObjectDataParserConfig(size=32).setup().get_dataparser_outputs("train")
    bundle = outputs.cameras.generate_rays(camera_indices=0).flatten()[torch.randperm(1024)[:256]]
    batch = {"image": torch.rand(256, 3)}
    kept_evaluation = field.sdf_and_feature

    def anew(x, context):
        """As the published code: the prototypes are worked out in every evaluation of the distance."""
        reader, prototypes = field.readers["sdf"], field.prototypes["sdf"]
        return kept_evaluation(x, {**context, "sdf": reader.keys_values(prototypes(field.codebook))})

    def step(evaluation) -> None:
        field.sdf_and_feature = evaluation
        sum(model.get_loss_dict(model.get_outputs(bundle), batch).values()).backward()
        model.zero_grad(set_to_none=True)

    times = interleaved_seconds(
        {"once": timed(lambda: step(kept_evaluation)), "anew": timed(lambda: step(anew))},
        arguments.repeats,
        warm_up=1,
    )
    field.sdf_and_feature = kept_evaluation
    once, often = (float(np.median(times[name])) for name in ("once", "anew"))

    tiny = coco_inr_tiny.config.pipeline.model.setup(
        scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=1, metadata={}, device="cpu"
    ).eval()
    cpu, resolution = torch.device("cpu"), arguments.resolution
    meshes = {
        "coarse": timed(lambda: extract_mesh(tiny.signed_distance, resolution, 1.5, cpu)),
        "dense": timed(lambda: extract_mesh(tiny.signed_distance, resolution, 1.5, cpu, coarse=False)),
    }
    mesh_times = interleaved_seconds(meshes, 1, warm_up=0)
    coarse, dense = mesh_times["coarse"][0], mesh_times["dense"][0]
    rows = [
        Row("coco-inr/speed/prototypes", f"training step with {CODES} codes, prototypes once against every time",
            round(often / once, 2), 1.0, "times", None, arguments.repeats, ">= 3 times", bool(often / once >= 3)),
        Row("coco-inr/speed/mesh", f"mesh of the initial sphere at {resolution}^3, coarse to fine against dense",
            round(dense / coarse, 2), 1.0, "times", None, 1, ">= 5 times", bool(dense / coarse >= 5)),
    ]  # fmt: skip
    print(write_rows("coco_inr_speed", rows))


if __name__ == "__main__":
    main()
