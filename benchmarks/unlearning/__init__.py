"""What each unlearning method leaves of an erased organisation, against retraining without it."""
