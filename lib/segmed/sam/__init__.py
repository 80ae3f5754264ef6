"""The SAM backbone: weights, encoding with a bounded cache, decoding, propagation through slices."""
