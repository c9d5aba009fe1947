"""The bytes of model files: one reader and one writer per format.

Nothing is imported here: a chip's reader asks only for the endings, and must not wait for torch.
"""
