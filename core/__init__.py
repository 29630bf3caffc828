"""The nouns of a federation and the pure rules that several readers need: NumPy and the standard library."""
