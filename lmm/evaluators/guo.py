"""The evaluator of Guo et al., CVPR 2022 (text-to-motion's ``text_mot_match``), by which the field's tables are made.

Motion: z-scores in the evaluator's own statistics; zeros up to 196 frames; without the foot contacts; two convolutions
of kernel 4 and stride 2 (259 -> 512 -> 512 channels, leaky ReLU); a bidirectional GRU of 1024 reads the T // 4 steps
that the motion has; its two last states -> 512. Text: GloVe + a map of the part of speech -> 512; a bidirectional GRU
of 512 reads the sentence; its two last states -> 512. Trained with a contrastive loss, margin 10.

The published files are read as they are, and none is accepted for another. Nothing pickled in them is run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from lmm.evaluators.base import Evaluator
from lmm.evaluators.word_vectors import CLASSES, TaggedCaptions, WordVectors
from lmm.motion.arrays import read_npy
from lmm.motion.published import EVALUATOR_KIT, EVALUATOR_T2M, published_pair, sha256
from lmm.motion.representations import HumanML3DFeatures, KITFeatures

DIM, UNIT, MAX_FRAMES = 512, 4, 196
_NETWORKS = ("movement_encoder", "motion_encoder", "text_encoder")
_PAIRS = {  # whose statistics each evaluator reads, and where the field keeps them
    HumanML3DFeatures: (EVALUATOR_T2M, "checkpoints/t2m/Comp_v6_KLD01/meta/"),
    KITFeatures: (EVALUATOR_KIT, "checkpoints/kit/Comp_v6_KLD005/meta/"),
}
_REAL_ROWS = {  # figure -> published mean and how far a re-computation may be off: about three of its intervals
    EVALUATOR_T2M: {
        "r_precision_1": (0.511, 0.006),
        "r_precision_2": (0.703, 0.006),
        "r_precision_3": (0.797, 0.006),
        "fid": (0.002, 0.003),
        "multimodal_distance": (2.974, 0.024),
        "diversity": (9.503, 0.2),
    },
    EVALUATOR_KIT: {
        "r_precision_1": (0.424, 0.015),
        "r_precision_2": (0.649, 0.018),
        "r_precision_3": (0.779, 0.018),
        "fid": (0.031, 0.012),
        "multimodal_distance": (2.788, 0.036),
        "diversity": (11.08, 0.3),
    },
}


class GuoEvaluator(Evaluator):
    """Motions and captions -> 512 numbers each.

    Nine arguments, because the published files lie in as many places.

    Args:
        checkpoint: text_mot_match/model/finest.tar.
        glove: folder of the word vectors, see `WordVectors`.
        texts: folder of the captions with their tokens, see `TaggedCaptions`; only these can be embedded.
        mean: mean.npy of the evaluator's own pair, not the data set's Mean.npy.
        std: std.npy beside it.
        representation: HumanML3DFeatures (by default, D = 263) or KITFeatures (D = 251), as they are published.
        motiongpt_compat: the GRU also reads the padding, up to the longest motion of the batch, as in MotionGPT's
            evaluator. The point of a motion then depends on what else is in its batch. Only to compare with tables
            that were made so.
        unpublished_statistics: accept a pair that is none of the published ones, for an evaluator that you trained.
        name: what tables call it.

    Raises:
        ValueError: a file that is missing, unreadable, or another than it should be.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        checkpoint: str,
        glove: str,
        texts: str,
        mean: str,
        std: str,
        *,
        representation: HumanML3DFeatures | None = None,
        motiongpt_compat: bool = False,
        unpublished_statistics: bool = False,
        name: str = "Guo et al.",
    ) -> None:
        representation = representation or HumanML3DFeatures(uniform_skeleton=False)
        super().__init__(name, representation, dim=DIM, unit=UNIT, max_frames=MAX_FRAMES)
        if representation.fixed:
            raise ValueError("the published evaluator reads published features: give its representation fixed: false")
        self.motiongpt_compat = motiongpt_compat
        self._statistics = _check_pair(Path(mean), Path(std), representation, unpublished_statistics)
        for buffer, file in (("mean", Path(mean)), ("std", Path(std))):
            self.register_buffer(buffer, _statistic(file, representation.dim, positive=buffer == "std"))
        self._contacts = representation.slices["contacts"].start  # the last features, which it does not read
        with torch.device("meta"):  # no memory and no random numbers for weights that are read
            self.movement_encoder = _MovementEncoder(self._contacts)
            self.motion_encoder = _Reader(DIM, 1024)
            self.text_encoder = _TextReader()
        self._load(Path(checkpoint))
        self.word_vectors = WordVectors(Path(glove))
        self.captions = TaggedCaptions(Path(texts))
        self._files = f"mean={sha256(Path(mean))} std={sha256(Path(std))} glove={self.word_vectors.sha256}"
        self.freeze()

    def embed_motions(self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Points of motions, from raw features; frames beyond a multiple of 4 are not read.

        Raises:
            ValueError: a motion of less than 4 frames or more than 196.
        """
        lengths = mask.sum(1)
        assert bool((mask == (torch.arange(mask.shape[1], device=mask.device) < lengths[:, None])).all()), "a hole"
        if wrong := [n for n in lengths.tolist() if not UNIT <= n <= MAX_FRAMES]:
            raise ValueError(
                f"{self.name} reads motions of {UNIT} to {MAX_FRAMES} frames, got one of {wrong[0]}: cut it"
            )
        steps = lengths // UNIT
        longest = UNIT * int(steps.max()) if self.motiongpt_compat else MAX_FRAMES
        read = torch.arange(mask.shape[1], device=mask.device) < UNIT * steps[:, None]
        # In float64, as published: some deviations are so small that a rounded mean would show.
        normalized = ((features.double() - self.mean) / self.std).float()
        # Zeros come after normalizing: a clip's end is seen against them, so their number must not depend on the batch.
        frames = torch.where(read[..., None], normalized, 0.0)[..., : self._contacts]
        frames = nn.functional.pad(frames, (0, 0, 0, longest - frames.shape[1]))
        with _full_precision(self.device):
            return self.motion_encoder(self.movement_encoder(frames), None if self.motiongpt_compat else steps)

    def embed_texts(self, texts: list[str]) -> Float[Tensor, "B E"]:
        """Points of captions.

        Raises:
            ValueError: a sentence whose tokens are not known, see `TaggedCaptions`.
        """
        words, classes, lengths = self.word_vectors(self.captions.tokens(texts))
        with _full_precision(self.device):
            return self.text_encoder(words + self.text_encoder.pos_emb(classes), lengths)

    @property
    def published_real_row(self) -> dict[str, tuple[float, float]]:
        """Of Guo et al., as later tables repeat it, on the test split of HumanML3D or KIT-ML."""
        return {} if self.motiongpt_compat else _REAL_ROWS.get(self._statistics, {})

    @property
    def settings(self) -> str:
        """The representation, the digests of the files, and whether the GRU reads padding."""
        return f"{super().settings} motiongpt_compat={self.motiongpt_compat} {self._files}"

    def _load(self, path: Path) -> None:
        """Take the weights of the checkpoint's three networks; optimizer states in it are left."""
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file; give text_mot_match/model/finest.tar of text-to-motion")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"{path} cannot be read without running what is pickled in it ({str(error).splitlines()[0]}). Get "
                "text_mot_match/model/finest.tar of text-to-motion again, or, where you trust the file, save its "
                f"entries {', '.join(_NETWORKS)} alone"
            ) from None
        for part in _NETWORKS:
            network, held = getattr(self, part), content.get(part) if isinstance(content, dict) else None
            weights = {k: v for k, v in held.items() if isinstance(v, Tensor)} if isinstance(held, dict) else {}
            own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
            found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
            for name in [*own, *found]:
                if own.get(name) != found.get(name):
                    there, here = (shapes.get(name, "not there") for shapes in (found, own))
                    raise ValueError(
                        f"{path}: {part}.{name} is {there}, expected {here} for "
                        f"{type(self.representation).__name__}; give text_mot_match/model/finest.tar of that data set"
                    )
            network.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)


