"""How well, how faithfully and how fast a token's teachers are named."""
