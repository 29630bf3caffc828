// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {FederationLedger} from "../src/FederationLedger.sol";
import {Test} from "./Test.sol";

/// @dev People, a run and its members, for the tests of both ledgers.
abstract contract Fixture is Test {
    address internal constant ADMINISTRATOR = address(0xAD);
    address internal constant COORDINATOR = address(0xC0);
    address internal constant RIVAL = address(0xC1);
    address internal constant STRANGER = address(0x57);
    uint48 internal constant DELAY = 1 days;
    bytes32 internal constant RUN = keccak256("run");
    bytes32 internal constant COORDINATOR_ROLE = keccak256("COORDINATOR_ROLE");

    function members() internal pure returns (address[] memory list) {
        list = new address[](3);
        (list[0], list[1], list[2]) = (address(1), address(2), address(3));
    }

    function appoint(FederationLedger ledger) internal {
        vm.prank(ADMINISTRATOR);
        ledger.grantRole(COORDINATOR_ROLE, COORDINATOR);
        vm.prank(ADMINISTRATOR);
        ledger.grantRole(COORDINATOR_ROLE, RIVAL);
    }

    function open(FederationLedger ledger) internal {
        vm.prank(COORDINATOR);
        ledger.openRun(RUN, members());
    }

    function unauthorised(address sender, bytes32 role) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, sender, role);
    }

    function notCoordinator(address sender) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(FederationLedger.NotCoordinator.selector, RUN, sender, COORDINATOR);
    }
}
