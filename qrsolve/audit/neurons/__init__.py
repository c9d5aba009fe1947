"""Neurons in integers, step by step as chips compute them; numpy alone."""
