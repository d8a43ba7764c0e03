"""The two bodies that data in HumanML3D's layout have: 22 joints and 263 features, or KIT-ML's 21 joints and 251."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmm.motion.representations.humanml3d import HumanML3DFeatures
from lmm.motion.representations.kit import KITFeatures


@dataclass(frozen=True)
class Layout:
    """A body, its features, and the field's rules for its clips.

    Args:
        name: the data set that the layout comes from.
        features: what ``new_joint_vecs`` holds.
        min_frames: shorter clips are dropped by everybody, and so are those of ``max_frames`` or more.
        published: clips in the published train, val and test.
    """

    name: str
    features: type[HumanML3DFeatures]
    min_frames: int
    published: dict[str, int]
    max_frames: int = 200

    @property
    def num_joints(self) -> int:
        """Number of joints J."""
        return self.features.skeleton.num_joints

    @property
    def dim(self) -> int:
        """Number of features D."""
        return sum(self.features.blocks.values())

    @property
    def units(self) -> NDArray[np.float32]:
        """What the files write for one metre of x, y and z."""
        return np.array(self.features.units, np.float32)

    def joints(self, *names: str) -> list[int]:
        """Indices of the joints so called."""
        return [self.features.skeleton.index(name) for name in names]

    @property
    def mirrored(self) -> list[int]:
        """For each joint the one of the other side."""
        swap = {"left": "right", "right": "left"}
        names = self.features.skeleton.names
        return [names.index("_".join(swap.get(word, word) for word in name.split("_"))) for name in names]


HUMANML3D = Layout("HumanML3D", HumanML3DFeatures, 40, {"train": 23_384, "val": 1_460, "test": 4_384})
KIT = Layout("KIT", KITFeatures, 24, {"train": 4_888, "val": 300, "test": 830})
