"""Recurrent networks: cells, kernels, stacks, heads and schedules. Knows torch and no characters."""
