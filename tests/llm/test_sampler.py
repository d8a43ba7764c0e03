"""What a model is asked for, against the same put together by hand. Weights are random: poses mean nothing."""

import itertools
from functools import partial

import pytest
import torch

from lmm.llm.drawing import Drawing
from lmm.llm.embedding import MotionLLM
from lmm.llm.generation import generate
from lmm.llm.prompts import Prompts
from lmm.llm.sampler import MotionSampler
from lmm.llm.tasks import (
    Continuation,
    DurationConditioned,
    InBetween,
    MotionToText,
    PartCompletion,
    TaskInput,
    TextToMotion,
)
from lmm.llm.vocabulary import MotionVocabulary
from lmm.motion.motion import Motion
from lmm.motion.representations import SMPLD135, HumanML3DFeatures, JointPositions, MotionRepresentation
from lmm.tokenizers import LFQ2DTokenizer, MotionTokenizer, RVQTokenizer
from lmm.tokenizers.losses import ReconstructionLoss
from lmm.tokenizers.networks import Conv1dDecoder, Conv1dEncoder, Conv2dDecoder, Conv2dEncoder
from lmm.tokenizers.quantizers import LookupFreeQuantizer, ResidualQuantizer
from tests.llm.conftest import VOCABULARY, make_llm, make_tokenizer

GREEDY = Drawing(temperature=0.0)
TASKS = (TextToMotion(),)


def make_motion_tokenizer(representation: MotionRepresentation, *, parts: bool = False, causal: bool = True):
    """K = 2 residual levels of a time line, or K = 5 parts; 4 frames a step."""
    torch.manual_seed(0)
    width = representation.dim
    representation.set_statistics(torch.randn(width) * 0.05, torch.full((width,), 0.1))
    small = {"width": 16, "depth": 1, "causal": causal}
    tokenizer: MotionTokenizer
    if parts:
        tokenizer = LFQ2DTokenizer(
            representation,
            partial(Conv2dEncoder, **small),
            partial(LookupFreeQuantizer, codebook_size=16),
            partial(Conv2dDecoder, **small),
            partial(ReconstructionLoss, block_weights={}),
            latent_dim=4,
        )
    else:
        tokenizer = RVQTokenizer(
            representation,
            partial(Conv1dEncoder, **small),
            partial(ResidualQuantizer, num_levels=2, codebook_size=12),
            partial(Conv1dDecoder, **small),
            partial(ReconstructionLoss, block_weights={}),
            latent_dim=8,
        )
        for name, buffer in tokenizer.quantizer.named_buffers():
            if name.endswith("codes"):
                buffer.normal_()
    return tokenizer.eval().requires_grad_(False)


def make_sampler(representation: MotionRepresentation | None = None, *, tasks=TASKS, **options) -> MotionSampler:
    tokenizer = make_motion_tokenizer(HumanML3DFeatures() if representation is None else representation, **options)
    vocabulary = MotionVocabulary(VOCABULARY, tokenizer.token_spec)
    llm = MotionLLM(make_llm("llama"), vocabulary.num_new)
    return MotionSampler(llm, vocabulary, Prompts(make_tokenizer(), vocabulary, tasks=tasks), tokenizer)


def decoded(sampler: MotionSampler, tokens: torch.Tensor, frames: int | None = None) -> torch.Tensor:
    """Joints of one motion's tokens."""
    features = sampler.motion_tokenizer.decode(tokens[None])[0, :frames]
    return sampler.motion_tokenizer.representation.decode(features).joints


def close(ours: Motion, joints: torch.Tensor) -> bool:
    return ours.joints.shape == joints.shape and torch.allclose(ours.joints, joints, atol=1e-5)


def test_motions_of_texts_depend_on_nothing_beside_them():
    sampler = make_sampler()
    texts = ["walks", "", "jumps high", "walks"]
    motions = sampler.text_to_motion(texts, seconds=1.3, num_samples=2, seed=3, batch_size=5)
    assert [len(each) for each in motions] == [2] * 4 and all(m.num_frames == 26 for each in motions for m in each)
    again = sampler.text_to_motion(["jumps high"], seconds=1.3, seed=3)
    assert close(again[0][0], motions[2][0].joints)
    alike = [motions[0][0], motions[0][1], motions[3][0], motions[3][1]]  # four draws of one caption
    assert all(not torch.equal(a.joints, b.joints) for a, b in itertools.combinations(alike, 2))


