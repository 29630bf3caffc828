"""Accuracy, faithfulness and speed of attribution."""
