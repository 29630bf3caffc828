"""Who takes part in a round: the policies, and what an organisation's agent learns."""
