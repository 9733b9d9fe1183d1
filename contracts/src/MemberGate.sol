// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {MemberRegistry} from "./MemberRegistry.sol";

/// @title Who may act for a member, asked of the MemberRegistry at the call
library MemberGate {
    error NotOperator(address sender);
    error MemberRevoked(bytes32 memberId);

    /// @notice The active member whose operator this address is now.
    function operatorsMember(MemberRegistry members, address account)
        internal
        view
        returns (bytes32)
    {
        (bytes32 memberId, bool isOperator, MemberRegistry.Status status) =
            members.standing(account);
        if (!isOperator) revert NotOperator(account);
        if (status != MemberRegistry.Status.Active) revert MemberRevoked(memberId);
        return memberId;
    }
}
