"""API tokens: creation, verification and revocation."""
