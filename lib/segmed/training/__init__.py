"""Training: simulated prompts, batches, loops, checkpoints, validation, and the registry of versions."""
