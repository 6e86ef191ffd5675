"""Writes the seeds of the fuzzer: one tiny file per kind of network.  python -m tests.fuzz.make_seeds"""

from pathlib import Path

import torch

from dataparsers.video_frames import VideoDataParserConfig
from nerfstudio_ext.data.video import VideoDataset
from nerfstudio_ext.models.stored_video import encode_model
from tests.models.test_boosting_nerv import small_model
from tests.reference.plain_nerv import KINDS

CORPUS = Path(__file__).with_name("corpus")
NARROW = dict(
    condition_hidden=2, condition_width=2, stem_hidden=2, token_width=4, embedding_channels=2, num_frequencies=3,
    lower_width=4, late_stage_blocks=1,
)  # fmt: skip


def main() -> None:
    torch.manual_seed(0)
    parser = VideoDataParserConfig(procedural_frames=3, procedural_size=(14, 9))
    dataset = VideoDataset(parser.setup().get_dataparser_outputs("train"))
    for kind in KINDS:
        config = small_model(kind, dataset).config
        for name, value in NARROW.items():
            setattr(config.field, name, value)
        config.width, config.strides = 4, (2, 2)
        model = config.setup(
            scene_box=dataset.scene_box, num_train_data=3, metadata=dataset.metadata, device="cpu", grad_scaler=None
        )
        model._embeddings_stale = True
        model.eval().prepare_eval()
        path = CORPUS / f"{kind}.bnrv"
        path.write_bytes(encode_model(model, f"{kind}-tiny", 4))
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
