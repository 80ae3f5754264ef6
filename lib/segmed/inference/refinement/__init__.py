"""Refinement of masks: points along the outline, a conditional random field, level sets."""
