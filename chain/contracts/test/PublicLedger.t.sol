// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {FederationLedger} from "../src/FederationLedger.sol";
import {PublicLedger} from "../src/PublicLedger.sol";
import {Fixture} from "./Fixture.sol";

contract PublicLedgerTest is Fixture {
    PublicLedger private ledger;
    bytes32 private constant ERASURE = keccak256("erasure");
    uint256 private constant KEY = 0xA11CE;

    function setUp() public {
        ledger = new PublicLedger(DELAY, ADMINISTRATOR);
        appoint(ledger);
        open(ledger);
    }

    function aggregate(uint32 generation, uint32 round) private pure returns (bytes32) {
        return keccak256(abi.encode("aggregate", generation, round));
    }

    /// @dev A commitment that fits on the lane's head.
    function next(uint32 lane) private view returns (PublicLedger.Commitment memory c) {
        PublicLedger.Lane memory head = ledger.getLane(RUN, lane);
        c.run = RUN;
        c.lane = lane;
        c.generation = head.generation;
        c.round = head.height + 1;
        c.parent = ledger.getHead(RUN, lane);
        c.updatesRoot = keccak256("root");
        c.aggregate = aggregate(head.generation, head.height + 1);
        c.count = 3;
    }

    function commit(PublicLedger.Commitment memory c) private {
        vm.prank(COORDINATOR);
        ledger.commitRound(c);
    }

    function commitMany(uint32 lane, uint256 number) private {
        for (uint256 i = 0; i < number; ++i) {
            commit(next(lane));
        }
    }

    function attest(bytes32 erasure, uint32 lane) private {
        vm.prank(COORDINATOR);
        ledger.attestErasure(RUN, erasure, lane, keccak256("attestation"));
    }

    function openGeneration(uint32 generation, bytes32 erasure, uint32 parentGeneration, uint32 parentRound)
        private
    {
        vm.prank(COORDINATOR);
        ledger.openGeneration(RUN, 0, generation, erasure, parentGeneration, parentRound);
    }

    // Rounds

    function test_a_round_is_stored_as_it_was_committed() public {
        vm.roll(11);
        PublicLedger.Commitment memory c = next(5);
        vm.expectEmit(true, true, true, true);
        emit PublicLedger.RoundCommitted(RUN, 5, 0, 1, 0, c.updatesRoot, c.aggregate, 3);
        commit(c);
        PublicLedger.Round memory found = ledger.getRound(RUN, 5, 0, 1);
        assertEq(found.updatesRoot, c.updatesRoot);
        assertEq(found.aggregate, c.aggregate);
        assertEq(found.count, 3);
        assertEq(found.committedAt, 11);
        assertEq(ledger.getHead(RUN, 5), c.aggregate);
    }

    function test_a_round_is_not_committed_twice() public {
        PublicLedger.Commitment memory c = next(0);
        commit(c);
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.RoundNotNext.selector, 1, 2));
        commit(c);
    }

    function test_no_round_is_left_out(uint32 round) public {
        vm.assume(round != 3);
        commitMany(0, 2);
        PublicLedger.Commitment memory c = next(0);
        c.round = round;
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.RoundNotNext.selector, round, 3));
        commit(c);
    }

    function test_the_parent_is_the_head(bytes32 parent, uint8 length) public {
        commitMany(0, length % 4);
        PublicLedger.Commitment memory c = next(0);
        vm.assume(parent != c.parent);
        bytes32 expected = c.parent;
        c.parent = parent;
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ParentNotHead.selector, parent, expected));
        commit(c);
    }

    function test_the_generation_is_the_current_one(uint32 generation) public {
        vm.assume(generation != 0);
        PublicLedger.Commitment memory c = next(0);
        c.generation = generation;
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.GenerationNotCurrent.selector, generation, 0));
        commit(c);
    }

    function test_an_aggregate_has_a_digest() public {
        PublicLedger.Commitment memory c = next(0);
        c.aggregate = 0;
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ZeroDigest.selector));
        commit(c);
    }

    function test_only_the_run_s_coordinator_commits(address sender) public {
        vm.assume(sender != COORDINATOR);
        PublicLedger.Commitment memory c = next(0);
        vm.expectRevert(notCoordinator(sender));
        vm.prank(sender);
        ledger.commitRound(c);
    }

    function test_a_coordinator_that_lost_its_role_commits_no_more() public {
        vm.prank(ADMINISTRATOR);
        ledger.revokeRole(COORDINATOR_ROLE, COORDINATOR);
        PublicLedger.Commitment memory c = next(0);
        vm.expectRevert(unauthorised(COORDINATOR, COORDINATOR_ROLE));
        commit(c);
    }

    function test_a_pause_stops_commits_and_forgets_nothing() public {
        commitMany(0, 1);
        vm.prank(ADMINISTRATOR);
        ledger.pause();
        PublicLedger.Commitment memory c = next(0);
        vm.expectRevert(abi.encodeWithSelector(Pausable.EnforcedPause.selector));
        commit(c);
        assertEq(ledger.getRound(RUN, 0, 0, 1).aggregate, aggregate(0, 1));
    }

    function test_lanes_have_heads_of_their_own() public {
        commitMany(0, 3);
        commitMany(1, 1);
        assertEq(ledger.getLane(RUN, 0).height, 3);
        assertEq(ledger.getLane(RUN, 1).height, 1);
    }

    /// @dev With 21,000 for the transaction and about 4,000 for its data it stays below 120,000.
    function test_a_round_after_the_first_executes_in_95_000_gas() public {
        commitMany(0, 1);
        PublicLedger.Commitment memory c = next(0);
        vm.prank(COORDINATOR);
        uint256 before = gasleft();
        ledger.commitRound(c);
        assertTrue(before - gasleft() < 95_000);
    }

    // Erasures

    function test_a_generation_grows_from_its_parent_round() public {
        commitMany(0, 4);
        attest(ERASURE, 0);
        vm.expectEmit(true, true, true, true);
        emit PublicLedger.GenerationOpened(RUN, 0, ERASURE, 1, 0, 2);
        openGeneration(1, ERASURE, 0, 2);
        assertEq(ledger.getHead(RUN, 0), aggregate(0, 2));
        commitMany(0, 1);
        assertEq(ledger.getRound(RUN, 0, 1, 3).aggregate, aggregate(1, 3));
        assertEq(ledger.getRound(RUN, 0, 0, 4).aggregate, aggregate(0, 4));
        assertEq(ledger.getHead(RUN, 0), aggregate(1, 3));
    }

    function test_a_generation_may_begin_before_the_first_round() public {
        commitMany(0, 2);
        attest(ERASURE, 0);
        openGeneration(1, ERASURE, 0, 0);
        assertEq(ledger.getHead(RUN, 0), 0);
        commitMany(0, 1);
        assertEq(ledger.getRound(RUN, 0, 1, 1).aggregate, aggregate(1, 1));
    }

    function test_a_second_erasure_may_reach_behind_the_first() public {
        commitMany(0, 4);
        attest(ERASURE, 0);
        openGeneration(1, ERASURE, 0, 3);
        commitMany(0, 1);
        attest("second", 0);
        openGeneration(2, "second", 0, 1);
        assertEq(ledger.getHead(RUN, 0), aggregate(0, 1));
        commitMany(0, 1);
        assertEq(ledger.getLane(RUN, 0).height, 2);
    }

    function test_generations_follow_each_other(uint32 generation) public {
        vm.assume(generation != 1);
        attest(ERASURE, 0);
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.GenerationNotCurrent.selector, generation, 1));
        openGeneration(generation, ERASURE, 0, 0);
    }

    function test_a_parent_round_was_committed(uint32 round) public {
        vm.assume(round > 2);
        commitMany(0, 2);
        attest(ERASURE, 0);
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.RoundUnknown.selector, 0, 0, round));
        openGeneration(1, ERASURE, 0, round);
    }

    function test_a_generation_needs_an_erasure_attested_for_its_lane() public {
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ErasureUnknown.selector, ERASURE, 0));
        openGeneration(1, ERASURE, 0, 0);
        attest(ERASURE, 1);
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ErasureUnknown.selector, ERASURE, 0));
        openGeneration(1, ERASURE, 0, 0);
    }

    function test_an_erasure_opens_one_generation() public {
        attest(ERASURE, 0);
        openGeneration(1, ERASURE, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ErasureAlreadyUsed.selector, ERASURE, 1));
        openGeneration(2, ERASURE, 0, 0);
    }

    function test_an_erasure_is_attested_once() public {
        vm.expectEmit(true, true, true, true);
        emit PublicLedger.ErasureAttested(RUN, ERASURE, 0, keccak256("attestation"));
        attest(ERASURE, 0);
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ErasureAlreadyAttested.selector, ERASURE));
        attest(ERASURE, 0);
    }

    function test_an_erasure_has_digests() public {
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ZeroDigest.selector));
        attest(0, 0);
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ZeroDigest.selector));
        vm.prank(COORDINATOR);
        ledger.attestErasure(RUN, ERASURE, 0, 0);
        attest(ERASURE, 0);
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ZeroDigest.selector));
        vm.prank(COORDINATOR);
        ledger.certifyErasure(RUN, ERASURE, 0);
    }

    function test_an_attested_erasure_is_certified_once() public {
        bytes32 certificate = keccak256("certificate");
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ErasureUnknown.selector, ERASURE, 0));
        vm.prank(COORDINATOR);
        ledger.certifyErasure(RUN, ERASURE, certificate);
        attest(ERASURE, 4);
        vm.expectEmit(true, true, false, true);
        emit PublicLedger.ErasureCertified(RUN, ERASURE, certificate);
        vm.prank(COORDINATOR);
        ledger.certifyErasure(RUN, ERASURE, certificate);
        assertEq(ledger.getErasure(RUN, ERASURE).certificate, certificate);
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ErasureAlreadyCertified.selector, ERASURE));
        vm.prank(COORDINATOR);
        ledger.certifyErasure(RUN, ERASURE, keccak256("another"));
    }

    function test_only_the_run_s_coordinator_writes_erasures_credits_and_anchors(address sender) public {
        vm.assume(sender != COORDINATOR);
        vm.expectRevert(notCoordinator(sender));
        vm.prank(sender);
        ledger.attestErasure(RUN, ERASURE, 0, ERASURE);
        vm.expectRevert(notCoordinator(sender));
        vm.prank(sender);
        ledger.openGeneration(RUN, 0, 1, ERASURE, 0, 0);
        vm.expectRevert(notCoordinator(sender));
        vm.prank(sender);
        ledger.certifyErasure(RUN, ERASURE, ERASURE);
        vm.expectRevert(notCoordinator(sender));
        vm.prank(sender);
        ledger.postCredits(RUN, 1, ERASURE);
        vm.expectRevert(notCoordinator(sender));
        vm.prank(sender);
        ledger.anchorPrivateHead(RUN, 1, 1, ERASURE);
    }

    // Credits and membership proofs

    function leaf(bytes memory data) private pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(data)));
    }

    function parentOf(bytes32 a, bytes32 b) private pure returns (bytes32) {
        return a < b ? keccak256(abi.encode(a, b)) : keccak256(abi.encode(b, a));
    }

    function postCredits(uint64 epoch, bytes32 root) private {
        vm.prank(COORDINATOR);
        ledger.postCredits(RUN, epoch, root);
    }

    function proofOf(bytes32 sibling) private pure returns (bytes32[] memory proof) {
        proof = new bytes32[](1);
        proof[0] = sibling;
    }

    function test_credit_is_claimed_by_its_increase(uint128 first, uint128 second) public {
        vm.assume(first > 0 && second > 0);
        bytes32 other = leaf(abi.encode(RUN, address(2), uint256(5)));
        postCredits(1, parentOf(leaf(abi.encode(RUN, address(1), uint256(first))), other));
        vm.expectEmit(true, true, false, true);
        emit PublicLedger.CreditClaimed(RUN, address(1), first, first);
        assertEq(ledger.claimCredit(RUN, 1, address(1), first, proofOf(other)), first);
        uint256 total = uint256(first) + second;
        vm.expectEmit(true, true, false, true);
        emit PublicLedger.CreditsPosted(RUN, 2, parentOf(leaf(abi.encode(RUN, address(1), total)), other));
        postCredits(2, parentOf(leaf(abi.encode(RUN, address(1), total)), other));
        assertEq(ledger.claimCredit(RUN, 2, address(1), total, proofOf(other)), second);
        assertEq(ledger.getClaimed(RUN, address(1)), total);
    }

    function test_a_later_root_takes_no_credit_away(uint128 first, uint128 second) public {
        vm.assume(first > 0 && second < first);
        bytes32 other = leaf("other");
        postCredits(1, parentOf(leaf(abi.encode(RUN, address(1), uint256(first))), other));
        postCredits(2, parentOf(leaf(abi.encode(RUN, address(1), uint256(second))), other));
        postCredits(3, other);
        assertEq(ledger.claimCredit(RUN, 1, address(1), first, proofOf(other)), first);
        vm.expectRevert(
            abi.encodeWithSelector(PublicLedger.NothingToClaim.selector, uint256(second), uint256(first))
        );
        ledger.claimCredit(RUN, 2, address(1), second, proofOf(other));
        assertEq(ledger.getClaimed(RUN, address(1)), first);
        assertEq(ledger.getCreditRoot(RUN, 3), other);
        assertEq(ledger.getCreditRoot(RUN, 4), 0);
    }

    function test_credit_is_not_claimed_twice() public {
        bytes32 only = leaf(abi.encode(RUN, address(1), uint256(9)));
        postCredits(1, only);
        ledger.claimCredit(RUN, 1, address(1), 9, new bytes32[](0));
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.NothingToClaim.selector, 9, 9));
        ledger.claimCredit(RUN, 1, address(1), 9, new bytes32[](0));
    }

    function test_no_credit_without_a_proof(address organisation, uint256 amount) public {
        bytes32 only = leaf(abi.encode(RUN, address(1), uint256(9)));
        vm.assume(organisation != address(1) || amount != 9);
        postCredits(1, only);
        bytes32 claimed = leaf(abi.encode(RUN, organisation, amount));
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ProofInvalid.selector, only, claimed));
        ledger.claimCredit(RUN, 1, organisation, amount, new bytes32[](0));
    }

    function test_epochs_follow_each_other(uint64 epoch) public {
        vm.assume(epoch != 2);
        postCredits(1, "root");
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.EpochNotNext.selector, epoch, 2));
        postCredits(epoch, "root");
        assertEq(ledger.getCredits(RUN).epoch, 1);
    }

    function test_an_admitted_manifest_is_proved_in_its_round_only(bytes32 manifest, bytes32 other) public {
        vm.assume(manifest != other);
        bytes32 sibling = leaf(abi.encode(other));
        PublicLedger.Commitment memory c = next(0);
        c.updatesRoot = parentOf(leaf(abi.encode(manifest)), sibling);
        commit(c);
        commitMany(0, 1);
        assertTrue(ledger.isAdmitted(RUN, 0, 0, 1, manifest, proofOf(sibling)));
        assertFalse(ledger.isAdmitted(RUN, 0, 0, 2, manifest, proofOf(sibling)));
        assertFalse(ledger.isAdmitted(RUN, 0, 0, 3, manifest, proofOf(sibling)));
        assertFalse(ledger.isAdmitted(RUN, 0, 0, 1, other, proofOf(sibling)));
    }

    function test_nothing_is_admitted_in_a_round_that_was_not_committed() public view {
        assertFalse(ledger.isAdmitted(RUN, 0, 0, 1, 0, new bytes32[](0)));
    }

    // Private chain

    function test_private_heads_only_move_forward(uint64 first, uint64 second) public {
        vm.expectEmit(true, true, false, true);
        emit PublicLedger.PrivateHeadAnchored(RUN, 77, first, "a");
        vm.prank(COORDINATOR);
        ledger.anchorPrivateHead(RUN, 77, first, "a");
        if (second <= first) {
            vm.expectRevert(abi.encodeWithSelector(PublicLedger.BlockNotNewer.selector, second, first));
        }
        vm.prank(COORDINATOR);
        ledger.anchorPrivateHead(RUN, 77, second, "b");
        assertEq(ledger.getPrivateHead(RUN, 77).blockNumber, second > first ? second : first);
    }

    function test_a_private_head_has_a_hash() public {
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.ZeroDigest.selector));
        vm.prank(COORDINATOR);
        ledger.anchorPrivateHead(RUN, 77, 1, 0);
    }

    // Identity

    function request(uint256 key, address organisation, bytes32 nodeKey, uint256 nonce, uint256 deadline)
        private
        returns (bytes memory)
    {
        bytes32 message =
            keccak256(abi.encode(ledger.MEMBERSHIP_TYPEHASH(), organisation, nodeKey, nonce, deadline));
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(key, keccak256(abi.encodePacked(hex"1901", ledger.domainSeparator(), message)));
        return abi.encodePacked(r, s, v);
    }

    function register(address organisation, bytes32 nodeKey, uint256 deadline, bytes memory signature)
        private
    {
        vm.prank(COORDINATOR);
        ledger.register(organisation, nodeKey, deadline, signature);
    }

    function registered() private returns (address organisation) {
        organisation = vm.addr(KEY);
        register(
            organisation, "node", block.timestamp, request(KEY, organisation, "node", 0, block.timestamp)
        );
    }

    function test_an_organisation_is_registered_on_its_own_request() public {
        address organisation = vm.addr(KEY);
        bytes memory signature = request(KEY, organisation, "node", 0, block.timestamp);
        vm.roll(5);
        vm.expectEmit(true, false, false, true);
        emit PublicLedger.OrganisationRegistered(organisation, "node");
        register(organisation, "node", block.timestamp, signature);
        assertTrue(ledger.hasRole(ledger.ORGANISATION_ROLE(), organisation));
        assertEq(ledger.getOrganisation(organisation).nodeKey, "node");
        assertEq(ledger.getOrganisation(organisation).registeredAt, 5);
    }

    function test_an_organisation_changes_its_node_key_and_stays_registered_since_the_first_time() public {
        vm.roll(5);
        address organisation = registered();
        vm.roll(6);
        register(organisation, "new", block.timestamp, request(KEY, organisation, "new", 1, block.timestamp));
        assertEq(ledger.getOrganisation(organisation).nodeKey, "new");
        assertEq(ledger.getOrganisation(organisation).registeredAt, 5);
    }

    function test_a_request_is_good_for_one_registration() public {
        address organisation = registered();
        bytes memory old = request(KEY, organisation, "node", 0, block.timestamp);
        vm.prank(COORDINATOR);
        (bool success,) = address(ledger)
            .call(abi.encodeCall(PublicLedger.register, (organisation, "node", block.timestamp, old)));
        assertFalse(success);
    }

    function test_nobody_registers_another(uint128 key) public {
        vm.assume(key != 0 && key != KEY);
        address organisation = vm.addr(KEY);
        bytes memory signature = request(key, organisation, "node", 0, block.timestamp);
        vm.expectRevert(
            abi.encodeWithSelector(PublicLedger.SignerNotOrganisation.selector, vm.addr(key), organisation)
        );
        register(organisation, "node", block.timestamp, signature);
    }

    function test_the_upper_twin_of_a_signature_is_refused() public {
        address organisation = vm.addr(KEY);
        bytes32 message = keccak256(
            abi.encode(ledger.MEMBERSHIP_TYPEHASH(), organisation, bytes32("node"), 0, block.timestamp)
        );
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(KEY, keccak256(abi.encodePacked(hex"1901", ledger.domainSeparator(), message)));
        bytes32 twin =
            bytes32(0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141 - uint256(s));
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureS.selector, twin));
        register(organisation, "node", block.timestamp, abi.encodePacked(r, twin, v == 27 ? 28 : 27));
    }

    function test_a_request_expires() public {
        vm.warp(100);
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.SignatureExpired.selector, 99, 100));
        register(vm.addr(KEY), "node", 99, "");
    }

    function test_only_coordinators_submit_requests(address sender) public {
        vm.assume(sender != COORDINATOR && sender != RIVAL);
        vm.expectRevert(unauthorised(sender, COORDINATOR_ROLE));
        vm.prank(sender);
        ledger.register(vm.addr(KEY), "node", block.timestamp, "");
    }

    function test_a_revoked_organisation_stays_revoked() public {
        address organisation = registered();
        vm.roll(8);
        vm.expectEmit(true, false, false, true);
        emit PublicLedger.OrganisationRevoked(organisation);
        vm.prank(ADMINISTRATOR);
        ledger.revokeOrganisation(organisation);
        assertFalse(ledger.hasRole(ledger.ORGANISATION_ROLE(), organisation));
        assertEq(ledger.getOrganisation(organisation).revokedAt, 8);
        vm.expectRevert(
            abi.encodeWithSelector(PublicLedger.OrganisationAlreadyRevoked.selector, organisation)
        );
        vm.prank(ADMINISTRATOR);
        ledger.revokeOrganisation(organisation);
        bytes memory again = request(KEY, organisation, "node", 1, block.timestamp);
        vm.expectRevert(
            abi.encodeWithSelector(PublicLedger.OrganisationAlreadyRevoked.selector, organisation)
        );
        register(organisation, "node", block.timestamp, again);
    }

    function test_only_the_administrator_revokes(address sender) public {
        vm.assume(sender != ADMINISTRATOR);
        vm.expectRevert(unauthorised(sender, 0));
        vm.prank(sender);
        ledger.revokeOrganisation(STRANGER);
    }

    function test_an_unknown_organisation_is_not_revoked() public {
        vm.expectRevert(abi.encodeWithSelector(PublicLedger.OrganisationUnknown.selector, STRANGER));
        vm.prank(ADMINISTRATOR);
        ledger.revokeOrganisation(STRANGER);
    }

    function test_not_even_the_administrator_makes_an_organisation_without_its_request() public {
        bytes32 role = ledger.ORGANISATION_ROLE();
        bytes32 nobody = keccak256("NOBODY_ROLE");
        vm.expectRevert(unauthorised(ADMINISTRATOR, nobody));
        vm.prank(ADMINISTRATOR);
        ledger.grantRole(role, STRANGER);
        vm.expectRevert(unauthorised(ADMINISTRATOR, nobody));
        vm.prank(ADMINISTRATOR);
        ledger.grantRole(nobody, ADMINISTRATOR);
    }
}
