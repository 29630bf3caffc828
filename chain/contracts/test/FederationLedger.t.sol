// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {FederationLedger} from "../src/FederationLedger.sol";
import {PrivateLedger} from "../src/PrivateLedger.sol";
import {Fixture} from "./Fixture.sol";

contract FederationLedgerTest is Fixture {
    FederationLedger private ledger;

    function setUp() public {
        ledger = new PrivateLedger(DELAY, ADMINISTRATOR);
        appoint(ledger);
    }

    function test_a_run_belongs_to_the_coordinator_that_opened_it() public {
        vm.roll(7);
        vm.expectEmit(true, true, false, true);
        emit FederationLedger.RunOpened(RUN, COORDINATOR, keccak256(abi.encodePacked(members())), members());
        open(ledger);
        FederationLedger.Run memory run = ledger.getRun(RUN);
        assertEq(run.coordinator, COORDINATOR);
        assertEq(run.openedAt, 7);
        assertEq(run.members, keccak256(abi.encodePacked(members())));
    }

    function test_a_run_is_opened_once() public {
        open(ledger);
        vm.expectRevert(abi.encodeWithSelector(FederationLedger.RunAlreadyOpen.selector, RUN));
        open(ledger);
    }

    function test_a_run_has_members() public {
        vm.expectRevert(abi.encodeWithSelector(FederationLedger.NoOrganisations.selector));
        vm.prank(COORDINATOR);
        ledger.openRun(RUN, new address[](0));
    }

    function test_members_are_listed_once_and_ascending(address first, address second) public {
        vm.assume(first >= second);
        address[] memory list = new address[](2);
        (list[0], list[1]) = (first, second);
        vm.expectRevert(
            abi.encodeWithSelector(FederationLedger.OrganisationsNotAscending.selector, first, second)
        );
        vm.prank(COORDINATOR);
        ledger.openRun(RUN, list);
    }

    function test_only_coordinators_open_runs(address sender) public {
        vm.assume(sender != COORDINATOR && sender != RIVAL);
        vm.expectRevert(unauthorised(sender, COORDINATOR_ROLE));
        vm.prank(sender);
        ledger.openRun(RUN, members());
    }

    function test_a_run_is_handed_over_by_its_coordinator_or_the_administrator() public {
        open(ledger);
        vm.expectEmit(true, true, true, true);
        emit FederationLedger.CoordinatorChanged(RUN, COORDINATOR, RIVAL);
        vm.prank(COORDINATOR);
        ledger.changeCoordinator(RUN, RIVAL);
        assertEq(ledger.getRun(RUN).coordinator, RIVAL);
        assertEq(ledger.getRun(RUN).members, keccak256(abi.encodePacked(members())));
        vm.prank(ADMINISTRATOR);
        ledger.changeCoordinator(RUN, COORDINATOR);
        assertEq(ledger.getRun(RUN).coordinator, COORDINATOR);
    }

    function test_nobody_else_hands_a_run_over(address sender) public {
        vm.assume(sender != COORDINATOR && sender != ADMINISTRATOR);
        open(ledger);
        vm.expectRevert(notCoordinator(sender));
        vm.prank(sender);
        ledger.changeCoordinator(RUN, RIVAL);
    }

    function test_a_run_is_handed_to_a_coordinator_alone(address to) public {
        vm.assume(to != COORDINATOR && to != RIVAL);
        open(ledger);
        vm.expectRevert(unauthorised(to, COORDINATOR_ROLE));
        vm.prank(COORDINATOR);
        ledger.changeCoordinator(RUN, to);
    }

    function test_a_run_that_is_not_open_is_not_handed_over() public {
        vm.expectRevert(
            abi.encodeWithSelector(FederationLedger.NotCoordinator.selector, RUN, ADMINISTRATOR, address(0))
        );
        vm.prank(ADMINISTRATOR);
        ledger.changeCoordinator(RUN, RIVAL);
    }

    function test_a_pause_stops_and_its_end_resumes() public {
        vm.prank(ADMINISTRATOR);
        ledger.pause();
        vm.expectRevert(abi.encodeWithSelector(Pausable.EnforcedPause.selector));
        open(ledger);
        vm.prank(ADMINISTRATOR);
        ledger.unpause();
        open(ledger);
    }

    function test_only_the_administrator_pauses_and_resumes(address sender) public {
        vm.assume(sender != ADMINISTRATOR);
        vm.expectRevert(unauthorised(sender, 0));
        vm.prank(sender);
        ledger.pause();
        vm.expectRevert(unauthorised(sender, 0));
        vm.prank(sender);
        ledger.unpause();
    }

    function test_the_administration_is_handed_over_in_two_steps_with_a_delay() public {
        vm.prank(ADMINISTRATOR);
        ledger.beginDefaultAdminTransfer(STRANGER);
        assertEq(ledger.owner(), ADMINISTRATOR);
        vm.warp(block.timestamp + DELAY + 1);
        vm.prank(STRANGER);
        ledger.acceptDefaultAdminTransfer();
        assertEq(ledger.owner(), STRANGER);
    }
}
