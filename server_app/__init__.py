"""The coordinator: it asks, admits, sums, records and commits, and can be trusted with none of it."""
