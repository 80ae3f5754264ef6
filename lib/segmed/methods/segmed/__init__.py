"""The default model: a small network on windows around the prompt, which is drawn as channels."""
