"""The open toolkit for large motion models (after arXiv 2410.03311)."""

__version__ = "0.1.0"
