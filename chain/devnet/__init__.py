"""Development chains: an embedded one on py-evm, and Foundry's anvil, as services of a state folder."""
