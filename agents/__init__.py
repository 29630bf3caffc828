"""Participation: the policies that select organisations, and the agents that bid, earn credit and learn."""
