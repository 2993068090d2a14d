"""Adjustments of what was charged: reversals, credits, repayments, and the posting that corrections share."""
