"""The SAM backbone: weights, image encoding, prompt decoding, and propagation through slices."""
