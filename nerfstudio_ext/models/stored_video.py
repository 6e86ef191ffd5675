"""A video as a .bnrv file: written from a trained model, read without one (format: docs/formats/bnrv.md)."""

import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.fields.boosting_nerv_field import BoostingNeRVField
from nerfstudio_ext.fields.stored_field import Description, describe, read_description
from nerfstudio_ext.models.boosting_nerv import BoostingNeRVModel
from nerfstudio_ext.video.bitstream.coder import decode, encode, fit
from nerfstudio_ext.video.bitstream.container import Packed, Table, pack, read_table, unpack
from nerfstudio_ext.video.frames import ClipInfo, FrameStore

MAX_FILE_BYTES = 2**31
"""Largest file that is read."""


class StoredVideo:
    """Frames of a .bnrv file, each decoded when asked for; needs neither the run nor the source.

    `len(video)`, `video[k]` (uint8 [height, width, 3] RGB), `video.fps`, and iteration over frames.

    Args:
        data: Contents of the file.
        name: What to call it in messages.
        device: Where to decode.

    Raises:
        InputError: It is no such file, or a damaged or impossible one.
    """

    def __init__(self, data: bytes, name: str = "the data", device: Union[str, torch.device] = "cpu") -> None:
        try:
            packed = unpack(data)
            description = read_description(packed.header, packed.num_bytes)
            field = self._read_network(description, packed)
        except InputError as error:
            if "pip install" in str(error):
                raise
            raise InputError(f"{name} is no readable .bnrv video: {error}.") from None
        self.clip: ClipInfo = description.clip
        self.header = packed.header
        self.num_bytes = packed.num_bytes
        self.payload_bytes = 4 * len(packed.words)
        self.device = torch.device(device)
        # As in training: these run faster with channels innermost.
        self.field = field.to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.clip.fps

    @property
    def bpp(self) -> float:
        """Bits of the whole file per pixel."""
        return 8 * self.num_bytes / (self.clip.num_frames * self.clip.height * self.clip.width)

    def __len__(self) -> int:
        return self.clip.num_frames

    def __getitem__(self, k: int) -> UInt8[np.ndarray, "height width 3"]:
        """Frame k alone.

        Raises:
            IndexError: There is no such frame.
        """
        frame = self.decode(k).permute(1, 2, 0)
        return torch.round(frame * 255).to(torch.uint8).cpu().numpy()

    @torch.no_grad()
    def decode(self, k: int) -> Float[Tensor, "3 height width"]:
        """Frame k in [0, 1], on the device."""
        if not 0 <= k < len(self):
            raise IndexError(f"Frame {k} is not one of the video's frames 0 to {len(self) - 1}.")
        embedding = None
        if self._embedding_codes:
            codes = torch.from_numpy(self._embedding_codes[k]).to(self.device).float()
            embedding = (codes * self._table.embedding_scale + self._table.embedding_offset)[None]
        return self.field(torch.tensor([k], device=self.device), embedding)[0]

    def codes(self) -> List[np.ndarray]:
        """Integer codes as they lie in the file: the decoder's tensors, then the frames' embeddings."""
        return [*self._decoder_codes, *self._embedding_codes]

    def _read_network(self, description: Description, packed: Packed) -> BoostingNeRVField:
        """Decode the words into the network's parameters and the embeddings' codes."""
        sizes = [tensor.numel() for tensor in description.sketch.decoder_parameters().values()]
        num_tensors, shape = len(sizes), description.sketch.embedding_shape
        num_embedded = 0 if shape is None else description.clip.num_frames
        self._table: Table = read_table(packed, num_tensors, num_embedded)
        codes = decode(packed.words, self._table.distributions, sizes + [int(np.prod(shape or 0))] * num_embedded)
        self._decoder_codes = codes[:num_tensors]
        self._embedding_codes = [part.reshape(shape or ()) for part in codes[num_tensors:]]
        field = description.build()
        for tensor, part, scale in zip(field.decoder_parameters().values(), self._decoder_codes, self._table.scales):
            tensor.data.copy_(torch.from_numpy(part.astype(np.float32) * scale).view(tensor.shape))
        return field


