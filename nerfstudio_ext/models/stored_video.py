"""A video as a .bnrv file: written from a trained model, read without one (format: docs/formats/bnrv.md)."""

import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.metrics import psnr_8bit
from nerfstudio_ext.engine.packages import MissingPackageError
from nerfstudio_ext.fields.stored_field import Description, describe, read_description
from nerfstudio_ext.models.boosting_nerv import SMOOTH_BASE, BoostingNeRVModel
from nerfstudio_ext.video.bitstream.coder import decode, encode, fit
from nerfstudio_ext.video.bitstream.container import Packed, Table, pack, read_table, unpack
from nerfstudio_ext.video.bitstream.prediction import restore
from nerfstudio_ext.video.frames import ClipInfo, FrameStore
from nerfstudio_ext.video.quantization import StoredNumbers, even_step, integers

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
            self._table, self._decoder_codes, self._embedding_codes = read_numbers(packed, description)
        except MissingPackageError:
            raise
        except InputError as error:
            raise InputError(f"{name} is no readable .bnrv video: {error}.") from None
        self.clip: ClipInfo = description.clip
        self.header = {**packed.header, "method": description.method}
        self.num_bytes = packed.num_bytes
        self.payload_bytes = 4 * len(packed.words)
        self.device = torch.device(device)
        field = description.build()
        for tensor, part, scale in zip(field.decoder_parameters().values(), self._decoder_codes, self._table.scales):
            tensor.data.copy_(torch.from_numpy(part.astype(np.float32) * scale).view(tensor.shape))
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
        return as_picture(self.decode(k))

    @torch.no_grad()
    def decode(self, k: int) -> Float[Tensor, "3 height width"]:
        """Frame k in [0, 1], on the device."""
        if not 0 <= k < len(self):
            raise IndexError(f"Frame {k} is not one of the video's frames 0 to {len(self) - 1}.")
        return self._picture(k, self._embedding(k))

    @property
    def between_frames(self) -> bool:
        """Whether times between frames make sense: only slowly varying time codes mean anything there."""
        return len(self) > 1 and self.field.config.frequency_base <= SMOOTH_BASE

    @torch.no_grad()
    def decode_between(self, position: float) -> Float[Tensor, "3 height width"]:
        """A picture between two frames, in [0, 1], on the device.

        Args:
            position: Place in the video, in frames from 0.
        """
        before = min(int(position), len(self) - 2)
        code = self.field.time_code_between(Fraction(position).limit_denominator(1000), len(self))
        first, second = self._embedding(before), self._embedding(before + 1)
        mixed = None if first is None or second is None else torch.lerp(first, second, position - before)
        return self._picture(before, mixed, code)

    def _picture(self, k: int, embedding: Optional[Tensor], code: Optional[Tensor] = None) -> Tensor:
        """What the network makes of frame k, or of another time code; never in TF32, which GPUs' convolutions would
        otherwise round to: ten bits."""
        index = torch.tensor([k], device=self.device)
        if self.device.type != "cuda":
            return self.field(index, embedding, code)[0]
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self.field(index, embedding, code)[0]

    def _embedding(self, k: int) -> Optional[Tensor]:
        """Embedding of frame k, [1, channels, grid height, grid width]; none where frames have none."""
        if not self._embedding_codes:
            return None
        # Where only even frames have one, an odd frame takes the mean of its neighbours'.
        places = {k // 2, (k + 1) // 2} if self.header["task"] == "interpolation" else {k}
        codes = np.mean([self._embedding_codes[place] for place in places], axis=0, dtype=np.float64)
        numbers = torch.from_numpy(codes.astype(np.float32)).to(self.device)
        return (numbers * self._table.embedding_scale + self._table.embedding_offset)[None]

    def stream(self, workers: int = 2) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """All frames in order, several decoded at once: layers this small gain little from a second thread, and nearly
        twofold from a second frame. On other devices than the CPU one after the other.

        Args:
            workers: Frames decoded at once, each by one thread.
        """
        if self.device.type != "cpu" or workers < 2:
            yield from (self[k] for k in range(len(self)))
            return
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                ahead = deque(pool.submit(self.__getitem__, k) for k in range(min(2 * workers, len(self))))
                for k in range(len(self)):
                    frame = ahead.popleft().result()
                    if k + 2 * workers < len(self):
                        ahead.append(pool.submit(self.__getitem__, k + 2 * workers))
                    yield frame
            finally:
                # What the workers set for themselves holds for every thread that is born later, too.
                torch.set_num_threads(threads)

    def codes(self) -> List[np.ndarray]:
        """Integer codes: the decoder's tensors, then the frames' embeddings (in the file, as differences)."""
        return [*self._decoder_codes, *self._embedding_codes]


def read_numbers(packed: Packed, description: Description) -> Tuple[Table, List[np.ndarray], List[np.ndarray]]:
    """The numbers of a file: its table, the codes of the decoder's tensors, and those of the frames' embeddings.

    Raises:
        InputError: They are not those of the network that the header describes.
    """
    sizes = [tensor.numel() for tensor in description.sketch.decoder_parameters().values()]
    num_tensors, shape = len(sizes), description.sketch.embedding_shape
    num_embedded = description.num_embedded
    table = read_table(packed, num_tensors, num_embedded, shape[0] if shape else 0)
    codes = decode(packed.words, table.distributions, sizes + [math.prod(shape or (0,))] * num_embedded)
    if shape is None:
        return table, codes, []
    return table, codes[:num_tensors], restore([part.reshape(shape) for part in codes[num_tensors:]], table.prediction)


def as_picture(frame: Float[Tensor, "3 height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """A frame in [0, 1] in 8 bits."""
    return torch.round(frame.permute(1, 2, 0) * 255).to(torch.uint8).cpu().numpy()


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
    return float(np.mean([psnr_8bit(video[k], frames[k]) for k in range(len(video))]))


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
    numbers = model.stored_numbers() if bits is None else _quantise(model, bits)
    segments, prediction = numbers.segments()
    distributions = fit(segments)
    table = Table(numbers.scales, *numbers.embedding, prediction, distributions)
    clip: ClipInfo = model.frames.info
    task = "interpolation" if model.interpolates else "representation"
    header: Dict[str, Any] = describe(clip, model.field, model.width, method, task)
    return pack(header, table, encode(segments, distributions))


def _quantise(model: BoostingNeRVModel, bits: int) -> StoredNumbers:
    """Of an uncompressed model, by even steps over each tensor's range (post-training quantisation)."""
    levels = 2**bits - 1
    scales, tensors = [], []
    for tensor in model.field.decoder_parameters().values():
        scales.append(even_step(tensor, levels))
        tensors.append(integers(torch.round(tensor / float(np.float32(scales[-1])))).reshape(-1))
    embedding, known = (1.0, 0.0), model.known_embeddings()
    if known is not None:
        embedding = float(np.float32(even_step(known, levels))), float(np.float32(known.min()))
        known = torch.round((known - embedding[1]) / embedding[0])
    return StoredNumbers(np.array(scales, np.float32), tensors, embedding, known)
