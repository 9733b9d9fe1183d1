"""Settlement: proposing, signing, following the chain, carrying out orders."""
