"""A sweep: many runs whose settings differ, and which of them did best."""
