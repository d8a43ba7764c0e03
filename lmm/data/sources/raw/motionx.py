"""Motion-X (Lin et al. 2023): whole-body SMPL-X parameters, ``.npy`` (T, 322) at 30 fps.

::

    motion_data/smplx_322/<subset>/<clip>.npy       the columns of `_COLUMNS`, in this order
    texts/semantic_labels/<subset>/<clip>.txt       one sentence, or HumanML3D's lines

The authors give all subsets as y up, facing +z in frame 0 (issue 5 of their repository); users found clips of
game_motion upside down and parts of Motion-X++ with another axis (issues 95 and HumanTOMATO 30). A clip that does not
stand upright is flagged: import such a subset by itself, with the axis that points up. Expression and face shape are
not read; the file has no rotations of the eyes.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lmm.data.sources.raw.amass import Poses, to_motion
from lmm.data.sources.raw.base import RawSource, Recording
from lmm.data.sources.raw.humanml3d import texts_of
from lmm.data.sources.raw.joints import Axis, check_axis, check_rate, posture_flags, read_array, y_up
from lmm.motion.body import SMPLX_55

LICENCE = "Motion-X (non-commercial; some subsets have terms of their own)"

_COLUMNS = {
    "root_orient": 3,
    "pose_body": 63,
    "pose_hand": 90,
    "pose_jaw": 3,
    "face_expr": 50,
    "face_shape": 100,
    "trans": 3,
    "betas": 10,
}


class MotionX(RawSource):
    """Motion-X and Motion-X++.

    Args:
        folder: holds motion_data/ and, mostly, texts/.
        body_models: a SMPL-X model, or a folder with smplx/SMPLX_NEUTRAL.npz; without one every body gets the bone
            lengths of our template.
        motions: the parameters' folder below it; name a subset's to import it alone.
        texts: the captions' folder below it, with the same folders inside as ``motions``.
        source_fps: the files' frame rate; clips of the humanml subset made with the authors' first scripts have 20.
        up: the axis that points up.
        licence: tag for the manifest.
    """

    patterns: ClassVar[tuple[str, ...]] = ("*.npy",)

    def __init__(
        self,
        folder: str,
        *,
        body_models: str | None = None,
        motions: str = "motion_data/smplx_322",
        texts: str = "texts/semantic_labels",
        source_fps: float = 30.0,
        up: Axis = "y",
        licence: str = LICENCE,
    ) -> None:
        super().__init__(folder)
        check_rate(source_fps)
        check_axis(up)
        self.body_models = body_models
        self.motions = motions
        self.texts = texts
        self.source_fps = float(source_fps)
        self.up = up
        self.licence = licence

    def files(self) -> list[Path]:
        """All files of parameters, sorted."""
        if not (self.folder / self.motions).is_dir():
            raise ValueError(
                f"{self.folder} has no folder {self.motions}; name the one with the (T, 322) arrays: motions"
            )
        return [file for file in super().files() if file.is_relative_to(self.folder / self.motions)]

    def depends(self, file: Path) -> list[Path]:
        """The file and its captions."""
        return [file, self.folder / self.texts / f"{self._clip(file)}.txt"]

    def read(self, file: Path) -> Iterator[Recording]:
        """The motion of one file."""
        array = read_array(file, sum(_COLUMNS.values()))
        part = dict(zip(_COLUMNS, array.split(list(_COLUMNS.values()), dim=-1), strict=True))
        eyes = torch.zeros(len(array), 6)
        poses = [part[name] for name in ("root_orient", "pose_body", "pose_jaw")] + [eyes, part["pose_hand"]]
        vectors = torch.cat(poses, dim=-1).unflatten(-1, (SMPLX_55.num_joints, 3))
        recording = posed(
            vectors, part["trans"], part["betas"], fps=self.source_fps, body_models=self.body_models, file=file
        )
        motion, turned = y_up(recording.motion, self.up)
        clip = self._clip(file)
        yield replace(
            recording,
            id=self.name(self.folder / f"{clip}.npy"),
            motion=motion,
            captions=texts_of(self.folder / self.texts, clip),
            operations=("eyes look straight ahead: the file has no rotations of them", *recording.operations, *turned),
            flags=(*recording.flags, *posture_flags(motion)),
        )

    def _clip(self, file: Path) -> str:
        return file.relative_to(self.folder / self.motions).with_suffix("").as_posix()


def posed(
    vectors: Float[Tensor, "T J 3"],
    trans: Float[Tensor, "T 3"],
    betas: Float[Tensor, "T S"],
    *,
    fps: float,
    body_models: str | None,
    file: Path,
) -> Recording:
    """A recording without a name, of a neutral body: AMASS's way from SMPL-family parameters to joints, not turned.

    Args:
        vectors: rotation vectors of 22, 24 (SMPL) or 55 (SMPL-X) joints.
        trans: SMPL's translation in metres.
        betas: shape coefficients of each frame; one person has one shape, their mean.
        fps: frames per second.
        body_models: see `AMASS`.
        file: for messages.
    """
    shape = betas.mean(dim=0)
    varied = (betas - shape).abs().max() > 1e-4
    poses = Poses(vectors.numpy(), trans.numpy(), shape.numpy(), "neutral", fps, None)
    motion, how, flags = to_motion(poses, body_models, file)
    operations = ("one body shape: the mean of the frames'", how) if varied else (how,)
    return Recording("", motion, operations=operations, flags=flags, extra=poses.extra)