def read_video(path: Path, device: Union[str, torch.device] = "cpu") -> StoredVideo:
    """Open a .bnrv file.

    Raises:
        InputError: There is no such file, or it is no readable video.
    """
    try:
        size = os.path.getsize(path)
        if size > MAX_FILE_BYTES:
            raise InputError(f"{path} is larger than any .bnrv video ({MAX_FILE_BYTES} bytes).")
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a .bnrv file.") from None
    return StoredVideo(data, str(path), device)


def clip_psnr(video: StoredVideo, frames: FrameStore) -> float:
    """PSNR in dB of the decoded 8-bit frames against the source's, averaged over frames."""
    values = []
    for k in range(len(video)):
        error = np.square(video[k].astype(np.float64) - frames[k]).mean() / 255**2
        values.append(-10 * np.log10(error + 1e-9))
    return float(np.mean(values))


@torch.no_grad()
def encode_model(model: BoostingNeRVModel, method: str, bits: Optional[int] = None) -> bytes:
    """The file of a trained model.

    Args:
        model: A model whose embeddings are up to date, as after loading a checkpoint.
        method: Name of its preset.
        bits: Bits to which the numbers of an uncompressed model are quantised, tensor by tensor over its range; a
            compressed model brings its own codes.

    Raises:
        InputError: The model needs bits or must not have them, or its codes do not fit the format.
    """
    if (model.quantizer is None) == (bits is None):
        raise InputError(
            "This run is compressed already: leave out --bits."
            if bits is not None
            else "This run is not compressed: run `ns-ext video compress` first, or give --bits 8 to quantise as it is."
        )
    if bits is not None and not 2 <= bits <= 12:
        raise InputError(f"--bits {bits} must be from 2 to 12.")
    if model.embeddings is not None and model.size_report()["num_embeddings"] < model.embeddings.numel():
        raise InputError(
            "A run of the interpolation task cannot be written as .bnrv: train the clip with all its frames."
        )
    scales, embedding, codes = _codes(model) if bits is None else _quantise(model, bits)
    distributions = fit(codes)
    table = Table(scales, *embedding, distributions)
    clip: ClipInfo = model.frames.info
    header: Dict[str, Any] = describe(clip, model.field, model.width, method)
    return pack(header, table, encode(codes, distributions))


Numbers = Tuple[np.ndarray, Tuple[float, float], List[np.ndarray]]


def _codes(model: BoostingNeRVModel) -> Numbers:
    """Scales, the embeddings' scale and offset, and the codes of a compressed model."""
    quantizer = model.quantizer
    assert quantizer is not None
    sizes = [tensor.numel() for tensor in model.field.decoder_parameters().values()]
    codes = [_integers(part) for part in model.quantized_decoder().codes.split(sizes)]
    embedding = (1.0, 0.0)
    if model.embeddings is not None:
        assert quantizer.embeddings is not None
        embedding = (float(quantizer.embeddings.log_scale.exp()), float(quantizer.embeddings.offset))
        codes += [_integers(frame) for frame in quantizer.stored_embeddings(model.embeddings)[1]]
    return quantizer.decoder.scales().detach().cpu().numpy(), embedding, codes


def _quantise(model: BoostingNeRVModel, bits: int) -> Numbers:
    """The same for an uncompressed model, by even steps over each tensor's range (post-training quantisation)."""
    levels = 2**bits - 1
    scales, codes = [], []
    for tensor in model.field.decoder_parameters().values():
        low, high = float(tensor.min()), float(tensor.max())
        scales.append(max((high - low if high > low else 2 * abs(high)), 1e-6) / levels)
        codes.append(_integers(torch.round(tensor / float(np.float32(scales[-1])))))
    embedding = (1.0, 0.0)
    if model.embeddings is not None:
        low, high = float(model.embeddings.min()), float(model.embeddings.max())
        step = float(np.float32(max(high - low, 1e-6) / levels))
        embedding = (step, float(np.float32(low)))
        codes += [_integers(frame) for frame in torch.round((model.embeddings - embedding[1]) / step)]
    return np.array(scales, np.float32), embedding, codes


def _integers(codes: Tensor) -> np.ndarray:
    return codes.detach().cpu().reshape(-1).double().numpy().round().astype(np.int64)
