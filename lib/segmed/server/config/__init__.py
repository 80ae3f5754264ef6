"""Settings of the server, as `--conf KEY VALUE` and the environment give them."""
