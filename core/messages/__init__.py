"""What travels in Flower's messages: the only reader and writer of record keys."""
