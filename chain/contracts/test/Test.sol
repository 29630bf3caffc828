// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @dev The cheat codes that these tests use; forge answers them at a fixed address.
interface Vm {
    function addr(uint256 key) external returns (address);
    function assume(bool condition) external pure;
    function expectEmit(bool topic1, bool topic2, bool topic3, bool data) external;
    function expectRevert(bytes calldata expected) external;
    function prank(address sender) external;
    function roll(uint256 blockNumber) external;
    function sign(uint256 key, bytes32 digest) external returns (uint8 v, bytes32 r, bytes32 s);
    function warp(uint256 timestamp) external;
}

/// @dev What a test needs of forge, and no more: forge's own library is not on the package index.
abstract contract Test {
    Vm internal constant vm = Vm(0x7109709ECfa91a80626fF3989D68f67F5b1DD12D);

    error NotEqual(bytes32 got, bytes32 expected);

    function assertEq(bytes32 got, bytes32 expected) internal pure {
        if (got != expected) revert NotEqual(got, expected);
    }

    function assertEq(uint256 got, uint256 expected) internal pure {
        assertEq(bytes32(got), bytes32(expected));
    }

    function assertEq(address got, address expected) internal pure {
        assertEq(bytes32(uint256(uint160(got))), bytes32(uint256(uint160(expected))));
    }

    function assertTrue(bool condition) internal pure {
        assertEq(condition ? 1 : 0, 1);
    }

    function assertFalse(bool condition) internal pure {
        assertEq(condition ? 1 : 0, 0);
    }
}
