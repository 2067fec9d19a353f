"""charlm.ngrams."""
