"""Requests that segment: prompts in any plane, progress and stopping, interpolation, surfaces."""
