"""The parts of the check of a GPU: networks, the training of the default model, and measures."""
