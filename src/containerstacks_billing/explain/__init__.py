"""Explanations of what was billed, for support, accountants and customers: `why` and `statement`."""
