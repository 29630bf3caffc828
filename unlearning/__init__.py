"""Removing an organisation, or some of its records, with evidence."""
