"""MEANING: values and decisions of billing, without input, output or a clock."""
