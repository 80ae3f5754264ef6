"""Other runtimes than PyTorch, and export to other formats."""
