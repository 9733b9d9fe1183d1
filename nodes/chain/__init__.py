"""The chain, seen by a node: any EVM JSON-RPC server by URL, local keys, two contracts.

Importing this package chooses the fast Keccak before eth_hash is imported anywhere: eth_hash.auto
would prefer pycryptodome, which is seven times slower.
"""

import os

os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")
