"""KIT-ML as the field has it (Plappert et al. 2016, Guo et al. 2022): HumanML3D's layout, another body.

::

    new_joint_vecs/<id>.npy   float32 (T, 251)
    new_joints/<id>.npy       float32 (T, 21, 3), the Master Motor Map's joints at 12.5 fps
    texts/<id>.txt, split lists, Mean.npy, Std.npy: as in HumanML3D

new_joints are in KIT-ML's units, mirrored (`KITFeatures.units`); motions of this source are in metres, left at +x.
"""

import torch

from lmm.data.sources.humanml3d import HumanML3D
from lmm.motion.motion import Motion
from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.representations.kit import KIT_21, KITFeatures


class KIT(HumanML3D):
    """KIT-ML, and every data set in its layout with the 21-joint body.

    Args:
        folder: the data set's folder.
        min_frames: clips and sub-clips with fewer rows of features are dropped (the field's rule: 24).
        max_frames: clips and sub-clips with this many rows or more are dropped (the field's rule: 200).
        skip: ids to leave out.
        require_captions: refuse a clip without a caption; without it such clips train a tokenizer too.
        hierarchical: file in the folder with texts about parts of the body, see `HumanML3D`.
    """

    fps = KITFeatures.fps
    skeleton = KIT_21
    vectors = KITFeatures

    def __init__(
        self,
        folder: str,
        *,
        min_frames: int = 24,
        max_frames: int = 200,
        skip: list[str] | None = None,
        require_captions: bool = True,
        hierarchical: str | None = None,
    ) -> None:
        super().__init__(
            folder,
            min_frames=min_frames,
            max_frames=max_frames,
            skip=skip,
            require_captions=require_captions,
            hierarchical=hierarchical,
        )

    def _joints(self, clip: str, representation: MotionRepresentation) -> tuple[Motion, None]:
        joints = self._array("new_joints", clip, (KIT_21.num_joints, 3)) / torch.tensor(KITFeatures.units)
        return Motion(joints, self.fps, KIT_21), None
