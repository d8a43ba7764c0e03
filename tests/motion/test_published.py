import hashlib

import pytest

from lmm.motion import published
from lmm.motion.published import EVALUATOR_KIT, EVALUATOR_T2M, HUMANML3D, published_pair, sha256


def test_real_pairs(shared_data):
    stats, lists = shared_data / "norm_stats", shared_data / "humanml3d_lists"
    assert published_pair(lists / "Mean.npy", lists / "Std.npy") == HUMANML3D
    assert published_pair(stats / "motiongpt3_mean.npy", stats / "motiongpt3_std.npy") == HUMANML3D
    assert published_pair(stats / "mdm_t2m_mean.npy", stats / "mdm_t2m_std.npy") == EVALUATOR_T2M
    assert published_pair(stats / "motiongpt3_mean_eval.npy", stats / "motiongpt3_std_eval.npy") == EVALUATOR_T2M
    assert published_pair(stats / "gmd_Mean_abs_3d.npy", stats / "gmd_Std_abs_3d.npy") == ""
    assert published_pair(stats / "mdm_t2m_mean.npy", stats / "gmd_Std_abs_3d.npy") == ""


def test_exchanged_mixed_and_missing_files(tmp_path, monkeypatch):
    files = [tmp_path / name for name in ("mean", "std", "kit_std", "other")]
    for file in files:
        file.write_text(file.name)
    mean, std, kit_std, other = files
    assert sha256(mean, std) == hashlib.sha256(b"meanstd").hexdigest()
    known = {sha256(mean): ("mean", EVALUATOR_T2M), sha256(std): ("std", EVALUATOR_T2M)}
    monkeypatch.setattr(published, "_SHA256", known | {sha256(kit_std): ("std", EVALUATOR_KIT)})
    assert published_pair(mean, std) == EVALUATOR_T2M
    for pair in ((std, mean), (std, other), (other, mean)):
        with pytest.raises(ValueError, match="are exchanged"):
            published_pair(*pair)
    with pytest.raises(ValueError, match=r"is from .*t2m.*, .* from .*KIT.*; give two files of one pair"):
        published_pair(mean, kit_std)
    with pytest.raises(ValueError, match=r"nowhere: there is no such file"):
        published_pair(mean, tmp_path / "nowhere")
