"""Cards and wallets of the sandbox: a chip with its keys, a stripe's image, a wallet with codes."""
