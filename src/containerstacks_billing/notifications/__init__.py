"""Events for the host application: the outbox, webhooks and their delivery."""
