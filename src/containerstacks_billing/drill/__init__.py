"""Faults on purpose and an oracle that judges what they left: the operator's drill, and the base of the fault tests."""
