import math

import torch

from lmm.metrics.codebook import CodebookUsage
from lmm.metrics.reconstruction import MPJPE


def test_mpjpe_by_hand():
    target = torch.zeros(2, 3, 22, 3)
    prediction = target.clone()
    prediction[0, 0, :, 0] = 0.1  # the whole body is 100 mm off in one frame
    prediction[1, 2, 5, 1] = 99.0  # not a real frame
    mask = torch.tensor([[True, True, True], [True, False, False]])
    metric, aligned = MPJPE(), MPJPE(align_root=True)
    for m in (metric, aligned):
        m.update(prediction, target, mask)
    assert math.isclose(float(metric.compute()), 100 / 4, rel_tol=1e-6)
    assert float(aligned.compute()) == 0


def test_codebook_usage_by_hand():
    metric = CodebookUsage(8)
    metric.update(torch.tensor([[0, 1], [2, -1]]))
    metric.update(torch.tensor([3, -1]))
    figures = metric.compute()
    assert math.isclose(float(figures["perplexity"]), 4.0, rel_tol=1e-6) and float(figures["usage"]) == 0.5
