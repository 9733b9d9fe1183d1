// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {AnchorRegistry} from "./AnchorRegistry.sol";
import {LogEvidence} from "./LogEvidence.sol";
import {MemberRegistry} from "./MemberRegistry.sol";
import {TypedData} from "./TypedData.sol";

/// @title Receipts that can prove an omission
/// @notice A receipt carries its member's signed promise that the transaction will be in the
///         member's anchored log by a deadline. Past that, anybody may submit the promise. Only
///         the inclusion proof of that transaction under that commitment answers it, and only in
///         time; otherwise OmissionProven stands for ever. No proxy and no owner.
contract OmissionRegistry {
    using LogEvidence for LogEvidence.Evidence;

    enum State {
        None,
        Claimed,
        Answered,
        Proven
    }

    struct Claim {
        State state;
        uint64 mergeDeadline;
        uint64 answerDeadline;
        bytes32 memberId;
        bytes32 txid;
        bytes32 commitment;
        address claimant;
    }

    uint64 public constant MAX_ANSWER_WINDOW = 30 days;
    uint64 public constant MAX_MERGE_DELAY = 30 days;
    uint64 public constant MAX_CLAIM_WINDOW = 3650 days;
    bytes32 private constant PROMISE_TYPE = keccak256(
        "Promise(bytes32 member,bytes32 txid,bytes32 commitment,uint64 mergeDeadline)"
    );

    AnchorRegistry public immutable anchors;
    MemberRegistry public immutable members;
    /// @notice Seconds from a claim in which it may be answered.
    uint64 public immutable answerWindow;
    /// @notice Seconds from the merge deadline in which a claim may be made.
    uint64 public immutable claimWindow;
    /// @notice How long before its merge deadline, at most, a promise is given (seconds): a
    ///         retired key counts for no promise that it can't have given while in use.
    uint64 public immutable maxMergeDelay;

    error ZeroRegistry();
    error InvalidWindow();
    error PromiseNotDue(uint64 mergeDeadline);
    error PromiseTooOld(uint64 until);
    error ClaimExists(bytes32 claimId);
    error NotPromiseKey(address signer, bytes32 memberId);
    error KeyNotValid(address signer, uint64 mergeDeadline);
    error UnknownClaim(bytes32 claimId);
    error WrongState(bytes32 claimId, State state);
    error AnswerTooLate(uint64 deadline);
    error AnswerPending(uint64 deadline);
    error LeafOfOthers(bytes32 memberId);
    error WrongTransaction(bytes32 txid);
    error WrongCommitment(bytes32 commitment);

    event OmissionClaimed(
        bytes32 indexed claimId,
        bytes32 indexed member,
        bytes32 indexed txid,
        bytes32 commitment,
        uint64 mergeDeadline,
        uint64 answerDeadline,
        address claimant
    );
    event OmissionAnswered(
        bytes32 indexed claimId,
        bytes32 indexed member,
        bytes32 indexed txid,
        uint64 anchorSeq,
        uint64 index
    );
    event OmissionProven(
        bytes32 indexed claimId,
        bytes32 indexed member,
        bytes32 indexed txid,
        bytes32 commitment
    );

    mapping(bytes32 claimId => Claim) private _claims;

    constructor(
        AnchorRegistry anchorRegistry,
        uint64 answerSeconds,
        uint64 claimSeconds,
        uint64 mergeSeconds
    ) {
        if (address(anchorRegistry) == address(0)) revert ZeroRegistry();
        if (answerSeconds == 0 || answerSeconds > MAX_ANSWER_WINDOW) revert InvalidWindow();
        if (claimSeconds == 0 || claimSeconds > MAX_CLAIM_WINDOW) revert InvalidWindow();
        if (mergeSeconds == 0 || mergeSeconds > MAX_MERGE_DELAY) revert InvalidWindow();
        anchors = anchorRegistry;
        members = anchorRegistry.members();
        answerWindow = answerSeconds;
        claimWindow = claimSeconds;
        maxMergeDelay = mergeSeconds;
    }

    /// @notice Accuses a member of having left out a transaction that it promised to include.
    /// @param commitment The transaction's shared commitment C.
    /// @param mergeDeadline Unix seconds; has to have gone by.
    /// @param signature The member's promise key's over `promiseDigest`.
    function claim(
        bytes32 memberId,
        bytes32 txid,
        bytes32 commitment,
        uint64 mergeDeadline,
        bytes calldata signature
    ) external returns (bytes32 claimId) {
        if (block.timestamp <= mergeDeadline) revert PromiseNotDue(mergeDeadline);
        if (block.timestamp - mergeDeadline > claimWindow) {
            revert PromiseTooOld(mergeDeadline + claimWindow);
        }
        bytes32 digest = promiseDigest(memberId, txid, commitment, mergeDeadline);
        _requirePromiseKey(TypedData.signerOf(digest, signature), memberId, mergeDeadline);
        claimId = claimIdOf(memberId, txid, commitment);
        Claim storage entry = _claims[claimId];
        if (entry.state != State.None) revert ClaimExists(claimId);

        uint64 answerDeadline = uint64(block.timestamp) + answerWindow;
        _claims[claimId] = Claim({
            state: State.Claimed,
            mergeDeadline: mergeDeadline,
            answerDeadline: answerDeadline,
            memberId: memberId,
            txid: txid,
            commitment: commitment,
            claimant: msg.sender
        });
        emit OmissionClaimed(
            claimId, memberId, txid, commitment, mergeDeadline, answerDeadline, msg.sender
        );
    }

    /// @notice Clears the accused by the leaf's inclusion proof. Anybody may: the proof speaks.
    function answer(bytes32 claimId, LogEvidence.Evidence calldata evidence) external {
        Claim storage entry = _claimed(claimId);
        if (block.timestamp > entry.answerDeadline) revert AnswerTooLate(entry.answerDeadline);
        evidence.requireTransaction();
        if (evidence.memberOf() != entry.memberId) revert LeafOfOthers(evidence.memberOf());
        if (evidence.txidOf() != entry.txid) revert WrongTransaction(evidence.txidOf());
        if (evidence.commitmentOf() != entry.commitment) {
            revert WrongCommitment(evidence.commitmentOf());
        }
        evidence.requireAnchored(anchors);
        entry.state = State.Answered;
        emit OmissionAnswered(
            claimId, entry.memberId, entry.txid, evidence.anchorSeq, evidence.index
        );
    }

    /// @notice Writes down that nobody answered in time; anybody may.
    function conclude(bytes32 claimId) external {
        Claim storage entry = _claimed(claimId);
        if (block.timestamp <= entry.answerDeadline) revert AnswerPending(entry.answerDeadline);
        entry.state = State.Proven;
        emit OmissionProven(claimId, entry.memberId, entry.txid, entry.commitment);
    }

    /// @notice A claim; all zero if there is none.
    function claimOf(bytes32 claimId) external view returns (Claim memory) {
        return _claims[claimId];
    }

    function claimIdOf(bytes32 memberId, bytes32 txid, bytes32 commitment)
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(memberId, txid, commitment));
    }

    /// @notice What a promise key signs (EIP-712).
    function promiseDigest(
        bytes32 memberId,
        bytes32 txid,
        bytes32 commitment,
        uint64 mergeDeadline
    ) public view returns (bytes32) {
        return TypedData.digest(
            keccak256(abi.encode(PROMISE_TYPE, memberId, txid, commitment, mergeDeadline))
        );
    }

    function _claimed(bytes32 claimId) private view returns (Claim storage entry) {
        entry = _claims[claimId];
        if (entry.state == State.None) revert UnknownClaim(claimId);
        if (entry.state != State.Claimed) revert WrongState(claimId, entry.state);
    }

    /// @dev The signer was the member's promise key at some time from maxMergeDelay before the
    ///      deadline to the deadline.
    function _requirePromiseKey(address signer, bytes32 memberId, uint64 mergeDeadline)
        private
        view
    {
        (bytes32 holder, MemberRegistry.KeyKind kind, uint64 since, uint64 until) =
            members.keyUse(bytes32(uint256(uint160(signer))));
        if (holder != memberId || holder == 0 || kind != MemberRegistry.KeyKind.Promise) {
            revert NotPromiseKey(signer, memberId);
        }
        bool retired = until != 0 && uint256(mergeDeadline) > uint256(until) + maxMergeDelay;
        if (mergeDeadline < since || retired) revert KeyNotValid(signer, mergeDeadline);
    }
}
