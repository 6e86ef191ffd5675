"""Checkpoints of Neural Body's published code (`latest.pth`), in the names of our field.

The file is a dict whose ``net`` holds ``c.weight`` (codes), ``latent.weight``, the tower ``xyzc_net.convK`` and
``xyzc_net.downK`` with a batch norm behind each convolution, and linear layers as ``[out, in, 1]``. Convolutions lie as
[kz, ky, kx, in, out] when they were trained with spconv 1.x, the release's, and as [out, kz, ky, kx, in] with 2.x. Both
are cross-correlations, offsets in z, y, x order.
"""

from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Tuple

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.fields.neural_body_field import NeuralBodyField, NeuralBodyFieldConfig

LINEAR = {
    "fc_0": "trunk.0",
    "fc_1": "trunk.2",
    "fc_2": "trunk.4",
    "alpha_fc": "density_head",
    "feature_fc": "feature_head",
    "latent_fc": "latent_head",
    "view_fc": "view_head",
    "rgb_fc": "colour_head",
}
REPEATS = (2, 3, 3, 3)
"""Convolutions of the levels 1/2 to 1/16."""
NORM = ("weight", "bias", "running_mean", "running_var")


def read_official(path: Path) -> Tuple[NeuralBodyField, List[str]]:
    """The trained field, and the names in the file that it has no use for.

    Only numbers are read, with torch's safe loader.

    Raises:
        InputError: The file is missing, wants more than numbers, lacks a part, or has other sizes than the paper's.
    """
    if not path.is_file():
        raise InputError(f"There is no {path}: its makers publish a latest.pth for each sequence.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as numbers alone ({str(error).splitlines()[0]}): where it was made, save its "
            "network alone, torch.save({'net': checkpoint['net']}, ...)."
        ) from error
    net = content.get("net") if isinstance(content, dict) else None
    if not isinstance(net, dict) or not all(isinstance(value, Tensor) for value in net.values()):
        raise InputError(f"{path} is no checkpoint of Neural Body's published code: it has no 'net' with its weights.")
    state, missing = _renamed(net)
    if missing:
        first = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
        raise InputError(f"{path} lacks {first}: it is no checkpoint of Neural Body's published code.")
    field: NeuralBodyField = NeuralBodyFieldConfig(level_mapping="official").setup(
        num_vertices=len(state["codes"]), num_frames=len(state["latents"])
    )
    try:
        field.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t")[1:2])
        raise InputError(f"{path} has other sizes than the published network ({reason}).") from error
    known = {"c.weight", "latent.weight", *(f"{name}.{kind}" for name in LINEAR for kind in ("weight", "bias"))}
    known |= {f"{conv}.weight" for conv, _, _ in _tower()}
    known |= {f"{norm}.{kind}" for _, norm, _ in _tower() for kind in (*NORM, "num_batches_tracked")}
    return field, sorted(net.keys() - known)


def _tower() -> Iterator[Tuple[str, str, str]]:
    """Their names of each convolution and its normalisation, and ours of the layer."""
    for k in range(2):
        yield f"xyzc_net.conv0.{3 * k}", f"xyzc_net.conv0.{3 * k + 1}", f"tower.first.{k}"
    for level, times in enumerate(REPEATS):
        yield f"xyzc_net.down{level}.0", f"xyzc_net.down{level}.1", f"tower.down.{level}"
        for k in range(times):
            theirs = f"xyzc_net.conv{level + 1}."
            yield f"{theirs}{3 * k}", f"{theirs}{3 * k + 1}", f"tower.same.{level}.{k}"


def _renamed(net: Mapping[str, Tensor]) -> Tuple[Dict[str, Tensor], List[str]]:
    """Our field's state, and what is missing for it."""
    state: Dict[str, Tensor] = {}
    missing: List[str] = []

    def take(theirs: str, ours: str) -> None:
        if theirs in net:
            state[ours] = net[theirs].float()
        else:
            missing.append(theirs)

    take("c.weight", "codes")
    take("latent.weight", "latents")
    for theirs, ours in LINEAR.items():
        take(f"{theirs}.weight", f"{ours}.weight")
        take(f"{theirs}.bias", f"{ours}.bias")
        if f"{ours}.weight" in state:
            state[f"{ours}.weight"] = state[f"{ours}.weight"].flatten(1)
    for conv, norm, ours in _tower():
        take(f"{conv}.weight", f"{ours}.weight")
        if f"{ours}.weight" in state:
            state[f"{ours}.weight"] = _rows(state[f"{ours}.weight"])
        for kind in NORM:
            take(f"{norm}.{kind}", f"{ours}.norm.{kind}")
        state[f"{ours}.norm.num_batches_tracked"] = torch.tensor(0)  # of no use with a fixed momentum
    return state, missing


def _rows(weight: Float[Tensor, "a b c d e"]) -> Float[Tensor, "taps_in out"]:
    """A kernel of either layout as ours, [27 in, out]."""
    if weight.ndim == 5 and weight.shape[1:4] == (3, 3, 3) and weight.shape[0] != 3:
        weight = weight.permute(1, 2, 3, 4, 0)
    return weight.reshape(-1, weight.shape[-1])
