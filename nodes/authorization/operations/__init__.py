"""The authorization slice's use cases: issuing, accepting, forwarding, loading."""
