"""Admission: whether an organization may create an instance, and the minimum balances that it needs for that."""
