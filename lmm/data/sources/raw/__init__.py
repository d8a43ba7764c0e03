"""Recordings as their publishers ship them; a module for each format, its name is what `lmm data import` takes."""
