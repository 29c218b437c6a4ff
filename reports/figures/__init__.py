"""Figures made from the runs below an output folder."""
