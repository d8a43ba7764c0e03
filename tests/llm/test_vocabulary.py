import pytest
import torch

from lmm.llm.vocabulary import MotionVocabulary
from tests.llm.conftest import make_spec


@pytest.mark.parametrize("slots", [1, 2, 5, 6])
def test_tokens_and_ids_are_a_bijection(slots):
    vocabulary = MotionVocabulary(100, make_spec(slots))
    for steps in (0, 1, 7):
        tokens = torch.randint(0, 12, (steps, slots))
        ids = vocabulary.tokens_to_ids(tokens)
        assert ids.dtype == torch.int64 and len(ids) == steps * slots + 2
        assert torch.equal(vocabulary.ids_to_tokens(ids), tokens)
    every = torch.arange(102, 114).repeat(slots)
    line = torch.cat([torch.tensor([100]), every, torch.tensor([101])])
    assert torch.equal(vocabulary.tokens_to_ids(vocabulary.ids_to_tokens(line)), line)


def test_the_line_is_time_major_then_slot():
    vocabulary = MotionVocabulary(100, make_spec(slots=3))
    ids = vocabulary.tokens_to_ids(torch.tensor([[0, 1, 2], [3, 4, 5]]))
    assert ids.tolist() == [100, 102, 103, 104, 105, 106, 107, 101]
    assert vocabulary.slot_range(0) == vocabulary.slot_range(2) == (102, 114)
    assert (vocabulary.num_new, vocabulary.size, len(vocabulary.names)) == (14, 114, 14)
    assert vocabulary.names[:4] == ["<mot>", "</mot>", "<motion_id_0>", "<motion_id_1>"]


@pytest.mark.parametrize(
    "tokens", [torch.tensor([[12, 0]]), torch.tensor([[-1, 0]]), torch.zeros(3, 3).long(), torch.zeros(3, 2)]
)
def test_wrong_tokens_raise(tokens):
    with pytest.raises((ValueError, TypeError)):  # the shape checks of the tests see floats first
        MotionVocabulary(100, make_spec(2)).tokens_to_ids(tokens)


@pytest.mark.parametrize(
    "ids",
    [[], [100], [100, 102, 103], [102, 103, 101], [100, 102, 101], [100, 102, 114, 101], [100, 102, 99, 101]],
    ids=["empty", "one", "no end", "no start", "half a step", "beyond the codes", "a text id"],
)
def test_wrong_ids_raise(ids):
    with pytest.raises(ValueError):
        MotionVocabulary(100, make_spec(2)).ids_to_tokens(torch.tensor(ids, dtype=torch.int64))


def test_a_slot_outside_the_step_raises():
    with pytest.raises(ValueError, match="slot 2"):
        MotionVocabulary(100, make_spec(2)).slot_range(2)
