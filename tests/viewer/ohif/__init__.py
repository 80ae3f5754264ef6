"""OHIF on a real PACS, in a real browser; the modules share a server."""
