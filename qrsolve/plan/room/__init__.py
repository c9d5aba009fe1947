"""What all layers of a network take together of a chip's cores and chips."""
