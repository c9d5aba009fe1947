"""Codes: the integers that a chip is loaded with, and what they mean."""
