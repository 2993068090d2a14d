"""Health and status of billing: who bills now, who takes over, and when."""
