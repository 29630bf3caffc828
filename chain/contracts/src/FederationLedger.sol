// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {
    AccessControlDefaultAdminRules
} from "@openzeppelin/contracts/access/extensions/AccessControlDefaultAdminRules.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";

/// @title What the public and the private ledger share: runs, roles and pausing
/// @dev The administrator (handed over in two steps with a delay) grants the coordinator role and pauses; no role can
/// rewrite what was written. A run belongs to the coordinator that opened it.
abstract contract FederationLedger is AccessControlDefaultAdminRules, Pausable {
    /// @notice A run: who writes it, where it was opened, and keccak256 over its members (ascending, each padded
    /// to 32 bytes). The members themselves are in the RunOpened event of that block.
    struct Run {
        address coordinator;
        uint64 openedAt;
        bytes32 members;
    }

    /// @notice Opens runs and writes them.
    bytes32 public constant COORDINATOR_ROLE = keccak256("COORDINATOR_ROLE");

    mapping(bytes32 run => Run) internal _runs;

    /// @notice A run was opened; `members` is the digest of `organisations`.
    event RunOpened(
        bytes32 indexed run, address indexed coordinator, bytes32 members, address[] organisations
    );

    /// @notice A run has another writer from here on.
    event CoordinatorChanged(bytes32 indexed run, address indexed from, address indexed to);

    /// @notice The run exists already.
    error RunAlreadyOpen(bytes32 run);
    /// @notice Only the run's coordinator writes it; zero when the run is not open.
    error NotCoordinator(bytes32 run, address sender, address coordinator);
    /// @notice Members are listed in ascending order, each once.
    error OrganisationsNotAscending(address before, address next);
    /// @notice A run has members.
    error NoOrganisations();

    /// @dev The sender is the run's coordinator and still holds the role.
    modifier onlyCoordinator(bytes32 run) {
        address coordinator = _runs[run].coordinator;
        if (msg.sender != coordinator) revert NotCoordinator(run, msg.sender, coordinator);
        _checkRole(COORDINATOR_ROLE);
        _;
    }

    /// @param delay Seconds between the first and the second step of handing over the administration.
    /// @param administrator The first administrator.
    constructor(uint48 delay, address administrator) AccessControlDefaultAdminRules(delay, administrator) {}

    /// @notice Opens a run for its members; the sender becomes its only writer.
    /// @param run Digest of the run's genesis.
    /// @param organisations Their addresses, ascending and without duplicates.
    function openRun(bytes32 run, address[] calldata organisations)
        external
        whenNotPaused
        onlyRole(COORDINATOR_ROLE)
    {
        if (_runs[run].coordinator != address(0)) revert RunAlreadyOpen(run);
        if (organisations.length == 0) revert NoOrganisations();
        for (uint256 i = 1; i < organisations.length; ++i) {
            if (organisations[i - 1] >= organisations[i]) {
                revert OrganisationsNotAscending(organisations[i - 1], organisations[i]);
            }
        }
        bytes32 members = keccak256(abi.encodePacked(organisations));
        _runs[run] = Run(msg.sender, uint64(block.number), members);
        emit RunOpened(run, msg.sender, members, organisations);
    }

    /// @notice Hands a run to another account, which holds the coordinator role: by its coordinator, whose key is
    /// rotated, or by the administrator after a loss.
    /// @param to The run's only writer from here on.
    function changeCoordinator(bytes32 run, address to) external whenNotPaused {
        address from = _runs[run].coordinator;
        bool allowed = msg.sender == from || hasRole(DEFAULT_ADMIN_ROLE, msg.sender);
        if (from == address(0) || !allowed) revert NotCoordinator(run, msg.sender, from);
        _checkRole(COORDINATOR_ROLE, to);
        _runs[run].coordinator = to;
        emit CoordinatorChanged(run, from, to);
    }

    /// @notice Stops every change to the record; nothing that was written changes.
    function pause() external onlyRole(DEFAULT_ADMIN_ROLE) {
        _pause();
    }

    /// @notice Ends a pause.
    function unpause() external onlyRole(DEFAULT_ADMIN_ROLE) {
        _unpause();
    }

    /// @notice The run, zero when it is not open.
    function getRun(bytes32 run) external view returns (Run memory) {
        return _runs[run];
    }
}
