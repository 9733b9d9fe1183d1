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
        bytes32 sr;
        (fr, sr, next) = _climb(fn, sn, fr, proof, next);
        return next == proof.length && fr == root1 && sr == root2;
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

    /// @dev From the node `fr` of the old tree's path `fn` and the new tree's path `sn` up to both
    ///      roots, by the nodes of `proof` from `next` on; also how many of it were read. Where
    ///      it lacks one, the roots are of no use and one more than there is counts as read.
    ///      By hand, since it is what an anchor's price hangs on; `hashPair` tells how.
    function _climb(uint256 fn, uint256 sn, bytes32 fr, bytes32[] calldata proof, uint256 next)
        private
        view
        returns (bytes32 oldRoot, bytes32 newRoot, uint256 read)
    {
        oldRoot = fr;
        newRoot = fr;
        read = next;
        assembly ("memory-safe") {
            let scratch := mload(0x40)
            let left := add(scratch, 0x01)
            let right := add(scratch, 0x21)
            let end := proof.length
            let done := 1
            mstore8(scratch, 0x01)
            // Below where the two paths meet each level has its node: on the left it is joined to
            // both, on the right to the new tree's. From there on they have the same nodes, one
            // wherever something is on the left.
            for {} fn {} {
                let both := and(fn, 1)
                if or(both, xor(fn, sn)) {
                    if iszero(lt(read, end)) {
                        read := add(end, 1)
                        break
                    }
                    let node := calldataload(add(proof.offset, shl(5, read)))
                    read := add(read, 1)
                    switch both
                    case 0 {
                        mstore(left, newRoot)
                        mstore(right, node)
                        done := and(done, staticcall(gas(), 0x02, scratch, 0x41, 0x00, 0x20))
                        newRoot := mload(0x00)
                    }
                    default {
                        mstore(left, node)
                        mstore(right, newRoot)
                        // While nothing was joined on the right the two are one.
                        let same := eq(oldRoot, newRoot)
                        done := and(done, staticcall(gas(), 0x02, scratch, 0x41, 0x00, 0x20))
                        newRoot := mload(0x00)
                        switch same
                        case 0 {
                            mstore(right, oldRoot)
                            done := and(done, staticcall(gas(), 0x02, scratch, 0x41, 0x00, 0x20))
                            oldRoot := mload(0x00)
                        }
                        default { oldRoot := newRoot }
                    }
                }
                fn := shr(1, fn)
                sn := shr(1, sn)
            }
            // The old tree's path has ended at the left edge: the rest is on the right.
            if lt(read, add(end, 1)) {
                for {} sn { sn := shr(1, sn) } {
                    if iszero(lt(read, end)) {
                        read := add(end, 1)
                        break
                    }
                    mstore(left, newRoot)
                    mstore(right, calldataload(add(proof.offset, shl(5, read))))
                    done := and(done, staticcall(gas(), 0x02, scratch, 0x41, 0x00, 0x20))
                    newRoot := mload(0x00)
                    read := add(read, 1)
                }
            }
            if iszero(done) { revert(0, 0) }
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
