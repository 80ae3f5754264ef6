"""The default model: a window of the slice around the prompt, the prompt drawn into it, a small network, its mask."""
