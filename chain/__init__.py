"""The public record: contracts, the chains that hold them, and the ledger that the rest of Foedus sees.

    contracts/    the Foundry project (Solidity); compiled once, its artefacts lie in assets/contracts
    artefacts     ABI and bytecode by contract name
    journal       an append-only key-value file that survives kill -9
    evm           one embedded chain: py-evm over a journal
    rpc, server   Ethereum's JSON-RPC over the embedded chains, on loopback
    service       a process of which there is one per folder, started on demand by any other
    daemon, anvil the services: the embedded chains, Foundry's anvil
    development   keys, chain ids and funds of development chains; they protect nothing
    nodes         embedded | anvil | rpc behind one interface, a web3.Web3
    transactions  sending so that the effect happens exactly once
    contract      a contract of ours on a node; deployment: finding it, or putting it there
    ethereum      EthereumLedger: core.ledger.Ledger over the public contract
    erasures, credits, registry, private    what else the contracts record
    commitments, queue    rounds on their way to a ledger, off the critical path
    revocations   who was revoked, asked for in the background
    control       start, show, stop and deploy, for the command line
    participation a proof that an update was admitted, checked alone
    observer      a ledger read by an organisation, which does not wait for it
    witness       what an organisation checks of its coordinator, round by round
    audit         everything checked again by whoever does not trust it

`open_ledger(chain, state, key)` is all that a ServerApp or an auditor needs.
"""
