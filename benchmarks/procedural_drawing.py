"""How long the drawn objects take: 40 views of 128 by 128 pixels with masks, depth and normals, nothing kept before.

Run from the repository's root:  python -m benchmarks.procedural_drawing [--threads 1]
"""

import argparse
import os
import tempfile
import time

import torch

from benchmarks._harness import Row, write_rows
from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions
from nerfstudio_ext.procedural.objects import OBJECTS

MOST_SECONDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--views", type=int, default=40)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in OBJECTS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["NERFSTUDIO_EXT_CACHE"] = folder
            start = time.process_time()
            scene = ObjectScene(ObjectSceneOptions(name, options.views, options.size))
            for index in range(options.views):
                scene.view(index)
            seconds = time.process_time() - start
        what = f"drawing {name}, {options.views} views of {options.size}x{options.size}, processor seconds"
        passed = seconds < MOST_SECONDS
        rows.append(
            Row("procedural/drawing", what, round(seconds, 1), None, "s", None, 1, f"< {MOST_SECONDS} s", passed)
        )
        print(name, round(seconds, 1), flush=True)
    print(write_rows("procedural_drawing", rows))


if __name__ == "__main__":
    main()