def test_a_motion_is_the_decoded_answer_to_the_prompt():
    sampler = make_sampler(tasks=(TextToMotion(), DurationConditioned()))
    llm, vocabulary, prompts = sampler.llm, sampler.vocabulary, sampler.prompts
    for seconds, steps in ((None, (5, 49)), (2.1, (11, 11))):
        asked = prompts.prompt("walks", seconds=seconds)
        unguided = prompts.prompt("", seconds=seconds)
        assert ("2.2 s" in prompts.tokenizer.decode(asked[:-1])) == (seconds == 2.1)
        bounds = {"min_steps": [steps[0]], "max_steps": [steps[1]], "seeds": [11]}
        options = {"top_k": 4, "guidance": 3.0, "unguided": [unguided]}
        tokens = generate(llm, vocabulary, prompts=[asked], **bounds, **options)[0]
        drawing = Drawing(top_k=4, guidance=3.0)
        motion = sampler.motions(["walks"], [11], seconds=seconds, drawing=drawing)[0]
        assert close(motion, decoded(sampler, tokens, None if seconds is None else 42))


@pytest.mark.parametrize("representation", [HumanML3DFeatures, JointPositions, SMPLD135])
@pytest.mark.parametrize("parts", [False, True])
def test_a_stream_is_the_motion_in_pieces_and_never_waits_for_more_than_its_step(representation, parts):
    sampler = make_sampler(representation(), parts=parts)
    calls = []
    sampler.llm.register_forward_pre_hook(lambda *_: calls.append(1))
    for seconds, frames in ((1.1, 22), (None, None)):
        whole = sampler.text_to_motion(["walks"], seconds=seconds, seed=2)[0][0]
        calls.clear()
        stream = sampler.stream("walks", seconds=seconds, seed=2)
        pieces = [next(stream)]
        assert len(calls) == sampler.vocabulary.spec.codes_per_step and pieces[0].motion.num_frames == 4
        pieces += list(stream)
        assert all(len(piece.features) == piece.motion.num_frames == 4 for piece in pieces[:-1])
        assert close(whole, torch.cat([piece.motion.joints for piece in pieces]))
        if whole.rotations is not None:
            rotations = torch.cat([piece.motion.rotations for piece in pieces])
            assert torch.allclose(whole.rotations, rotations, atol=1e-5)
        assert frames is None or whole.num_frames == frames
        assert 0 < stream.time_to_first_frame < stream.busy_seconds
        assert stream.real_time_factor == pytest.approx(stream.busy_seconds / whole.seconds)
    root = torch.cat([piece.motion.joints[:, 0] for piece in pieces])
    assert root.norm(dim=-1).max() > 0.1  # it goes somewhere, so that a piece decoded alone would be misplaced


def test_what_cannot_stream_says_so():
    with pytest.raises(ValueError, match=r"looks ahead and cannot stream; train it with causal=true"):
        make_sampler(causal=False).stream("walks")
    with pytest.raises(ValueError, match=r"less than a frame"):
        make_sampler().stream("walks", seconds=0.01)
    with pytest.raises(ValueError, match="no frame yet"):
        make_sampler().stream("walks").real_time_factor  # noqa: B018


def test_training_goes_on_after_sampling():
    sampler = make_sampler()
    sampler.llm.train()
    modes = []
    sampler.llm.register_forward_pre_hook(lambda *_: modes.append(sampler.llm.training))
    sampler.text_to_motion(["walks"], seconds=0.5)
    assert sampler.llm.training
    list(sampler.stream("walks", seconds=0.5))
    stopped = sampler.stream("walks", seconds=0.5)
    next(stopped)
    stopped.steps.close()
    assert sampler.llm.training and not any(modes)


@torch.no_grad()
def test_a_caption_is_the_greedy_answer_to_the_motion():
    sampler = make_sampler()
    motions = sampler.motions(["a", "b"], [0, 1], seconds=1.0)
    captions = sampler.describe(motions, max_ids=9)
    for motion, caption in zip(motions, captions, strict=True):
        features = sampler.motion_tokenizer.representation.encode(motion)[None]
        tokens = sampler.motion_tokenizer.encode(features, torch.ones(features.shape[:2], dtype=torch.bool))[0]
        assert torch.equal(sampler.tokens(motion), tokens)
        ids = sampler.prompts.ask(MotionToText(), TaskInput(tokens=tokens))[0]
        answer = []
        while len(answer) < 9:
            line = torch.cat([ids, torch.tensor(answer, dtype=torch.int64)])
            best = int(sampler.llm(line[None], None)[0, :VOCABULARY].argmax())
            if best == 2:  # </s>
                break
            answer.append(best)
        # the model's embedding has rows that the text tokenizer has no word for; they spell nothing
        assert caption == sampler.prompts.tokenizer.decode(answer, skip_special_tokens=True).strip()
    sampler.prompts.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end of sequence"):
        sampler.describe(motions)


