"""Language models behind one interface, and the sequence models built from the same cells."""
