"""Workspaces of the page and OHIF: what a user draws on an image, its history, and its journal on disk."""
