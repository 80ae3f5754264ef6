"""Training of the default model: labelled and synthetic images, windows, simulated prompts, and the loop."""
