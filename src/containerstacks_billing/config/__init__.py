"""Configuration: flags, environment, `.env` and credentials, merged with the origin of each value."""
