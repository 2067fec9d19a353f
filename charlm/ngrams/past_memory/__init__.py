"""Counting texts that are larger than memory: sorted runs on the disk, merged into tables."""
