// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {FederationLedger} from "./FederationLedger.sol";

/// @title The members' private record of federations
/// @notice Holds salted commitments to what the members show each other: full manifests, bids and allocations of each
/// round, and erasure requests. Their ciphertext is in the artifact store, their keys never on any chain: what could
/// not be destroyed must not be here. The head of this chain is anchored on the public one.
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
    mapping(bytes32 run => mapping(bytes32 request => address)) private _requesters;

    /// @notice A list of commitments was recorded for a round.
    event RoundRecorded(
        bytes32 indexed run,
        uint32 indexed lane,
        Kind indexed kind,
        uint32 generation,
        uint32 round,
        bytes32[] commitments
    );
    /// @notice A member asked for an erasure.
    event ErasureRequested(bytes32 indexed run, bytes32 indexed request, address indexed requester);

    /// @notice A round's list is recorded once.
    error AlreadyRecorded(bytes32 run, uint32 lane, uint32 generation, uint32 round, Kind kind);
    /// @notice An erasure is requested once.
    error AlreadyRequested(bytes32 request, address requester);
    /// @notice The list is not that of the run's members.
    error MembersMismatch(bytes32 got, bytes32 wanted);
    /// @notice Only members ask for erasures.
    error NotMember(bytes32 run, address sender);

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

    /// @notice Records that the sender asks for an erasure; the coordinator cannot prevent it.
    /// @param request Salted digest of the signed request.
    /// @param organisations The run's members as they were opened: proves that the sender is one.
    function requestErasure(bytes32 run, bytes32 request, address[] calldata organisations)
        external
        whenNotPaused
    {
        if (request == 0) revert ZeroDigest();
        bytes32 members = keccak256(abi.encodePacked(organisations));
        if (members != _runs[run].members) revert MembersMismatch(members, _runs[run].members);
        if (!_contains(organisations, msg.sender)) revert NotMember(run, msg.sender);
        address requester = _requesters[run][request];
        if (requester != address(0)) revert AlreadyRequested(request, requester);
        _requesters[run][request] = msg.sender;
        emit ErasureRequested(run, request, msg.sender);
    }

    /// @notice What is recorded for a round; `recordedAt` is 0 when there is nothing.
    function getRecord(bytes32 run, uint32 lane, uint32 generation, uint32 round, Kind kind)
        external
        view
        returns (Record memory)
    {
        return _records[_key(run, lane, generation, round, kind)];
    }

    /// @notice Who asked for an erasure; zero when nobody did.
    function getRequester(bytes32 run, bytes32 request) external view returns (address) {
        return _requesters[run][request];
    }

    function _contains(address[] calldata list, address wanted) private pure returns (bool) {
        for (uint256 i = 0; i < list.length; ++i) {
            if (list[i] == wanted) return true;
        }
        return false;
    }

    function _key(bytes32 run, uint32 lane, uint32 generation, uint32 round, Kind kind)
        private
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(run, lane, generation, round, kind));
    }
}
