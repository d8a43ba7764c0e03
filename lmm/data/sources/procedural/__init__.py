"""The embedded data set: human motion made by rules, with captions, so that everything runs without a download.

Kinematic recipes (a stepping pattern along a path, two-bone legs on planted feet, parabolas in the air, arm poses)
crossed with directions, sides, speeds, repetitions and moods, and described by a small grammar. It stands in for no
recorded data set; it is for tests, examples and first runs, and for checking that a model learns what words mean.
"""

import json
from pathlib import Path

from lmm.data.sources.humanml3d import HumanML3D
from lmm.data.sources.procedural.captions import captions
from lmm.data.sources.procedural.clips import generate, settings

__all__ = ["Procedural", "captions", "generate"]


class Procedural(HumanML3D):
    """A generated data set in HumanML3D's layout, with the further split ``unseen`` of held-out combinations.

    Args:
        folder: where it is, or will be written by `prepare`.
        num_clips: number of clips.
        seed: another seed, other clips.
        hierarchical: manifest.jsonl, to read the texts about body, upper body and lower body too.
    """

    def __init__(
        self,
        folder: str = "runs/data/demo",
        num_clips: int = 2000,
        seed: int = 0,
        *,
        hierarchical: str | None = None,
    ) -> None:
        super().__init__(folder, hierarchical=hierarchical)
        self.num_clips = num_clips
        self.seed = seed

    def prepare(self) -> None:
        """Write the data set if the folder is missing; about 10 s for 2,000 clips.

        Raises:
            ValueError: the folder holds something else, or what other settings or an older version wrote.
        """
        if not self.folder.exists():
            generate(self.folder, self.num_clips, self.seed)
            return
        wanted, found = settings(self.num_clips, self.seed), _read(self.folder / "generator.json")
        if found != wanted:
            raise ValueError(
                f"{self.folder} was made with {found or 'no generator of ours'}, not with {wanted}; "
                "name another folder, or delete this one to have it made again"
            )


def _read(file: Path) -> dict[str, int] | None:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None
