// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {PrivateLedger} from "../src/PrivateLedger.sol";
import {Fixture} from "./Fixture.sol";

contract PrivateLedgerTest is Fixture {
    PrivateLedger private ledger;

    function setUp() public {
        ledger = new PrivateLedger(DELAY, ADMINISTRATOR);
        appoint(ledger);
        open(ledger);
    }

    function record(address sender, PrivateLedger.Kind kind, bytes32[] memory list) private {
        vm.prank(sender);
        ledger.recordRound(RUN, 1, 2, 3, kind, list);
    }

    function test_a_round_s_list_is_recorded(bytes32[] calldata list, uint8 kind_) public {
        PrivateLedger.Kind kind = PrivateLedger.Kind(kind_ % 3);
        vm.roll(9);
        vm.expectEmit(true, true, true, true);
        emit PrivateLedger.RoundRecorded(RUN, 1, kind, 2, 3, list);
        record(COORDINATOR, kind, list);
        PrivateLedger.Record memory entry = ledger.getRecord(RUN, 1, 2, 3, kind);
        assertEq(entry.digest, keccak256(abi.encodePacked(list)));
        assertEq(entry.count, list.length);
        assertEq(entry.recordedAt, 9);
    }

    function test_a_list_is_recorded_once() public {
        record(COORDINATOR, PrivateLedger.Kind.Bids, new bytes32[](1));
        vm.expectRevert(
            abi.encodeWithSelector(
                PrivateLedger.AlreadyRecorded.selector, RUN, 1, 2, 3, PrivateLedger.Kind.Bids
            )
        );
        record(COORDINATOR, PrivateLedger.Kind.Bids, new bytes32[](2));
    }

    function test_the_kinds_do_not_share_a_place() public {
        record(COORDINATOR, PrivateLedger.Kind.Manifests, new bytes32[](1));
        record(COORDINATOR, PrivateLedger.Kind.Bids, new bytes32[](2));
        record(COORDINATOR, PrivateLedger.Kind.Allocations, new bytes32[](3));
        assertEq(ledger.getRecord(RUN, 1, 2, 3, PrivateLedger.Kind.Manifests).count, 1);
        assertEq(ledger.getRecord(RUN, 1, 2, 3, PrivateLedger.Kind.Allocations).count, 3);
    }

    function test_only_the_run_s_coordinator_records(address sender) public {
        vm.assume(sender != COORDINATOR);
        vm.expectRevert(notCoordinator(sender));
        record(sender, PrivateLedger.Kind.Bids, new bytes32[](1));
    }

    function test_a_pause_stops_recording() public {
        vm.prank(ADMINISTRATOR);
        ledger.pause();
        vm.expectRevert(abi.encodeWithSelector(Pausable.EnforcedPause.selector));
        record(COORDINATOR, PrivateLedger.Kind.Bids, new bytes32[](1));
    }
}
