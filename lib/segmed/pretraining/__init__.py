"""How the default model is made: labelled images and synthetic ones, windows, simulated prompts, the training loop."""
