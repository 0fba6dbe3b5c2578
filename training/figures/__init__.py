"""Figures with their intervals, and the report they stand in: unit, number, positives and method beside each."""