def test_a_motion_is_described_in_the_words_that_were_trained(tmp_path, monkeypatch):
    file = tmp_path / "mine.yaml"
    file.write_text('answer: "{caption}"\ntemplates:\n  - "What is this? {motion}"\n')
    sampler = make_sampler(tasks=(TextToMotion(), MotionToText(templates=str(file))))
    asked = []
    monkeypatch.setattr(
        sampler.prompts, "ask", lambda task, clip: asked.append(task) or Prompts.ask(sampler.prompts, task, clip)
    )
    sampler.describe(sampler.motions(["a"], [0], seconds=1.0), max_ids=2)
    assert [task.templates for task in asked if isinstance(task, MotionToText)] == [str(file)]


def random_tokens(sampler: MotionSampler, steps: int, seed: int = 0) -> torch.Tensor:
    spec, draw = sampler.vocabulary.spec, torch.Generator().manual_seed(seed)
    return torch.randint(0, spec.codebook_size, (steps, spec.codes_per_step), generator=draw)


def answer_to(sampler: MotionSampler, task, clip: TaskInput, steps: int) -> torch.Tensor:
    ids, slots = sampler.prompts.ask(task, clip)
    bounds = {"min_steps": [steps], "max_steps": [steps], "seeds": [0]}
    return generate(sampler.llm, sampler.vocabulary, prompts=[ids], **bounds, temperature=0.0, slots=slots)[0]


def test_a_continuation_follows_what_is_given():
    sampler = make_sampler()
    clips = [TaskInput("walks", tokens=random_tokens(sampler, n, n), seconds=0.6) for n in (3, 7)]
    for clip, motion in zip(clips, sampler.complete(Continuation(), clips, drawing=GREEDY), strict=True):
        answer = answer_to(sampler, Continuation(), clip, 3)
        assert close(motion, decoded(sampler, torch.cat([clip.tokens, answer])))
    free = sampler.complete(Continuation(), [clips[0]._replace(seconds=None)])[0]
    assert 12 + 20 <= free.num_frames <= 12 + 196
    guided = sampler.complete(Continuation(), clips, drawing=Drawing(guidance=9.0))
    assert any(not close(a, b.joints) for a, b in zip(guided, sampler.complete(Continuation(), clips), strict=True))


@pytest.mark.parametrize("whole", [False, True])
def test_what_lies_between_is_put_between(whole, tmp_path):
    sampler = make_sampler()
    file = tmp_path / "own.yaml"
    file.write_text('templates: [["{first} to {last}", "{motion}"]]')
    task = InBetween(templates=str(file)) if whole else InBetween()
    clip = TaskInput(tokens=random_tokens(sampler, 2), last=random_tokens(sampler, 4, 1), seconds=1.0)
    motion = sampler.complete(task, [clip], drawing=GREEDY)[0]
    answer = answer_to(sampler, task, clip, 11)[2:7] if whole else answer_to(sampler, task, clip, 5)
    assert close(motion, decoded(sampler, torch.cat([clip.tokens, answer, clip.last])))


def test_parts_that_are_given_stay_and_others_are_new():
    sampler = make_sampler(parts=True)
    tokens = random_tokens(sampler, 6)
    clips = [TaskInput("waves", tokens=tokens, parts=parts) for parts in ((0, 1), (4,), (0, 1))]
    motions = sampler.complete(PartCompletion(), clips, drawing=GREEDY)
    for clip, motion in zip(clips, motions, strict=True):
        missing = [part for part in range(5) if part not in clip.parts]
        expected = tokens.clone()
        expected[:, missing] = answer_to(sampler, PartCompletion(), clip, 6)
        assert not torch.equal(expected, tokens) and close(motion, decoded(sampler, expected))


def test_a_completion_that_cannot_be_is_refused():
    sampler = make_sampler()
    with pytest.raises(ValueError, match="several body parts"):
        sampler.complete(PartCompletion(), [TaskInput(tokens=random_tokens(sampler, 2), parts=(0,))])
    with pytest.raises(ValueError, match="first part of a motion"):
        sampler.complete(Continuation(), [TaskInput("walks")])
    with pytest.raises(ValueError, match="TextToMotion completes nothing"):
        sampler.complete(TextToMotion(), [TaskInput("walks")])
