"""Which organisation taught which token."""
