"""What the acquirer's HTTP front needs of its node: keys of callers, orders, webhooks."""
