"""The public record: contracts, the chains that hold them, and the ledger that the rest of Foedus sees.

    contracts/      the Foundry project (Solidity); its compiled artefacts lie in assets/contracts
    artefacts       ABI and bytecode by contract name
    devnet/         development chains: py-evm in a daemon of the state folder, Foundry's anvil
    audit/          everything checked again, without trust in who wrote it
    addresses       the address that a new contract gets
    nodes           embedded | anvil | rpc behind one interface, a web3.Web3
    transactions    sending so that the effect happens exactly once
    contract        a contract of ours on a node
    deployment      finding a contract on a chain, or putting it there
    ledger          EthereumLedger: core.ledger.Ledger over the public contract
    membership      an organisation's signed request to be registered
    erasures, credits, registry, private    the contracts' other records
    commitments     what is committed to a round, publicly and privately
    queue           rounds on their way to a ledger, off the critical path
    observer        a ledger as an organisation reads it, without waiting for it
    participation   a proof that an update was admitted, checked alone
    control         start, show, stop and deploy, for the command line

`open_ledger(chain, state, key)` is all that a ServerApp or an auditor needs.
"""
