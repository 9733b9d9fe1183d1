"""The `countersign` command's subcommands, one module each; sandbox/cli.py registers them."""
