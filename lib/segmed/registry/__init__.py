"""Trained versions of models: what is kept, which one is served, and the gate in front of it."""
