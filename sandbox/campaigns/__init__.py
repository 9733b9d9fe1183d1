"""Campaigns against the evidence and the POS link: `countersign tamper`, `countersign fuzz`."""
