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


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_per_slot_ids_are_a_bijection_without_overlap(slots):
    vocabulary = MotionVocabulary(100, make_spec(slots), per_slot=True)
    assert vocabulary.num_new == 2 + 12 * slots == len(vocabulary.names) == len(set(vocabulary.names))
    ranges = [range(*vocabulary.slot_range(slot)) for slot in range(slots)]
    assert [i for each in ranges for i in each] == list(range(102, vocabulary.size))
    every = torch.arange(12)[:, None].expand(12, slots)
    ids = vocabulary.tokens_to_ids(every)
    assert len(ids.unique()) == len(ids)
    assert torch.equal(vocabulary.ids_to_tokens(ids), every)
    for slot, code in ((0, 0), (slots - 1, 11)):
        assert vocabulary.names[vocabulary.slot_range(slot)[0] + code - 100] == f"<motion_id_{slot}_{code}>"


def test_per_slot_codes_of_another_slot_raise():
    vocabulary = MotionVocabulary(100, make_spec(2), per_slot=True)
    assert vocabulary.ids_to_tokens(torch.tensor([100, 102, 114, 101])).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="id 102 is not a code of its slot"):
        vocabulary.ids_to_tokens(torch.tensor([100, 102, 102, 101]))


@pytest.mark.parametrize("per_slot", [False, True])
def test_a_line_of_some_slots(per_slot):
    vocabulary = MotionVocabulary(100, make_spec(4), per_slot=per_slot)
    whole = torch.randint(0, 12, (3, 4))
    for slots in ((0,), (2,), (1, 3), (3, 0)):
        ids = vocabulary.tokens_to_ids(whole[:, list(slots)], slots=slots)
        assert len(ids) == 3 * len(slots) + 2
        assert torch.equal(vocabulary.ids_to_tokens(ids, slots=slots), whole[:, list(slots)])
        columns = vocabulary.tokens_to_ids(whole)[1:-1].view(3, 4)[:, list(slots)]
        assert torch.equal(ids[1:-1].view(3, -1), columns)  # a slot has the same ids in a part as in the whole
    assert torch.equal(vocabulary.tokens_to_ids(whole, slots=range(4)), vocabulary.tokens_to_ids(whole))


@pytest.mark.parametrize("slots", [(), (1, 1), (4,), (-1,)], ids=["none", "twice", "beyond", "negative"])
def test_wrong_slots_raise(slots):
    vocabulary = MotionVocabulary(100, make_spec(4))
    with pytest.raises(ValueError, match="slot"):
        vocabulary.tokens_to_ids(torch.zeros(2, len(slots), dtype=torch.int64), slots=slots)
    with pytest.raises(ValueError, match="slot"):
        vocabulary.ids_to_tokens(torch.tensor([100, 102, 101]), slots=slots)


def test_names_are_made_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(MotionVocabulary, "names", property(lambda self: pytest.fail("names were made")))
    vocabulary = MotionVocabulary(100, make_spec(2, codes=65_536), per_slot=True)
    tokens = torch.randint(0, 65_536, (5, 2))
    assert torch.equal(vocabulary.ids_to_tokens(vocabulary.tokens_to_ids(tokens)), tokens)
    assert vocabulary.size == 100 + 2 + 2 * 65_536
