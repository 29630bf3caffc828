"""Erasures carried out: the plan executed, records asked for, receipts collected."""
