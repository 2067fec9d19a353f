"""charlm.mixing."""
