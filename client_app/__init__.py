"""The ClientApp of an organisation: it trains on its own data, checks its coordinator, and signs its updates."""
