// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {FederationLedger} from "./FederationLedger.sol";

/// @title The public record of federations
/// @notice Holds one salted commitment per (run, lane, generation, round): committed once, never rewritten, its
/// parent the lane's head. An erasure opens a new generation from an earlier round and moves the head; what was
/// committed before stays. Nothing here is personal: every digest is salted before it arrives.
contract PublicLedger is FederationLedger, EIP712, Nonces {
    /// @notice What one transaction says about a round.
    /// @param run Digest of the run's genesis.
    /// @param lane Organisations that learn from each other, numbered from 0.
    /// @param generation 0 until the lane's first erasure.
    /// @param round From 1; in a later generation from the parent round + 1.
    /// @param parent The aggregate of the lane's head; zero before its first round.
    /// @param updatesRoot Merkle root over the salted manifests that were admitted.
    /// @param aggregate Salted digest of the round's outcome: its record and its new adapter.
    /// @param count Number of admitted updates.
    struct Commitment {
        bytes32 run;
        uint32 lane;
        uint32 generation;
        uint32 round;
        bytes32 parent;
        bytes32 updatesRoot;
        bytes32 aggregate;
        uint32 count;
    }

    /// @notice A lane's head: the current generation, its height, and the round it forked from.
    struct Lane {
        uint32 generation;
        uint32 height;
        uint32 parentGeneration;
        uint32 parentRound;
    }

    /// @notice A committed round; `committedAt` is its block, 0 when nothing is committed.
    struct Round {
        bytes32 updatesRoot;
        bytes32 aggregate;
        uint32 count;
        uint64 committedAt;
    }

    /// @notice An erasure: what was attested before anything was destroyed, and the certificate afterwards.
    struct Erasure {
        bytes32 attestation;
        bytes32 certificate;
        uint32 lane;
        uint32 generation;
        uint64 attestedAt;
    }

    /// @notice A registered organisation: its SuperNode key's digest and the blocks of registration and revocation.
    struct Organisation {
        bytes32 nodeKey;
        uint64 registeredAt;
        uint64 revokedAt;
    }

    /// @notice The Merkle root of cumulative credit and its number, from 1.
    struct Credit {
        bytes32 root;
        uint64 epoch;
    }

    /// @notice The newest anchored head of a private chain.
    struct PrivateHead {
        bytes32 blockHash;
        uint64 blockNumber;
    }

    /// @notice Held by registered organisations that were not revoked.
    bytes32 public constant ORGANISATION_ROLE = keccak256("ORGANISATION_ROLE");
    /// @notice EIP-712 type of a registration request.
    bytes32 public constant MEMBERSHIP_TYPEHASH =
        keccak256("Membership(address organisation,bytes32 nodeKey,uint256 nonce,uint256 deadline)");
    /// @dev Nobody holds this role: organisations enter by a signed request and leave by revocation only.
    bytes32 private constant NOBODY_ROLE = keccak256("NOBODY_ROLE");

    mapping(bytes32 run => mapping(uint32 lane => Lane)) private _lanes;
    mapping(bytes32 run => mapping(uint32 lane => mapping(uint64 generationAndRound => Round))) private
        _rounds;
    mapping(bytes32 run => mapping(bytes32 erasure => Erasure)) private _erasures;
    mapping(bytes32 run => mapping(uint64 epoch => bytes32 root)) private _credits;
    mapping(bytes32 run => uint64) private _epochs;
    mapping(bytes32 run => mapping(address organisation => uint256)) private _claimed;
    mapping(bytes32 run => mapping(uint256 chainId => PrivateHead)) private _privateHeads;
    mapping(address organisation => Organisation) private _organisations;

    /// @notice A round was appended to its lane's head.
    event RoundCommitted(
        bytes32 indexed run,
        uint32 indexed lane,
        uint32 indexed generation,
        uint32 round,
        bytes32 parent,
        bytes32 updatesRoot,
        bytes32 aggregate,
        uint32 count
    );
    /// @notice The audit before an erasure was anchored.
    event ErasureAttested(
        bytes32 indexed run, bytes32 indexed erasure, uint32 indexed lane, bytes32 attestation
    );
    /// @notice A lane's head moved to an earlier round.
    event GenerationOpened(
        bytes32 indexed run,
        uint32 indexed lane,
        bytes32 indexed erasure,
        uint32 generation,
        uint32 parentGeneration,
        uint32 parentRound
    );
    /// @notice The certificate of an erasure was anchored.
    event ErasureCertified(bytes32 indexed run, bytes32 indexed erasure, bytes32 certificate);
    /// @notice The Merkle root of cumulative credit was posted.
    event CreditsPosted(bytes32 indexed run, uint64 indexed epoch, bytes32 root);
    /// @notice An organisation's credit was recorded as claimed.
    event CreditClaimed(
        bytes32 indexed run, address indexed organisation, uint256 amount, uint256 cumulative
    );
    /// @notice The head of a private chain was anchored.
    event PrivateHeadAnchored(
        bytes32 indexed run, uint256 indexed chainId, uint64 blockNumber, bytes32 blockHash
    );
    /// @notice An organisation was registered, or changed its SuperNode key.
    event OrganisationRegistered(address indexed organisation, bytes32 nodeKey);
    /// @notice An organisation's registration ended.
    event OrganisationRevoked(address indexed organisation);

    /// @notice A digest may not be zero: zero stands for nothing.
    error ZeroDigest();
    /// @notice Commits go to the lane's current generation, openings to the next.
    error GenerationNotCurrent(uint32 got, uint32 expected);
    /// @notice Rounds follow each other without gaps, and none is written twice.
    error RoundNotNext(uint32 got, uint32 expected);
    /// @notice A round's parent is the lane's head.
    error ParentNotHead(bytes32 got, bytes32 expected);
    /// @notice No such round was committed.
    error RoundUnknown(uint32 lane, uint32 generation, uint32 round);
    /// @notice No such erasure was attested for the lane.
    error ErasureUnknown(bytes32 erasure, uint32 lane);
    /// @notice An erasure is attested once.
    error ErasureAlreadyAttested(bytes32 erasure);
    /// @notice An erasure opens one generation.
    error ErasureAlreadyUsed(bytes32 erasure, uint32 generation);
    /// @notice An erasure is certified once.
    error ErasureAlreadyCertified(bytes32 erasure);
    /// @notice Credit epochs follow each other without gaps.
    error EpochNotNext(uint64 got, uint64 expected);
    /// @notice The proof does not lead from the leaf to the root.
    error ProofInvalid(bytes32 root, bytes32 leaf);
    /// @notice No more than this was claimed before.
    error NothingToClaim(uint256 cumulative, uint256 claimed);
    /// @notice Anchors of a private chain only move forward.
    error BlockNotNewer(uint64 got, uint64 newest);
    /// @notice The request was submitted too late.
    error SignatureExpired(uint256 deadline, uint256 timestamp);
    /// @notice The request was not signed by the organisation.
    error SignerNotOrganisation(address signer, address organisation);
    /// @notice The organisation was never registered.
    error OrganisationUnknown(address organisation);
    /// @notice A revoked organisation stays revoked.
    error OrganisationAlreadyRevoked(address organisation);

    /// @param delay Seconds between the first and the second step of handing over the administration.
    /// @param administrator The first administrator.
    constructor(uint48 delay, address administrator)
        FederationLedger(delay, administrator)
        EIP712("Foedus", "1")
    {
        _setRoleAdmin(ORGANISATION_ROLE, NOBODY_ROLE);
        _setRoleAdmin(NOBODY_ROLE, NOBODY_ROLE);
    }

    // ---------------------------------------------------------------------------------------------- rounds

    /// @notice Appends a round to its lane's head. Constant cost, whatever the number of organisations.
    function commitRound(Commitment calldata c) external whenNotPaused onlyCoordinator(c.run) {
        Lane memory lane = _lanes[c.run][c.lane];
        if (c.generation != lane.generation) revert GenerationNotCurrent(c.generation, lane.generation);
        if (c.round != lane.height + 1) revert RoundNotNext(c.round, lane.height + 1);
        bytes32 head = _head(c.run, c.lane, lane);
        if (c.parent != head) revert ParentNotHead(c.parent, head);
        if (c.aggregate == 0) revert ZeroDigest();
        _rounds[c.run][c.lane][_key(c.generation, c.round)] =
            Round(c.updatesRoot, c.aggregate, c.count, uint64(block.number));
        _lanes[c.run][c.lane].height = c.round;
        emit RoundCommitted(
            c.run, c.lane, c.generation, c.round, c.parent, c.updatesRoot, c.aggregate, c.count
        );
    }

    // -------------------------------------------------------------------------------------------- erasures

    /// @notice Anchors the result of the full audit that precedes an erasure, signed by coordinator and requester.
    /// @param erasure Salted digest of the signed request.
    /// @param attestation Salted digest of the audit's result and of the digests about to vanish.
    function attestErasure(bytes32 run, bytes32 erasure, uint32 lane, bytes32 attestation)
        external
        whenNotPaused
        onlyCoordinator(run)
    {
        if (erasure == 0 || attestation == 0) revert ZeroDigest();
        Erasure storage entry = _erasures[run][erasure];
        if (entry.attestedAt != 0) revert ErasureAlreadyAttested(erasure);
        entry.attestation = attestation;
        entry.lane = lane;
        entry.attestedAt = uint64(block.number);
        emit ErasureAttested(run, erasure, lane, attestation);
    }

    /// @notice Moves a lane's head to an earlier round for an attested erasure; every round stays readable.
    /// @param parentRound The round the new generation grows from; 0 for the lane's beginning.
    function openGeneration(
        bytes32 run,
        uint32 lane,
        uint32 generation,
        bytes32 erasure,
        uint32 parentGeneration,
        uint32 parentRound
    ) external whenNotPaused onlyCoordinator(run) {
        uint32 expected = _lanes[run][lane].generation + 1;
        if (generation != expected) revert GenerationNotCurrent(generation, expected);
        if (parentRound != 0 && _rounds[run][lane][_key(parentGeneration, parentRound)].committedAt == 0) {
            revert RoundUnknown(lane, parentGeneration, parentRound);
        }
        Erasure storage entry = _erasures[run][erasure];
        if (entry.attestedAt == 0 || entry.lane != lane) revert ErasureUnknown(erasure, lane);
        if (entry.generation != 0) revert ErasureAlreadyUsed(erasure, entry.generation);
        entry.generation = generation;
        _lanes[run][lane] = Lane(generation, parentRound, parentGeneration, parentRound);
        emit GenerationOpened(run, lane, erasure, generation, parentGeneration, parentRound);
    }

    /// @notice Anchors the certificate of an attested erasure, once.
    function certifyErasure(bytes32 run, bytes32 erasure, bytes32 certificate)
        external
        whenNotPaused
        onlyCoordinator(run)
    {
        if (certificate == 0) revert ZeroDigest();
        Erasure storage entry = _erasures[run][erasure];
        if (entry.attestedAt == 0) revert ErasureUnknown(erasure, 0);
        if (entry.certificate != 0) revert ErasureAlreadyCertified(erasure);
        entry.certificate = certificate;
        emit ErasureCertified(run, erasure, certificate);
    }

    // --------------------------------------------------------------------------------------------- credits

    /// @notice Posts the Merkle root of every organisation's cumulative credit.
    /// @param epoch Numbered from 1 without gaps.
    function postCredits(bytes32 run, uint64 epoch, bytes32 root)
        external
        whenNotPaused
        onlyCoordinator(run)
    {
        uint64 expected = _epochs[run] + 1;
        if (epoch != expected) revert EpochNotNext(epoch, expected);
        _epochs[run] = epoch;
        _credits[run][epoch] = root;
        emit CreditsPosted(run, epoch, root);
    }

    /// @notice Records the part of an organisation's cumulative credit that was not claimed before.
    /// @dev Anyone may submit it: the proof decides, and the record is the organisation's. Every epoch stays valid, and
    /// what is claimed only grows: a later root that gives an organisation less, or leaves it out, takes nothing away.
    /// @param epoch The one whose root the proof leads to.
    /// @param cumulative Credit since the run's start, in units of 1e-18.
    function claimCredit(
        bytes32 run,
        uint64 epoch,
        address organisation,
        uint256 cumulative,
        bytes32[] calldata proof
    ) external whenNotPaused returns (uint256 amount) {
        bytes32 root = _credits[run][epoch];
        bytes32 leaf = _leaf(abi.encode(run, organisation, cumulative));
        if (!MerkleProof.verifyCalldata(proof, root, leaf)) revert ProofInvalid(root, leaf);
        uint256 claimed = _claimed[run][organisation];
        if (cumulative <= claimed) revert NothingToClaim(cumulative, claimed);
        amount = cumulative - claimed;
        _claimed[run][organisation] = cumulative;
        emit CreditClaimed(run, organisation, amount, cumulative);
    }

    // --------------------------------------------------------------------------------------- private chain

    /// @notice Anchors the head of the members' private chain; block numbers only rise.
    function anchorPrivateHead(bytes32 run, uint256 chainId, uint64 blockNumber, bytes32 blockHash)
        external
        whenNotPaused
        onlyCoordinator(run)
    {
        if (blockHash == 0) revert ZeroDigest();
        PrivateHead storage newest = _privateHeads[run][chainId];
        if (newest.blockHash != 0 && blockNumber <= newest.blockNumber) {
            revert BlockNotNewer(blockNumber, newest.blockNumber);
        }
        (newest.blockHash, newest.blockNumber) = (blockHash, blockNumber);
        emit PrivateHeadAnchored(run, chainId, blockNumber, blockHash);
    }

    // -------------------------------------------------------------------------------------------- identity

    /// @notice Registers an organisation, or changes its SuperNode key, on its own signed request.
    /// @param nodeKey keccak256 of the SuperNode's public key; zero when it has none.
    /// @param deadline Last timestamp at which the request may be submitted.
    /// @param signature Of EIP-712 Membership, with the organisation's current nonce.
    function register(address organisation, bytes32 nodeKey, uint256 deadline, bytes calldata signature)
        external
        whenNotPaused
        onlyRole(COORDINATOR_ROLE)
    {
        if (block.timestamp > deadline) revert SignatureExpired(deadline, block.timestamp);
        Organisation storage entry = _organisations[organisation];
        if (entry.revokedAt != 0) revert OrganisationAlreadyRevoked(organisation);
        bytes32 request = keccak256(
            abi.encode(MEMBERSHIP_TYPEHASH, organisation, nodeKey, _useNonce(organisation), deadline)
        );
        address signer = ECDSA.recoverCalldata(_hashTypedDataV4(request), signature);
        if (signer != organisation) revert SignerNotOrganisation(signer, organisation);
        entry.nodeKey = nodeKey;
        if (entry.registeredAt == 0) entry.registeredAt = uint64(block.number);
        _grantRole(ORGANISATION_ROLE, organisation);
        emit OrganisationRegistered(organisation, nodeKey);
    }

    /// @notice Ends an organisation's registration for good, from the next round: a round whose parent was
    /// committed after this block must not contain it.
    function revokeOrganisation(address organisation) external onlyRole(DEFAULT_ADMIN_ROLE) {
        Organisation storage entry = _organisations[organisation];
        if (entry.registeredAt == 0) revert OrganisationUnknown(organisation);
        if (entry.revokedAt != 0) revert OrganisationAlreadyRevoked(organisation);
        entry.revokedAt = uint64(block.number);
        _revokeRole(ORGANISATION_ROLE, organisation);
        emit OrganisationRevoked(organisation);
    }

    // --------------------------------------------------------------------------------------------- reading

    /// @notice The lane's current generation and height.
    function getLane(bytes32 run, uint32 lane) external view returns (Lane memory) {
        return _lanes[run][lane];
    }

    /// @notice The aggregate that the lane's next round must name as its parent.
    function getHead(bytes32 run, uint32 lane) external view returns (bytes32) {
        return _head(run, lane, _lanes[run][lane]);
    }

    /// @notice A committed round; `committedAt` is 0 when there is none.
    function getRound(bytes32 run, uint32 lane, uint32 generation, uint32 round)
        external
        view
        returns (Round memory)
    {
        return _rounds[run][lane][_key(generation, round)];
    }

    /// @notice An erasure; `attestedAt` is 0 when there is none.
    function getErasure(bytes32 run, bytes32 erasure) external view returns (Erasure memory) {
        return _erasures[run][erasure];
    }

    /// @notice An organisation's registration.
    function getOrganisation(address organisation) external view returns (Organisation memory) {
        return _organisations[organisation];
    }

    /// @notice The newest credit root.
    function getCredits(bytes32 run) external view returns (Credit memory) {
        uint64 epoch = _epochs[run];
        return Credit(_credits[run][epoch], epoch);
    }

    /// @notice The credit root of an epoch, zero when it was not posted.
    function getCreditRoot(bytes32 run, uint64 epoch) external view returns (bytes32) {
        return _credits[run][epoch];
    }

    /// @notice The cumulative credit an organisation has claimed.
    function getClaimed(bytes32 run, address organisation) external view returns (uint256) {
        return _claimed[run][organisation];
    }

    /// @notice The newest anchored head of a private chain.
    function getPrivateHead(bytes32 run, uint256 chainId) external view returns (PrivateHead memory) {
        return _privateHeads[run][chainId];
    }

    /// @notice Whether a salted manifest is among the updates of a committed round.
    /// @param manifest The salted digest of the manifest, before it is hashed into a leaf.
    function isAdmitted(
        bytes32 run,
        uint32 lane,
        uint32 generation,
        uint32 round,
        bytes32 manifest,
        bytes32[] calldata proof
    ) external view returns (bool) {
        Round storage entry = _rounds[run][lane][_key(generation, round)];
        return entry.committedAt != 0
            && MerkleProof.verifyCalldata(proof, entry.updatesRoot, _leaf(abi.encode(manifest)));
    }

    /// @notice The EIP-712 domain separator of this contract on this chain.
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @dev A round 0 is never committed, so a lane without rounds has the head zero.
    function _head(bytes32 run, uint32 lane, Lane memory lane_) private view returns (bytes32) {
        uint32 generation = lane_.height == lane_.parentRound ? lane_.parentGeneration : lane_.generation;
        return _rounds[run][lane][_key(generation, lane_.height)].aggregate;
    }

    function _key(uint32 generation, uint32 round) private pure returns (uint64) {
        return (uint64(generation) << 32) | round;
    }

    /// @dev Hashed twice, so that an inner node of the tree cannot pass for a leaf.
    function _leaf(bytes memory data) private pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(data)));
    }
}
