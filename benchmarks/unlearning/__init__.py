"""What erasing an organisation leaves behind, by every method, against retraining without it."""
