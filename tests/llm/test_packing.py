import pytest
import torch

from lmm.llm.packing import pack
from lmm.llm.prompts import Sample


def make_samples(lengths, seed: int = 0) -> list[Sample]:
    """Samples of ids that occur once in all of them, so that each can be found again."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.arange(1, sum(lengths) + 1).split(list(lengths))
    samples = []
    for number, line in enumerate(ids):
        labelled = torch.rand(len(line), generator=draw) < 0.7
        labelled[0] = False
        labels = line + 1000 if number % 2 else None
        samples.append(Sample(line, labelled, 1.0 + number, labels))
    return samples


def unpack(batch) -> list[Sample]:
    """The samples of a batch, found by their segments alone."""
    found = []
    for row, segments in enumerate(batch.segments):
        for number in range(1, int(segments.max()) + 1):
            here = segments == number
            assert torch.equal(batch.positions[row, here], torch.arange(int(here.sum())))
            weights = batch.weights[row, here]
            assert (weights == weights[0]).all()
            found.append(
                Sample(batch.ids[row, here], batch.labelled[row, here], float(weights[0]), batch.labels[row, here])
            )
    return found


@pytest.mark.parametrize("seed", range(5))
def test_every_sample_is_there_once_and_whole(seed):
    lengths = torch.randint(1, 60, (40,), generator=torch.Generator().manual_seed(seed)).tolist()
    samples = make_samples(lengths, seed)
    batch = pack(samples, 64)
    assert batch.ids.shape[1] <= 64
    found = {int(sample.ids[0]): sample for sample in unpack(batch)}
    assert len(found) == len(samples)
    for sample in samples:
        other = found[int(sample.ids[0])]
        assert torch.equal(other.ids, sample.ids) and torch.equal(other.labelled, sample.labelled)
        assert other.weight == sample.weight
        assert torch.equal(other.labels, sample.ids if sample.labels is None else sample.labels)
    padding = batch.segments == 0
    assert int((~padding).sum()) == sum(lengths)
    for field in (batch.ids, batch.labelled, batch.positions, batch.weights, batch.labels):
        assert (field[padding] == 0).all()
    assert batch.padding == pytest.approx(1 - sum(lengths) / batch.ids.numel())
    # within the bound of first fit decreasing, against the least that any packing needs
    assert len(batch.ids) <= 11 / 9 * max(-(-sum(lengths) // 64), sum(length > 32 for length in lengths)) + 1


def test_longest_first_and_the_first_row_with_room():
    batch = pack(make_samples([3, 9, 2, 7, 1, 10]), 12)
    assert [[int((row == i).sum()) for i in range(1, int(row.max()) + 1)] for row in batch.segments] == [
        [10, 2],
        [9, 3],
        [7, 1],
    ]
    assert all(torch.equal(a, b) for a, b in zip(batch, pack(make_samples([3, 9, 2, 7, 1, 10]), 12), strict=True))


def test_a_batch_is_as_wide_as_its_fullest_row():
    batch = pack(make_samples([4, 5]), 100)
    assert batch.ids.shape == (1, 9) and batch.padding == 0


def test_what_cannot_be_packed_raises():
    with pytest.raises(ValueError, match="a sample has 13 ids and a row takes 12"):
        pack(make_samples([3, 13]), 12)
    with pytest.raises(ValueError, match="no samples"):
        pack([], 12)
