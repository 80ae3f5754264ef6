"""Files of strangers are decoded in processes of their own, which have a budget of memory and time."""
