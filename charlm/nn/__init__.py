"""Recurrent networks: cells, kernels, stacks, heads and dropout. Knows torch and no characters.

Open `cells` first: each cell is a class with its formula. `stack` puts layers of them on each other, `heads` turns
their output into log-probabilities or a Score, `look_back` is attention over the last characters, `kernels` runs the
same formulas faster.
"""
