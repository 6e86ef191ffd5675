"""What the benchmarks keep of long runs is of the recording and the settings that are asked for."""

import json
import sys

import numpy as np
from PIL import Image

from benchmarks import neural_body_claims, neural_body_real
from benchmarks._harness import machine
from nerfstudio_ext.export.video_capture import write_annots
from nerfstudio_ext.human.capture import CaptureCamera


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
