// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title RFC 9162 consistency proofs over SHA-256
/// @notice The same function as nodes/crypto/merkle.py `verify_consistency`.
library MerkleConsistency {
    /// @notice The root of a log without leaves: SHA-256 of the empty string (RFC 9162, 2.1.1).
    bytes32 internal constant EMPTY_ROOT =
        0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855;

    /// @notice Whether `proof` shows that the tree (size2, root2) extends (size1, root1), by the
    ///         algorithm of RFC 9162, section 2.1.4.2. False for size1 = 0: every tree extends the
    ///         empty one, and there is nothing to prove.
    function verify(
        uint64 size1,
        uint64 size2,
        bytes32 root1,
        bytes32 root2,
        bytes32[] calldata proof
    ) internal pure returns (bool) {
        if (size1 == 0 || size1 > size2) return false;
        if (size1 == size2) return proof.length == 0 && root1 == root2;
        if (proof.length == 0) return false;

        uint64 fn = size1 - 1;
        uint64 sn = size2 - 1;
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
        for (; next < proof.length; ++next) {
            if (sn == 0) return false;
            bytes32 node = proof[next];
            if (fn & 1 == 1 || fn == sn) {
                fr = hashPair(node, fr);
                sr = hashPair(node, sr);
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
        return sn == 0 && fr == root1 && sr == root2;
    }

    /// @notice An inner node: SHA-256(0x01 || left || right).
    function hashPair(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }
}
