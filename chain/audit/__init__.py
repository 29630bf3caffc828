"""The audit: everything that a run's files and the chain say, checked without trusting who wrote them."""
