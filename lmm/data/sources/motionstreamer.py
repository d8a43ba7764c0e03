"""MotionStreamer's folder layout (Xiao et al., ICCV 2025), also MotionMillion's, trained on as it is.

::

    motion_data/<id>.npy    float32 (T, 272), 30 fps, see `MotionStreamer272`; ids may hold folders
    texts/<id>.txt          caption#tokens#start#end (MotionStreamer), or a plain caption a line (MotionMillion)
    split/train.txt ...     one id a line, and any further list
    mean_std/Mean.npy Std.npy   published statistics, optional; mean.npy and std.npy in MotionMillion
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from lmm.data.sources.base import Clip
from lmm.data.sources.humanml3d import HumanML3D, load_tensor, scan_files
from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.representations.motionstreamer import MotionStreamer272


class MotionStreamer(HumanML3D):
    """272 features at 30 fps; split lists, captions and rules are HumanML3D's.

    Args:
        folder: holds motion_data/, texts/, split/ and mean_std/.
        motions: the features' folder below it; MotionMillion's is motion_data/vector_272.
        lists: the split lists' folder below it; MotionMillion's is split/version1/t2m_60_300.
        mean_std: the statistics' folder below it; MotionMillion's is mean_std/vector_272.
        min_frames: clips and sub-clips with fewer rows are dropped (the publishers' rule: 60).
        max_frames: clips and sub-clips with this many rows or more are dropped (the publishers' rule: 300).
        skip: ids to leave out.
        require_captions: refuse a clip without a caption; without it such clips train a tokenizer too.
        hierarchical: file in the folder with texts about parts of the body, see `HumanML3D`.
    """

    fps = MotionStreamer272.fps
    vectors = MotionStreamer272

    def __init__(
        self,
        folder: str,
        *,
        motions: str = "motion_data",
        lists: str = "split",
        mean_std: str = "mean_std",
        min_frames: int = 60,
        max_frames: int = 300,
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
        self.motions = motions
        self.lists = lists
        self.mean_std = mean_std

    def fingerprint(self) -> str:
        """Digest of names, sizes and times of all files read, and of the arguments."""
        digest = hashlib.sha256(f"{super().fingerprint()}\0{self.motions}\0{self.lists}\0{self.mean_std}\n".encode())
        for name in (self.motions, self.mean_std):
            files = scan_files(str(self.folder / name), name) if (self.folder / name).is_dir() else []
            for file, stat in sorted(files, key=lambda entry: entry[0]):
                digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def clips(self, representation: MotionRepresentation) -> Iterator[Clip]:
        """Every clip of every split, sorted by id.

        Raises:
            ValueError: another representation than `MotionStreamer272`, or a file that is not sound.
        """
        if not isinstance(representation, MotionStreamer272):
            raise ValueError(
                f"{self.folder} holds MotionStreamer272's features and {type(representation).__name__} was asked for; "
                "use MotionStreamer272, or first: lmm data import motionstreamer FOLDER -o OUT"
            )
        clips = sorted({clip for ids in self.splits().values() for clip in ids})
        details = self._details(clips)
        for clip in clips:
            features = self._array(self.motions, clip, (representation.dim,))
            yield Clip(clip, None, features, self._captions(clip), details.get(clip, {}))

    def statistics(self, representation: MotionRepresentation) -> tuple[Tensor, Tensor] | None:
        """Published mean and deviation where both are there."""
        for names in (("Mean.npy", "Std.npy"), ("mean.npy", "std.npy")):
            files = [self.folder / self.mean_std / name for name in names]
            if not all(file.is_file() for file in files):
                continue
            mean, std = (load_tensor(file, "delete it: then the statistics are computed from train") for file in files)
            for file, value in zip(files, (mean, std), strict=True):
                if value.shape != (representation.dim,):
                    raise ValueError(
                        f"{file} has shape {tuple(value.shape)}, expected ({representation.dim},); delete it"
                    )
            return mean, std
        return None

    def _lists(self) -> list[Path]:
        if not self.folder.is_dir():
            raise ValueError(
                f"{self.folder} is not a folder; name one in MotionStreamer's layout (motion_data/, texts/, split/)"
            )
        return sorted((self.folder / self.lists).glob("*.txt"))
