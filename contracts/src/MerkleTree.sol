// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title RFC 9162 proofs over SHA-256
/// @notice The same functions as nodes/crypto/merkle.py `verify_consistency`, `verify_inclusion`.
library MerkleTree {
    /// @notice The root of a log without leaves: SHA-256 of the empty string (RFC 9162, 2.1.1).
    bytes32 internal constant EMPTY_ROOT =
        0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855;

    /// @notice Whether `proof` shows that the tree (size2, root2) extends (size1, root1), by the
    ///         algorithm of RFC 9162, section 2.1.4.2. False for size1 = 0: every tree extends the
    ///         empty one, and there is nothing to prove.
    function verifyConsistency(
        uint64 size1,
        uint64 size2,
        bytes32 root1,
        bytes32 root2,
        bytes32[] calldata proof
    ) internal view returns (bool) {
        if (size1 == 0 || size1 > size2) return false;
        if (size1 == size2) return proof.length == 0 && root1 == root2;
        if (proof.length == 0) return false;

        uint256 fn = size1 - 1;
        uint256 sn = size2 - 1;
        while (fn & 1 == 1) {
            fn >>= 1;
            sn >>= 1;
        }
        // An old tree that is complete is itself the first node, and the proof leaves it out.
        uint256 next = 0;
        bytes32 fr = root1;
        if (size1 & (size1 - 1) != 0) {
            fr = proof[0];
            next = 1;
        }
        bytes32 sr = fr;
        // Nothing here can overflow: two numbers of 64 bits are shifted, one counts the proof.
        unchecked {
            for (; next < proof.length; ++next) {
                if (sn == 0) return false;
                bytes32 node = _at(proof, next);
                if (fn & 1 == 1 || fn == sn) {
                    // While nothing was joined on the right the two are one.
                    bool same = fr == sr;
                    fr = hashPair(node, fr);
                    sr = same ? fr : hashPair(node, sr);
                    while (fn & 1 == 0 && fn != 0) {
                        fn >>= 1;
                        sn >>= 1;
                    }
                } else {
                    sr = hashPair(sr, node);
                }
                fn >>= 1;
                sn >>= 1;
            }
        }
        return sn == 0 && fr == root1 && sr == root2;
    }

    /// @notice Whether `path` shows that `leafHash` is leaf `index` of the tree (size, root), by
    ///         the algorithm of RFC 9162, section 2.1.3.2.
    function verifyInclusion(
        uint64 index,
        uint64 size,
        bytes32 leafHash,
        bytes32 root,
        bytes32[] calldata path
    ) internal view returns (bool) {
        if (index >= size) return false;
        uint256 fn = index;
        uint256 sn = size - 1;
        bytes32 node = leafHash;
        for (uint256 next = 0; next < path.length; ++next) {
            if (sn == 0) return false;
            if (fn & 1 == 1 || fn == sn) {
                node = hashPair(path[next], node);
                while (fn & 1 == 0 && fn != 0) {
                    fn >>= 1;
                    sn >>= 1;
                }
            } else {
                node = hashPair(node, path[next]);
            }
            fn >>= 1;
            sn >>= 1;
        }
        return sn == 0 && node == root;
    }

    /// @dev An element of a proof; the caller has seen that there is one.
    function _at(bytes32[] calldata proof, uint256 place) private pure returns (bytes32 node) {
        assembly ("memory-safe") {
            node := calldataload(add(proof.offset, shl(5, place)))
        }
    }

    /// @notice An inner node: SHA-256(0x01 || left || right).
    /// @dev By hand, since it is what an anchor's price hangs on: 65 bytes behind the free memory
    ///      pointer, which stays where it is, and the precompile at address 2.
    function hashPair(bytes32 left, bytes32 right) internal view returns (bytes32 hash) {
        assembly ("memory-safe") {
            let scratch := mload(0x40)
            mstore8(scratch, 0x01)
            mstore(add(scratch, 0x01), left)
            mstore(add(scratch, 0x21), right)
            if iszero(staticcall(gas(), 0x02, scratch, 0x41, 0x00, 0x20)) { revert(0, 0) }
            hash := mload(0x00)
        }
    }
}
