// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {FederationLedger} from "./FederationLedger.sol";

/// @title The members' private record of federations
/// @notice Holds salted commitments to what the members show each other: full manifests, bids and allocations of each
/// round. Their ciphertext is in the artifact store, their keys never on any chain: what could not be destroyed must
/// not be here. The head of this chain is anchored on the public one.
contract PrivateLedger is FederationLedger {
    /// @notice What a round's list of commitments is of.
    enum Kind {
        Manifests,
        Bids,
        Allocations
    }

    /// @notice A recorded list: its digest, its length and its block, 0 when there is none. The commitments
    /// themselves are in the RoundRecorded event of that block.
    struct Record {
        bytes32 digest;
        uint32 count;
        uint64 recordedAt;
    }

    mapping(bytes32 key => Record) private _records;

    /// @notice A list of commitments was recorded for a round.
    event RoundRecorded(
        bytes32 indexed run,
        uint32 indexed lane,
        Kind indexed kind,
        uint32 generation,
        uint32 round,
        bytes32[] commitments
    );

    /// @notice A round's list is recorded once.
    error AlreadyRecorded(bytes32 run, uint32 lane, uint32 generation, uint32 round, Kind kind);

    /// @param delay Seconds between the first and the second step of handing over the administration.
    /// @param administrator The first administrator.
    constructor(uint48 delay, address administrator) FederationLedger(delay, administrator) {}

    /// @notice Records a round's list of commitments, once.
    /// @param commitments In canonical order: ascending by the address of the organisation they are about.
    function recordRound(
        bytes32 run,
        uint32 lane,
        uint32 generation,
        uint32 round,
        Kind kind,
        bytes32[] calldata commitments
    ) external whenNotPaused onlyCoordinator(run) {
        Record storage entry = _records[_key(run, lane, generation, round, kind)];
        if (entry.recordedAt != 0) revert AlreadyRecorded(run, lane, generation, round, kind);
        entry.digest = keccak256(abi.encodePacked(commitments));
        entry.count = uint32(commitments.length);
        entry.recordedAt = uint64(block.number);
        emit RoundRecorded(run, lane, kind, generation, round, commitments);
    }

    /// @notice What is recorded for a round; `recordedAt` is 0 when there is nothing.
    function getRecord(bytes32 run, uint32 lane, uint32 generation, uint32 round, Kind kind)
        external
        view
        returns (Record memory)
    {
        return _records[_key(run, lane, generation, round, kind)];
    }

    function _key(bytes32 run, uint32 lane, uint32 generation, uint32 round, Kind kind)
        private
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(run, lane, generation, round, kind));
    }
}
