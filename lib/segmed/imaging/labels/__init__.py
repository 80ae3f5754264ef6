"""Label maps: masks and segments with names and colours, and how files hold them."""
