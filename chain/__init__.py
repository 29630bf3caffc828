"""The public record: contracts, the chains that hold them, and the ledger that the rest of Covenant sees.

    contracts/    the Foundry project (Solidity); compiled once, its artefacts lie in assets/contracts
    artefacts     ABI and bytecode by contract name
    journal       an append-only key-value file that survives kill -9
    evm           one embedded chain: py-evm over a journal
    rpc           Ethereum's JSON-RPC over an embedded chain
    daemon        the process that serves a state folder's embedded chains on loopback
    development   keys, chain ids and funds of development chains; they protect nothing
    nodes         embedded | anvil | rpc behind one interface, a web3.Web3
    ethereum      EthereumLedger: core.ledger.Ledger over a node and a contract; `open_ledger` is the way in

`open_ledger(chain, state, key)` is all that a ServerApp or an auditor needs.
"""
