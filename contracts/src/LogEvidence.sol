// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {AnchorRegistry} from "./AnchorRegistry.sol";
import {MerkleTree} from "./MerkleTree.sol";

/// @title A leaf of a member's log, proven against a root that the member anchored
/// @notice The leaf is rebuilt from its words and hashed here; size and root come from
///         AnchorRegistry, never from the proof (an RFC 9162 proof binds neither).
library LogEvidence {
    /// @param leaf The ten words of nodes/anchoring/leaf.py: version, kind, memberId, txid, C, P,
    ///        pairId, pairSeq, terminalId, terminalSeq.
    /// @param index The leaf's place in the log, from 0.
    /// @param anchorSeq The number of an anchor whose tree holds it.
    /// @param path The RFC 9162 inclusion proof in that tree, from the leaf's sibling upward.
    struct Evidence {
        bytes32[10] leaf;
        uint64 index;
        uint64 anchorSeq;
        bytes32[] path;
    }

    uint256 private constant VERSION = 1;
    /// @dev Issuer, acquirer, merchant: a transaction in a party's books. Other kinds are events.
    uint256 private constant LAST_TRANSACTION_KIND = 3;

    error LeafMalformed();
    error NotAnchored(bytes32 memberId, uint64 seq);
    error NotIncluded(bytes32 memberId, uint64 seq, uint64 index);

    function memberOf(Evidence calldata e) internal pure returns (bytes32) {
        return e.leaf[2];
    }

    function txidOf(Evidence calldata e) internal pure returns (bytes32) {
        return e.leaf[3];
    }

    function commitmentOf(Evidence calldata e) internal pure returns (bytes32) {
        return e.leaf[4];
    }

    function pairOf(Evidence calldata e) internal pure returns (bytes32) {
        return e.leaf[6];
    }

    /// @notice Refuses what isn't the leaf of a transaction.
    function requireTransaction(Evidence calldata e) internal pure {
        uint256 kind = uint256(e.leaf[1]);
        if (uint256(e.leaf[0]) != VERSION || kind == 0 || kind > LAST_TRANSACTION_KIND) {
            revert LeafMalformed();
        }
    }

    /// @notice Refuses a leaf that isn't in the tree which its member anchored under that number.
    function requireAnchored(Evidence calldata e, AnchorRegistry anchors) internal view {
        bytes32 memberId = e.leaf[2];
        (uint64 size, bytes32 root,) = anchors.anchors(memberId, e.anchorSeq);
        if (size == 0) revert NotAnchored(memberId, e.anchorSeq);
        bytes32 leafHash = sha256(abi.encodePacked(bytes1(0x00), e.leaf));
        if (!MerkleTree.verifyInclusion(e.index, size, leafHash, root, e.path)) {
            revert NotIncluded(memberId, e.anchorSeq, e.index);
        }
    }
}
