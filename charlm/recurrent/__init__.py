"""charlm.recurrent."""
