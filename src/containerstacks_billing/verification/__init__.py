"""Verification of the books from the rows alone; imports nothing of the charging engine."""
