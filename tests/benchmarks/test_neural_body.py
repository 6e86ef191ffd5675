"""What the benchmarks keep of long runs is of the recording and the settings that are asked for."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import _spconv_tower, neural_body_claims, neural_body_real, neural_body_speed
from benchmarks._harness import Row, machine
from nerfstudio_ext.export.video_capture import write_annots
from nerfstudio_ext.human.capture import CaptureCamera
from nerfstudio_ext.human.sparse_conv import SparseTower, build_tables


def recording(folder):
    """One picture of one camera, and a body that nobody opens."""
    for kind in ("", "mask"):
        (folder / kind / "Camera_B1").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "Camera_B1" / "000000.jpg")
    Image.new("L", (8, 8)).save(folder / "mask" / "Camera_B1" / "000000.png")
    calibration = np.array([[9.0, 0, 4], [0, 9, 4], [0, 0, 1]])
    write_annots(folder, [CaptureCamera(calibration, np.zeros(5), np.eye(3), np.array([0, 0, 3.0]))], 1, None)
    (folder / "body.npz").write_bytes(b"one")
    return folder


def test_another_recording_is_trained_on_anew(tmp_path, monkeypatch):
    folder, ran, written = recording(tmp_path / "person"), [], []

    def scores(variant, seed, steps, size, capture, body):
        ran.append(variant)
        return {
            f"{prefix}{name}": len(ran) for prefix in ("", "first_") for name in ("psnr_box", "psnr_masked", "mask_iou")
        }

    monkeypatch.setattr(neural_body_real, "ROOT", tmp_path)
    monkeypatch.setattr(neural_body_real, "run", scores)
    monkeypatch.setattr(neural_body_real, "write_rows", lambda name, rows: written.append(rows))
    arguments = ["x", str(folder), str(folder / "body.npz"), "--seeds", "1"]

    def trained(*more):
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        before = len(ran)
        neural_body_real.main()
        return len(ran) - before

    everything = len(neural_body_real.VARIANTS)
    assert trained() == everything and trained() == 0 and written[0] and written[1] == written[0]
    (folder / "body.npz").write_bytes(b"two")
    assert trained("--rows-only") == 0 and not written[-1], "runs of another body are none of this one"
    assert trained() == everything
    Image.new("L", (8, 8), 255).save(folder / "mask" / "Camera_B1" / "000000.png")
    assert trained() == everything and trained() == 0


def test_claims_keep_runs_from_before_the_preset_was_noted(tmp_path, monkeypatch):
    """Settings that came later do not make a run old; a preset that was noted and is another now does."""
    written, ran = [], []
    settings = {"frames": 8, "size": 64, "scored": [1, 4]}
    runs = {f"{name}/{seed}": {"psnr_box": 1.0, "machine": machine(), "settings": settings}
            for name in ("codes", "no-tower") for seed in range(2)}  # fmt: skip
    runs["codes/1"]["settings"] = {**settings, "model.voxel_size": 0.5}
    store = tmp_path / "benchmarks" / "runs" / "neural_body_claims_1000.json"
    store.parent.mkdir(parents=True)
    store.write_text(json.dumps(runs))
    monkeypatch.setattr(neural_body_claims, "ROOT", tmp_path)
    monkeypatch.setattr(neural_body_claims, "run", lambda variant, seed, *rest: ran.append(seed) or {"psnr_box": 3.0})
    monkeypatch.setattr(neural_body_claims, "write_rows", lambda name, rows: written.extend(rows))
    monkeypatch.setattr(neural_body_claims.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(sys, "argv", ["x", "--claims", "4", "--seeds", "2"])
    neural_body_claims.main()
    (row,) = [row for row in written if row.claim.endswith("/4")]
    assert ran == [1] and (row.value, row.baseline) == (2.0, 1.0)


def test_our_tower_is_spconvs():
    """The same sites, features and gradients as the package that the paper's code is made of; in odd shapes, too."""
    pytest.importorskip("spconv")
    torch.manual_seed(0)
    coords = torch.stack([torch.randint(0, n, (500,)) for n in (27, 40, 21)], dim=1)
    tables, tower = build_tables(coords, (27, 40, 21)), SparseTower(4, (6, 8, 10, 12), "layer")
    twin, sites = _spconv_tower.SpconvTower(tower), _spconv_tower.finest_sites(tables)
    codes = torch.randn(500, 4, requires_grad=True)
    with _spconv_tower.on_any_machine():
        theirs = [_spconv_tower.in_our_order(x, tables, k + 1) for k, x in enumerate(twin(codes, tables, sites))]
        ours = tower(codes, tables)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=2e-5, rtol=0)
        wanted, found = (torch.autograd.grad(torch.stack([v.square().sum() for v in x]).sum(), codes)[0]
                         for x in (theirs, ours))  # fmt: skip
    torch.testing.assert_close(found, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)


def test_rows_that_are_measured_later_leave_the_others(tmp_path):
    rows = [Row(f"a/speed/{name}", name, 1.0, None, "s", None, 1, None, None) for name in "bcd"]
    (tmp_path / "x.json").write_text(json.dumps({"command": "one", "rows": [vars(row) for row in rows[:2]]}))
    rows[1].value = 2.0
    content = json.loads(neural_body_speed.add_rows("x", rows[1:], tmp_path).read_text())
    assert content == {"command": "one", "rows": [vars(row) for row in rows]}
    assert neural_body_speed.kept_rows("x", "/speed/c", tmp_path) == rows[1:2]
    assert neural_body_speed.kept_rows("none", "a", tmp_path) == []
