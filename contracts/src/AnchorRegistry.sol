// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {MemberGate} from "./MemberGate.sol";
import {MemberRegistry} from "./MemberRegistry.sol";
import {MerkleTree} from "./MerkleTree.sol";

/// @title The heads of the members' logs
/// @notice Each member anchors the size and root of its own append-only RFC 9162 log. An anchor is
///         taken only with a proof that the new tree extends the anchored one: a log can grow, it
///         can't be rewritten or forked. No proxy and no owner: a new version is a new address.
contract AnchorRegistry {
    using MemberGate for MemberRegistry;

    struct Anchor {
        bytes32 root;
        uint64 size;
        uint64 blockNumber;
    }

    MemberRegistry public immutable members;

    error ZeroRegistry();
    error UnknownBlockHash(bytes32 blockHash);
    error WrongSequence(uint64 expected, uint64 given);
    error WrongPreviousRoot(bytes32 expected, bytes32 given);
    error SizeNotGrowing(uint64 headSize, uint64 given);
    error InconsistentTree(uint64 headSize, uint64 size);

    event Anchored(
        bytes32 indexed memberId,
        uint64 indexed seq,
        uint64 size,
        bytes32 prevRoot,
        bytes32 root,
        bytes32 metaHash
    );

    struct Head {
        uint64 seq;
        uint64 size;
    }

    mapping(bytes32 memberId => Head) private _heads;
    mapping(bytes32 memberId => mapping(uint64 seq => Anchor)) private _anchors;

    constructor(MemberRegistry registry) {
        if (address(registry) == address(0)) revert ZeroRegistry();
        members = registry;
    }

    /// @notice Anchors the sender's log at `size` leaves and `root`.
    /// @param seq The member's last anchor number + 1; the first is 1.
    /// @param prevRoot The head's root; before the first anchor SHA-256 of the empty string.
    /// @param consistencyProof RFC 9162 proof from the head's size to `size`; empty for the first.
    /// @param recentBlockHash The hash of one of the 256 blocks before this one: the anchor then
    ///        belongs to this chain and no other.
    /// @param metaHash Whatever else the member commits to with this anchor.
    function anchor(
        uint64 seq,
        uint64 size,
        bytes32 prevRoot,
        bytes32 root,
        bytes32[] calldata consistencyProof,
        bytes32 recentBlockHash,
        bytes32 metaHash
    ) external {
        bytes32 memberId = members.operatorsMember(msg.sender);
        if (!_isRecent(recentBlockHash)) revert UnknownBlockHash(recentBlockHash);

        (uint64 lastSeq, uint64 headSize) = (_heads[memberId].seq, _heads[memberId].size);
        if (seq != lastSeq + 1) revert WrongSequence(lastSeq + 1, seq);
        bytes32 headRoot = _rootOf(memberId, lastSeq);
        if (prevRoot != headRoot) revert WrongPreviousRoot(headRoot, prevRoot);
        if (size <= headSize) revert SizeNotGrowing(headSize, size);
        bool extends_ = headSize == 0
            ? consistencyProof.length == 0
            : MerkleTree.verifyConsistency(headSize, size, headRoot, root, consistencyProof);
        if (!extends_) revert InconsistentTree(headSize, size);

        _heads[memberId] = Head({seq: seq, size: size});
        _anchors[memberId][seq] =
            Anchor({root: root, size: size, blockNumber: uint64(block.number)});
        emit Anchored(memberId, seq, size, prevRoot, root, metaHash);
    }

    /// @notice A member's newest anchor; before the first (0, 0, SHA-256 of the empty string).
    function head(bytes32 memberId)
        external
        view
        returns (uint64 seq, uint64 size, bytes32 root, uint64 blockNumber)
    {
        (seq, size) = (_heads[memberId].seq, _heads[memberId].size);
        root = _rootOf(memberId, seq);
        blockNumber = _anchors[memberId][seq].blockNumber;
    }

    /// @notice An anchor by its number; all zero if there is none.
    function anchors(bytes32 memberId, uint64 seq)
        external
        view
        returns (uint64 size, bytes32 root, uint64 blockNumber)
    {
        Anchor storage entry = _anchors[memberId][seq];
        return (entry.size, entry.root, entry.blockNumber);
    }

    /// @notice The number of the first anchor whose tree has at least `size` leaves, so that it
    ///         covers leaf `size - 1`; 0 if none has.
    function covering(bytes32 memberId, uint64 size) external view returns (uint64) {
        uint64 low = 1;
        uint64 high = _heads[memberId].seq;
        if (size == 0 || high == 0 || _anchors[memberId][high].size < size) return 0;
        while (low < high) {
            uint64 middle = low + (high - low) / 2;
            if (_anchors[memberId][middle].size >= size) high = middle;
            else low = middle + 1;
        }
        return low;
    }

    /// @notice The consistency check that anchor() makes, for anybody to ask.
    function isConsistent(
        uint64 size1,
        uint64 size2,
        bytes32 root1,
        bytes32 root2,
        bytes32[] calldata proof
    ) external view returns (bool) {
        return MerkleTree.verifyConsistency(size1, size2, root1, root2, proof);
    }

    function _rootOf(bytes32 memberId, uint64 seq) private view returns (bytes32) {
        return seq == 0 ? MerkleTree.EMPTY_ROOT : _anchors[memberId][seq].root;
    }

    function _isRecent(bytes32 blockHash) private view returns (bool) {
        if (blockHash == 0) return false;
        for (uint256 back = 1; back <= 256 && back <= block.number; ++back) {
            if (blockhash(block.number - back) == blockHash) return true;
        }
        return false;
    }
}
