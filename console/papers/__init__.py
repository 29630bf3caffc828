"""Papers about a run for people and programs outside it: model card, statement, bill of materials."""
