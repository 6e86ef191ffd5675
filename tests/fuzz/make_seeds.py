"""Writes the seeds of the fuzzer and what they decode to: one tiny file per kind of network, one of a pruned network,
and one that lacks every other frame.  python -m tests.fuzz.make_seeds"""

from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import torch

from dataparsers.video_frames import VideoDataParserConfig
from nerfstudio_ext.data.video import VideoDataset
from nerfstudio_ext.models.stored_video import StoredVideo, encode_model
from nerfstudio_ext.video.pruning import PruningConfig
from tests.models.test_boosting_nerv import small_model
from tests.reference.plain_nerv import KINDS

CORPUS = Path(__file__).with_name("corpus")
NARROW = dict(
    condition_hidden=2, condition_width=2, stem_hidden=2, token_width=4, embedding_channels=2, num_frequencies=3,
    lower_width=4, late_stage_blocks=1,
)  # fmt: skip


def write_seed(name: str, kind: str, task: Any = "representation", pruning: Optional[PruningConfig] = None) -> Any:
    """One file of an untrained network; returns what it decodes to."""
    parser = VideoDataParserConfig(procedural_frames=3, procedural_size=(14, 9), task=task)
    dataset = VideoDataset(parser.setup().get_dataparser_outputs("train"))
    config = small_model(kind, dataset).config
    for field, value in NARROW.items():
        setattr(config.field, field, value)
    config.width, config.strides, config.pruning = 4, (2, 2), pruning
    model = config.setup(
        scene_box=dataset.scene_box, num_train_data=3, metadata=dataset.metadata, device="cpu", grad_scaler=None
    )
    if pruning is not None:
        model.start_pruning(model.state_dict())
    model._embeddings_stale = True
    model.eval().prepare_eval()
    path = CORPUS / f"{name}.bnrv"
    path.write_bytes(encode_model(model, f"{kind}-tiny", 4))
    video = StoredVideo(path.read_bytes())
    print(path.name, path.stat().st_size)
    return {
        "codes": np.concatenate([codes.reshape(-1) for codes in video.codes()]),
        "frames": np.stack(list(video.stream(1))),
    }


def main() -> None:
    torch.manual_seed(0)
    golden: Dict[str, Any] = {kind: write_seed(kind, kind) for kind in KINDS}
    golden["interpolated"] = write_seed("interpolated", "hnerv-boost", task="interpolation")
    golden["pruned"] = write_seed("pruned", "nerv", pruning=PruningConfig(0.2))
    arrays = {f"{name}/{part}": array for name, parts in golden.items() for part, array in parts.items()}
    np.savez_compressed(CORPUS / "decoded.npz", **arrays)


if __name__ == "__main__":
    main()
