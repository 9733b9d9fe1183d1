"""All SQL of the authorization slice that writes. Callers own the transaction."""
