"""A small permissioned EVM chain in one process: py-evm over SQLite behind JSON-RPC.

One sealer, blocks on demand, members' transactions only. Nodes don't know it: they speak JSON-RPC
to it as to any other EVM client. docs/chain.md tells what it promises.
"""

import nodes.chain  # noqa: F401 - chooses the Keccak before eth_hash is imported
