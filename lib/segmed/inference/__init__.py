"""From a prompt to a mask: weights loaded once, embeddings cached, slices of a volume visited in turn."""
