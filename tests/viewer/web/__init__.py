"""The page in a real browser; the modules share a server."""
