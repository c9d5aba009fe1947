"""Settings that every test shares."""

import torch

# Small tensors on shared cores: more threads only wait for each other.
torch.set_num_threads(1)