class _MovementEncoder(nn.Module):
    """Frames "B T C" -> steps "B T/4 512"."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = nn.Conv1d(channels, DIM, 4, 2, 1), nn.Conv1d(DIM, DIM, 4, 2, 1)
        # Dropout never acts here; it keeps the published numbers of the layers.
        self.main = nn.Sequential(first, nn.Dropout(0.2), nn.LeakyReLU(0.2), second, nn.Dropout(0.2), nn.LeakyReLU(0.2))
        self.out_net = nn.Linear(DIM, DIM)

    def forward(self, frames: Float[Tensor, "B T C"]) -> Float[Tensor, "B t E"]:
        return self.out_net(self.main(frames.mT).mT)


class _Reader(nn.Module):
    """A sequence "B S C" -> its point "B 512", from the last states of a bidirectional GRU."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.input_emb = nn.Linear(inputs, width)
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.hidden = nn.Parameter(torch.empty(2, 1, width))  # where both directions begin
        self.output_net = nn.Sequential(
            nn.Linear(2 * width, width), nn.LayerNorm(width), nn.LeakyReLU(0.2), nn.Linear(width, DIM)
        )

    def forward(self, sequence: Float[Tensor, "B S C"], lengths: Int[Tensor, " B"] | None) -> Float[Tensor, "B E"]:
        """Of each sequence ``lengths`` steps are read, or all if None."""
        inputs = self.input_emb(sequence)
        if lengths is not None:  # sorts inside and restores the order, so that pairs stay together
            inputs = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.gru(inputs, self.hidden.expand(-1, len(sequence), -1).contiguous())
        return self.output_net(torch.cat([last[0], last[1]], dim=-1))


class _TextReader(_Reader):
    """Word vectors, to which the part of speech is added before, -> a point."""

    def __init__(self) -> None:
        super().__init__(300, DIM)
        self.pos_emb = nn.Linear(len(CLASSES), 300)


def _check_pair(mean: Path, std: Path, representation: HumanML3DFeatures, unpublished: bool) -> str:
    """Which published pair it is; empty for another that may be used."""
    right, folder = _PAIRS.get(type(representation), ("statistics of its own", ""))
    found = published_pair(mean, std)
    remedy = f"the evaluator of {type(representation).__name__} reads {right}"
    remedy += f": mean.npy and std.npy in {folder} of text-to-motion" if folder else ""
    if found and found != right:
        raise ValueError(f"{mean} and {std} are {found}; {remedy}")
    if not found and not unpublished:
        raise ValueError(
            f"{mean} and {std} are none of the published pairs; {remedy}. If the evaluator is one that you trained in "
            "these, set unpublished_statistics: true"
        )
    return found


def _statistic(file: Path, dim: int, *, positive: bool) -> Float[Tensor, " D"]:
    values = torch.from_numpy(read_npy(file)).double()
    if values.shape != (dim,) or not torch.isfinite(values).all() or (positive and (values <= 0).any()):
        what = "positive numbers" if positive else "numbers"
        raise ValueError(f"{file} must hold {dim} {what} without NaN, got shape {tuple(values.shape)}")
    return values


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """float32 as it is written: no autocast, no TF32, whatever the program around has set."""
    kept = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    cudnn = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
    try:
        with cudnn, torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(kept)
