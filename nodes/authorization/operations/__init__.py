"""The authorization slice's use cases: issuing, accepting, recording, forwarding, loading."""
