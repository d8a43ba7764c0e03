"""Figures about motions and tokens, as torchmetrics."""
