"""charlm.lm."""
