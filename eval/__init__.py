"""Scores, agreement, behaviour, shares, and the report that holds them."""
