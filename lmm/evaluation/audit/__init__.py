"""An evaluator is measured before it measures: what it sees, what it does not, and how far that can be trusted.

The paper's own finding (arXiv 2410.03311): FID and R-precision come from a small network trained on 20K motions and
mislead, above all out of domain. `lmm audit-evaluator` says by how much, for an evaluator and a data set.
"""

from lmm.evaluation.audit.agreement import rank_agreement
from lmm.evaluation.audit.verb import audit_evaluator

__all__ = ["audit_evaluator", "rank_agreement"]
