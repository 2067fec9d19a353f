"""charlm.sequences."""
