// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title What members and arbiters sign: EIP-712 data of the domain ("Countersign", "1")
/// @notice Chain id and contract are taken at the call, so that a signature is of no use on
///         another chain, on a fork with another id or in another contract.
library TypedData {
    bytes32 private constant DOMAIN_TYPE = keccak256(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    );
    bytes32 private constant NAME = keccak256("Countersign");
    bytes32 private constant VERSION = keccak256("1");

    error SignatureLength(uint256 length);
    error SignatureHighS(bytes32 s);
    error SignatureInvalid();

    /// @notice The digest that is signed for a struct's hash (EIP-712, encode).
    function digest(bytes32 structHash) internal view returns (bytes32) {
        bytes32 domain =
            keccak256(abi.encode(DOMAIN_TYPE, NAME, VERSION, block.chainid, address(this)));
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    /// @notice Who signed a digest: 65 bytes r, s, v; s in the lower half of the order, v 27 or 28,
    ///         so that there is one signature of a digest and not its mirror image, too.
    function signerOf(bytes32 signedDigest, bytes calldata signature)
        internal
        pure
        returns (address)
    {
        (address signer, ECDSA.RecoverError problem, bytes32 detail) =
            ECDSA.tryRecoverCalldata(signedDigest, signature);
        if (problem == ECDSA.RecoverError.InvalidSignatureLength) {
            revert SignatureLength(uint256(detail));
        }
        if (problem == ECDSA.RecoverError.InvalidSignatureS) revert SignatureHighS(detail);
        if (problem != ECDSA.RecoverError.NoError) revert SignatureInvalid();
        return signer;
    }
}
