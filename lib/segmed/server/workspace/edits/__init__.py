"""Changes of a workspace beside prompts and strokes: names and colours of labels, several objects at once."""
