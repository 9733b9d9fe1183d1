"""A real permissioned network on this machine: several validators of an existing EVM engine.

The engine is geth 1.13.15, the last line of geth that seals clique (EIP-225) itself. It comes from
the Go module proxy and is built once, into var/ (engine.py). network.py starts its validators on
loopback, kills and restarts them, cuts the network in two and joins it again. docs/chain.md says
what it is good for and what it doesn't show.

    python -m sandbox.validators
"""
