"""Tasks of MONAI Label: inference with prompts, automatic and by detection, scribbles, and training."""
