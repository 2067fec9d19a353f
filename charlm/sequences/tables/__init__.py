"""Tables of sequences and what is to be said of them: CSV and its kin, JSON Lines, arrays."""
