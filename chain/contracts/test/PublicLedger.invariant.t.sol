// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PublicLedger} from "../src/PublicLedger.sol";
import {Fixture} from "./Fixture.sol";

/// @dev Commits and erases at random on two lanes, rightly and wrongly, and remembers what it was told is stored.
contract Actor is Fixture {
    struct Seen {
        uint32 lane;
        uint32 generation;
        uint32 round;
        bytes32 parent;
        bytes32 aggregate;
    }

    PublicLedger private immutable ledger;
    Seen[] private seen;
    uint256 private erasures;

    constructor(PublicLedger ledger_) {
        ledger = ledger_;
    }

    function count() external view returns (uint256) {
        return seen.length;
    }

    function get(uint256 index) external view returns (Seen memory) {
        return seen[index];
    }

    function commit(uint32 lane, bytes32 aggregate) external {
        lane %= 2;
        PublicLedger.Lane memory head = ledger.getLane(RUN, lane);
        bytes32 parent = ledger.getHead(RUN, lane);
        _commit(Seen(lane, head.generation, head.height + 1, parent, aggregate));
    }

    /// @dev Mostly refused: another round, or a parent that is some committed round but not the head.
    function commitAnything(uint32 lane, uint32 generation, uint32 round, uint256 parent, bytes32 aggregate)
        external
    {
        bytes32 digest = seen.length == 0 ? bytes32(0) : seen[parent % seen.length].aggregate;
        _commit(Seen(lane % 2, generation % 3, 1 + round % 6, digest, aggregate));
    }

    function erase(uint32 lane, uint32 parentGeneration, uint32 parentRound) external {
        lane %= 2;
        uint32 generation = ledger.getLane(RUN, lane).generation + 1;
        bytes32 erasure = bytes32(++erasures);
        vm.prank(COORDINATOR);
        ledger.attestErasure(RUN, erasure, lane, erasure);
        vm.prank(COORDINATOR);
        ledger.openGeneration(RUN, lane, generation, erasure, parentGeneration % generation, parentRound % 6);
    }

    function _commit(Seen memory values) private {
        vm.prank(COORDINATOR);
        ledger.commitRound(
            PublicLedger.Commitment(
                RUN, values.lane, values.generation, values.round, values.parent, "root", values.aggregate, 1
            )
        );
        seen.push(values);
    }
}

contract PublicLedgerInvariantTest is Fixture {
    PublicLedger private ledger;
    Actor private actor;

    function setUp() public {
        ledger = new PublicLedger(DELAY, ADMINISTRATOR);
        appoint(ledger);
        open(ledger);
        actor = new Actor(ledger);
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(actor);
    }

    /// @dev Whatever happened since, every round reads as it was committed.
    function invariant_no_round_is_ever_rewritten() public view {
        for (uint256 i = 0; i < actor.count(); ++i) {
            Actor.Seen memory round = actor.get(i);
            PublicLedger.Round memory found = ledger.getRound(RUN, round.lane, round.generation, round.round);
            assertEq(found.aggregate, round.aggregate);
        }
    }

    /// @dev No (lane, generation, round) was accepted twice.
    function invariant_no_round_is_committed_twice() public view {
        for (uint256 i = 0; i < actor.count(); ++i) {
            Actor.Seen memory a = actor.get(i);
            for (uint256 j = 0; j < i; ++j) {
                Actor.Seen memory b = actor.get(j);
                assertFalse(a.lane == b.lane && a.generation == b.generation && a.round == b.round);
            }
        }
    }

    /// @dev A round's parent is the round before it in its generation, or the round its generation grew from.
    function invariant_every_parent_was_committed_before_its_child() public view {
        for (uint256 i = 0; i < actor.count(); ++i) {
            Actor.Seen memory child = actor.get(i);
            bool known = child.round == 1 && child.parent == 0;
            for (uint256 j = 0; j < i && !known; ++j) {
                Actor.Seen memory parent = actor.get(j);
                known = parent.lane == child.lane && parent.round + 1 == child.round
                    && parent.generation <= child.generation && parent.aggregate == child.parent;
            }
            assertTrue(known);
        }
    }
}
