"""What runs at an organisation: it trains on its own data, checks what it is sent, and signs what it sends."""
