"""Parts of the `segmed` command, one file per group of subcommands."""
