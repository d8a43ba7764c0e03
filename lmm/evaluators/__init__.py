"""Instruments that compare motions with texts and with one another."""

from lmm.evaluators.base import Evaluator
from lmm.evaluators.guo import GuoEvaluator
from lmm.evaluators.learned import LearnedEvaluator
from lmm.evaluators.loading import load_evaluator

__all__ = ["Evaluator", "GuoEvaluator", "LearnedEvaluator", "load_evaluator"]
