"""The operations console: shows an institution's staff what its node knows, and checks proofs.

It reads nodes only through `nodes.api.client`, and checks every proof itself against the chain.
"""
