"""Statements by the million: reading, labelling, writing."""
