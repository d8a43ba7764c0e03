"""A data set of random walks and an instrument that reads a few plain numbers of them."""

import zlib
from pathlib import Path

import numpy as np
import torch

from lmm.data.sources import HumanML3D
from lmm.evaluators import Evaluator
from lmm.motion.representations import HumanML3DFeatures
from lmm.motion.skeleton import HUMANML3D_22


class ToyEvaluator(Evaluator):
    """Four numbers of the mean frame; words are hashed."""

    def __init__(self, uniform_skeleton: bool = False) -> None:
        super().__init__("toy", HumanML3DFeatures(uniform_skeleton), dim=4, unit=4, max_frames=60)
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(self.representation.dim, 4, generator=generator))
        self.freeze()

    def embed_motions(self, features, mask):
        rows = torch.where(mask[..., None], features, 0.0) @ self.weight
        return rows.sum(1) / mask.sum(1, keepdim=True)

    def embed_texts(self, texts):
        hashed = [[zlib.crc32(f"{text}{k}".encode()) / 2**32 for k in range(4)] for text in texts]
        return 2 * torch.tensor(hashed) - 1


def write_data(folder: Path, clips: int = 40) -> HumanML3D:
    """Clips of 41 to 80 frames, two captions each, all in the split test; four more in train and in val."""
    rng = np.random.default_rng(0)
    for name in ("new_joints", "texts"):
        (folder / name).mkdir(parents=True)
    ids = [f"c{i:03d}" for i in range(clips)]
    others = {split: [f"{split}{i}" for i in range(4)] for split in ("train", "val")}
    for i, name in enumerate([*ids, *others["train"], *others["val"]]):
        frames = 41 + i % 40
        np.save(folder / "new_joints" / f"{name}.npy", walk(rng, frames))
        captions = [f"person {i} walks", f"a walk of number {i}"]
        (folder / "texts" / f"{name}.txt").write_text("".join(f"{c}#x/OTHER#0.0#0.0\n" for c in captions))
    for split, names in {"test": ids, **others}.items():
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")
    return HumanML3D(str(folder), min_frames=20)


def walk(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A stiff figure that drifts and trembles."""
    rest = pose()
    root = np.cumsum(rng.normal(0, 0.02, (frames, 1, 3)), axis=0) * [1, 0, 1]
    return (rest + root + rng.normal(0, 0.002, (frames, 22, 3))).astype(np.float32)


def pose() -> np.ndarray:
    """Joints of HumanML3D's skeleton in its rest pose, standing on the floor."""
    joints = np.zeros((22, 3))
    for joint in range(1, 22):
        joints[joint] = joints[HUMANML3D_22.parents[joint]] + HUMANML3D_22.rest[joint].numpy()
    return joints - np.array([0, joints[:, 1].min(), 0])
