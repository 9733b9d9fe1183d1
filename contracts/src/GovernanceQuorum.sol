// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {TypedData} from "./TypedData.sol";

/// @title k of n governors, acting as one owner
/// @notice Becomes the MemberRegistry's owner by transferOwnership and its own acceptOwnership.
///         What it does is signed by k governors (EIP-712), numbered and in time; anybody may send
///         it. Governors are changed in the same way, by itself alone.
contract GovernanceQuorum {
    uint256 public constant MAX_GOVERNORS = 15;
    bytes32 private constant ACTION_TYPE =
        keccak256("Action(address target,bytes data,uint256 nonce,uint64 deadline)");

    error NotSelf(address sender);
    error InvalidGovernors();
    error WrongNonce(uint256 expected, uint256 given);
    error DeadlinePassed(uint64 deadline);
    error TooFewSignatures(uint256 needed, uint256 given);
    error SignersNotAscending(address signer);
    error NotGovernor(address signer);
    error NoContract(address target);
    error CallFailed();

    event Executed(uint256 indexed nonce, address indexed target, bytes32 dataHash);
    event GovernorsSet(address[] governors, uint32 threshold);

    uint256 public nonce;
    uint32 public threshold;
    mapping(address => bool) public isGovernor;
    address[] private _governors;

    /// @param first The governors in ascending order, at most 15.
    /// @param needed How many of them have to sign.
    constructor(address[] memory first, uint32 needed) {
        _setGovernors(first, needed);
    }

    /// @notice Calls `target` with `data` in the quorum's name. Refusals of the target come
    ///         through under their own names.
    /// @param signatures By governors over `actionDigest`, in ascending order of their addresses.
    function execute(
        address target,
        bytes calldata data,
        uint256 number,
        uint64 deadline,
        bytes[] calldata signatures
    ) external returns (bytes memory) {
        if (number != nonce) revert WrongNonce(nonce, number);
        if (block.timestamp > deadline) revert DeadlinePassed(deadline);
        _requireQuorum(actionDigest(target, data, number, deadline), signatures);
        if (target.code.length == 0) revert NoContract(target);
        nonce = number + 1;
        (bool done, bytes memory answer) = target.call(data);
        if (!done) {
            if (answer.length == 0) revert CallFailed();
            assembly ("memory-safe") {
                revert(add(answer, 0x20), mload(answer))
            }
        }
        emit Executed(number, target, keccak256(data));
        return answer;
    }

    /// @notice Puts other governors in place; by an action of the present ones.
    function setGovernors(address[] calldata next, uint32 needed) external {
        if (msg.sender != address(this)) revert NotSelf(msg.sender);
        _setGovernors(next, needed);
    }

    function governors() external view returns (address[] memory) {
        return _governors;
    }

    /// @notice What a governor signs.
    function actionDigest(address target, bytes calldata data, uint256 number, uint64 deadline)
        public
        view
        returns (bytes32)
    {
        return TypedData.digest(
            keccak256(abi.encode(ACTION_TYPE, target, keccak256(data), number, deadline))
        );
    }

    function _requireQuorum(bytes32 digest, bytes[] calldata signatures) private view {
        if (signatures.length < threshold) {
            revert TooFewSignatures(threshold, signatures.length);
        }
        address last = address(0);
        for (uint256 i = 0; i < signatures.length; ++i) {
            address signer = TypedData.signerOf(digest, signatures[i]);
            if (signer <= last) revert SignersNotAscending(signer);
            if (!isGovernor[signer]) revert NotGovernor(signer);
            last = signer;
        }
    }

    function _setGovernors(address[] memory next, uint32 needed) private {
        if (needed == 0 || needed > next.length || next.length > MAX_GOVERNORS) {
            revert InvalidGovernors();
        }
        for (uint256 i = 0; i < _governors.length; ++i) isGovernor[_governors[i]] = false;
        address last = address(0);
        for (uint256 i = 0; i < next.length; ++i) {
            if (next[i] <= last) revert InvalidGovernors();
            last = next[i];
            isGovernor[last] = true;
        }
        _governors = next;
        threshold = needed;
        emit GovernorsSet(next, needed);
    }
}
