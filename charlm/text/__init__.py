"""Texts: vocabularies, reading, splits, lanes and windows, known corpora, the suffix index."""
