// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {AnchorRegistry} from "./AnchorRegistry.sol";
import {CloseRegistry} from "./CloseRegistry.sol";
import {LogEvidence} from "./LogEvidence.sol";
import {MemberGate} from "./MemberGate.sol";
import {MemberRegistry} from "./MemberRegistry.sol";
import {TypedData} from "./TypedData.sol";

/// @title Settlements that both parties have signed
/// @notice A settlement cites a confirmed close. It counts when the operators of both parties have
///         signed it (EIP-712), and is final when the time for disputes is over. A dispute needs a
///         leaf of the pair's log as evidence, verified here against an anchored root; k of n
///         arbiters resolve it. What is paid stays off the chain, bound by `statementHash`.
///         Silence is never a confirmation. No proxy and no owner.
contract SettlementRegistry {
    using MemberGate for MemberRegistry;
    using LogEvidence for LogEvidence.Evidence;

    enum State {
        None,
        Proposed,
        Confirmed,
        Disputed,
        Resolved,
        Final,
        Expired,
        Superseded
    }

    enum Verdict {
        None,
        Upheld,
        Annulled
    }

    /// @notice What both parties sign.
    /// @param closeRevision The revision of the close that is settled; the one in force.
    /// @param totalsHash That close's totals.
    /// @param statementHash Commits to payer, payee, amount and whatever else the statement says.
    /// @param supersedes The settlement of this close that is in force; zero for the first.
    /// @param nonce The number of the pair's proposal, from 0.
    /// @param deadline Until when (Unix seconds) both have to sign.
    struct Settlement {
        bytes32 acquirer;
        bytes32 issuer;
        bytes32 currency;
        uint32 businessDate;
        uint32 closeRevision;
        bytes32 totalsHash;
        bytes32 statementHash;
        bytes32 supersedes;
        uint256 nonce;
        uint64 deadline;
    }

    struct Record {
        State state;
        Verdict verdict;
        bool byAcquirer;
        uint32 closeRevision;
        uint64 nonce;
        uint64 deadline;
        uint64 disputableUntil;
        bytes32 closeId;
        bytes32 totalsHash;
        bytes32 statementHash;
        bytes32 supersedes;
    }

    uint64 public constant MAX_WINDOW = 30 days;
    uint256 public constant MAX_ARBITERS = 15;
    bytes32 private constant SETTLEMENT_TYPE = keccak256(
        "Settlement(bytes32 acquirer,bytes32 issuer,bytes32 currency,uint32 businessDate,"
        "uint32 closeRevision,bytes32 totalsHash,bytes32 statementHash,bytes32 supersedes,"
        "uint256 nonce,uint64 deadline)"
    );
    bytes32 private constant RESOLUTION_TYPE = keccak256(
        "Resolution(bytes32 settlementId,uint8 verdict,bytes32 reasonHash,uint64 deadline)"
    );

    CloseRegistry public immutable closes;
    AnchorRegistry public immutable anchors;
    MemberRegistry public immutable members;
    /// @notice Seconds from the confirmation in which either party may dispute.
    uint64 public immutable disputeWindow;

    error ZeroRegistry();
    error RegistriesDiffer();
    error InvalidWindow();
    error WrongNonce(uint256 expected, uint256 given);
    error DeadlinePassed(uint64 deadline);
    error DeadlineTooFar(uint64 deadline, uint64 latest);
    error CloseNotConfirmed(bytes32 closeId, uint32 revision);
    error TotalsMismatch(bytes32 confirmed, bytes32 given);
    error WrongPredecessor(bytes32 expected, bytes32 given);
    error ZeroStatement();
    error SignerNotParty(address signer);
    error AlreadySigned(bytes32 memberId);
    error UnknownSettlement(bytes32 settlementId);
    error WrongState(bytes32 settlementId, State state);
    error NotParty(bytes32 memberId);
    error DisputeTooLate(uint64 until);
    error StillDisputable(uint64 until);
    error NotOverdue(uint64 deadline);
    error LeafOfOthers(bytes32 memberId);
    error WrongPair(bytes32 expected, bytes32 given);
    error NotArbiter(address signer);
    error ArbiterIsParty(address signer);
    error SignersNotAscending(address signer);
    error TooFewSignatures(uint256 needed, uint256 given);
    error InvalidVerdict();
    error InvalidArbiters();
    error NoArbiters();
    error NotGovernance(address sender);

    event SettlementProposed(
        bytes32 indexed settlementId,
        bytes32 indexed closeId,
        bytes32 indexed proposer,
        uint32 closeRevision,
        bytes32 statementHash,
        bytes32 supersedes,
        uint256 nonce,
        uint64 deadline
    );
    event SettlementConfirmed(
        bytes32 indexed settlementId, bytes32 indexed closeId, uint64 disputableUntil
    );
    event SettlementDisputed(
        bytes32 indexed settlementId,
        bytes32 indexed closeId,
        bytes32 indexed by,
        bytes32 txid,
        bytes32 leafMember,
        bytes32 reasonHash
    );
    event SettlementResolved(
        bytes32 indexed settlementId, bytes32 indexed closeId, Verdict verdict, bytes32 reasonHash
    );
    event SettlementFinal(bytes32 indexed settlementId, bytes32 indexed closeId);
    event SettlementExpired(bytes32 indexed settlementId, bytes32 indexed closeId);
    event SettlementSuperseded(
        bytes32 indexed settlementId, bytes32 indexed closeId, bytes32 by
    );
    event ArbitersSet(address[] arbiters, uint32 threshold);

    mapping(bytes32 settlementId => Record) private _records;
    mapping(bytes32 closeId => bytes32 settlementId) private _current;
    mapping(bytes32 closeId => bytes32 settlementId) private _pending;
    mapping(bytes32 pair => uint64) private _nonces;
    address[] private _arbiters;
    uint32 private _threshold;
    mapping(address => bool) private _isArbiter;

    /// @param judges The arbiters in ascending order, at most 15; may be none at first.
    /// @param threshold How many of them resolve a dispute.
    constructor(
        CloseRegistry closeRegistry,
        AnchorRegistry anchorRegistry,
        uint64 disputeSeconds,
        address[] memory judges,
        uint32 threshold
    ) {
        if (address(closeRegistry) == address(0) || address(anchorRegistry) == address(0)) {
            revert ZeroRegistry();
        }
        if (address(closeRegistry.members()) != address(anchorRegistry.members())) {
            revert RegistriesDiffer();
        }
        if (disputeSeconds == 0 || disputeSeconds > MAX_WINDOW) revert InvalidWindow();
        closes = closeRegistry;
        anchors = anchorRegistry;
        members = closeRegistry.members();
        disputeWindow = disputeSeconds;
        if (judges.length != 0 || threshold != 0) _setArbiters(judges, threshold);
    }

    // ---------------------------------------------------------------- the parties

    /// @notice Puts a settlement up, signed by one party's operator; anybody may send it. A
    ///         proposal of this close that waits is superseded by it.
    function propose(Settlement calldata s, bytes calldata signature) external returns (bytes32) {
        bytes32 closeId = closes.closeIdOf(s.acquirer, s.issuer, s.currency, s.businessDate);
        bytes32 settlementId = settlementIdOf(s);
        bool byAcquirer = _signingSide(s.acquirer, s.issuer, settlementId, signature);
        bytes32 pair = _pairKey(s.acquirer, s.issuer);
        if (s.nonce != _nonces[pair]) revert WrongNonce(_nonces[pair], s.nonce);
        _requireTime(s.deadline);
        if (s.statementHash == 0) revert ZeroStatement();
        bytes32 totalsHash = _requireClose(closeId, s.closeRevision);
        if (s.totalsHash != totalsHash) revert TotalsMismatch(totalsHash, s.totalsHash);
        if (s.supersedes != _current[closeId]) {
            revert WrongPredecessor(_current[closeId], s.supersedes);
        }

        bytes32 waiting = _pending[closeId];
        if (waiting != 0) _dropWaiting(waiting, closeId, settlementId);
        _nonces[pair] = uint64(s.nonce) + 1;
        _pending[closeId] = settlementId;
        _records[settlementId] = Record({
            state: State.Proposed,
            verdict: Verdict.None,
            byAcquirer: byAcquirer,
            closeRevision: s.closeRevision,
            nonce: uint64(s.nonce),
            deadline: s.deadline,
            disputableUntil: 0,
            closeId: closeId,
            totalsHash: s.totalsHash,
            statementHash: s.statementHash,
            supersedes: s.supersedes
        });
        _emitProposed(settlementId, closeId, byAcquirer, s);
        return settlementId;
    }

    /// @notice Adds the other party's signature; anybody may send it. What was in force for this
    ///         close until now is superseded.
    function confirm(bytes32 settlementId, bytes calldata signature) external {
        Record storage record = _inState(settlementId, State.Proposed);
        if (block.timestamp > record.deadline) revert DeadlinePassed(record.deadline);
        bytes32 closeId = record.closeId;
        (bytes32 acquirer, bytes32 issuer) = closes.partiesOf(closeId);
        bool byAcquirer = _signingSide(acquirer, issuer, settlementId, signature);
        bytes32 proposer = record.byAcquirer ? acquirer : issuer;
        if (byAcquirer == record.byAcquirer) revert AlreadySigned(proposer);
        (, MemberRegistry.Status status) = members.rolesOf(proposer);
        if (status != MemberRegistry.Status.Active) revert MemberGate.MemberRevoked(proposer);
        _requireClose(closeId, record.closeRevision);

        bytes32 before = _current[closeId];
        if (before != 0) {
            _records[before].state = State.Superseded;
            emit SettlementSuperseded(before, closeId, settlementId);
        }
        delete _pending[closeId];
        _current[closeId] = settlementId;
        record.state = State.Confirmed;
        record.disputableUntil = uint64(block.timestamp) + disputeWindow;
        emit SettlementConfirmed(settlementId, closeId, record.disputableUntil);
    }

    /// @notice Disputes a confirmed settlement with a transaction of this pair out of the log of
    ///         one of the two, which either party's operator may send.
    /// @param reasonHash Commits to what is claimed, for the arbiters.
    function dispute(
        bytes32 settlementId,
        LogEvidence.Evidence calldata evidence,
        bytes32 reasonHash
    ) external {
        bytes32 by = members.operatorsMember(msg.sender);
        Record storage record = _inState(settlementId, State.Confirmed);
        bytes32 closeId = record.closeId;
        (bytes32 acquirer, bytes32 issuer) = closes.partiesOf(closeId);
        if (by != acquirer && by != issuer) revert NotParty(by);
        if (block.timestamp > record.disputableUntil) {
            revert DisputeTooLate(record.disputableUntil);
        }
        evidence.requireTransaction();
        bytes32 owner = evidence.memberOf();
        if (owner != acquirer && owner != issuer) revert LeafOfOthers(owner);
        bytes32 pairId = sha256(abi.encodePacked("countersign/pair/1", acquirer, issuer));
        if (evidence.pairOf() != pairId) revert WrongPair(pairId, evidence.pairOf());
        evidence.requireAnchored(anchors);

        record.state = State.Disputed;
        emit SettlementDisputed(
            settlementId, closeId, by, evidence.txidOf(), owner, reasonHash
        );
    }

    // ---------------------------------------------------------------- arbiters

    /// @notice Ends a dispute by k arbiters' signatures, in ascending order of their addresses;
    ///         anybody may send them. Upheld: the settlement stands. Annulled: the parties sign
    ///         another, which supersedes it.
    function resolve(
        bytes32 settlementId,
        uint8 verdict,
        bytes32 reasonHash,
        uint64 deadline,
        bytes[] calldata signatures
    ) external {
        Record storage record = _inState(settlementId, State.Disputed);
        if (verdict == 0 || verdict > uint8(type(Verdict).max)) revert InvalidVerdict();
        if (block.timestamp > deadline) revert DeadlinePassed(deadline);
        bytes32 digest = TypedData.digest(
            keccak256(
                abi.encode(RESOLUTION_TYPE, settlementId, verdict, reasonHash, deadline)
            )
        );
        _requireArbiters(record.closeId, digest, signatures);
        record.state = State.Resolved;
        record.verdict = Verdict(verdict);
        emit SettlementResolved(settlementId, record.closeId, record.verdict, reasonHash);
    }

    /// @notice Names the arbiters; by the MemberRegistry's governance.
    function setArbiters(address[] calldata judges, uint32 threshold) external {
        if (msg.sender != members.owner()) revert NotGovernance(msg.sender);
        _setArbiters(judges, threshold);
    }

    // ---------------------------------------------------------------- anybody

    /// @notice Ends the time for disputes of a settlement whose close is still in force.
    function finalize(bytes32 settlementId) external {
        Record storage record = _inState(settlementId, State.Confirmed);
        if (block.timestamp <= record.disputableUntil) {
            revert StillDisputable(record.disputableUntil);
        }
        _requireClose(record.closeId, record.closeRevision);
        record.state = State.Final;
        emit SettlementFinal(settlementId, record.closeId);
    }

    /// @notice Writes down that a proposal wasn't signed in time.
    function expire(bytes32 settlementId) external {
        Record storage record = _inState(settlementId, State.Proposed);
        if (block.timestamp <= record.deadline) revert NotOverdue(record.deadline);
        delete _pending[record.closeId];
        record.state = State.Expired;
        emit SettlementExpired(settlementId, record.closeId);
    }

    // ---------------------------------------------------------------- views

    /// @notice A settlement's id: the EIP-712 digest that both parties sign.
    function settlementIdOf(Settlement calldata s) public view returns (bytes32) {
        return TypedData.digest(keccak256(abi.encode(SETTLEMENT_TYPE, s)));
    }

    /// @notice The number of the pair's next proposal.
    function nonceOf(bytes32 acquirer, bytes32 issuer) external view returns (uint256) {
        return _nonces[_pairKey(acquirer, issuer)];
    }

    /// @notice The settlement of a close that both have signed last; zero if there is none.
    function currentOf(bytes32 closeId) external view returns (bytes32) {
        return _current[closeId];
    }

    /// @notice The proposal of a close that waits for its second signature; zero if there is none.
    function pendingOf(bytes32 closeId) external view returns (bytes32) {
        bytes32 waiting = _pending[closeId];
        return waiting != 0 && block.timestamp <= _records[waiting].deadline ? waiting : bytes32(0);
    }

    /// @notice A settlement with its state as of now; all zero if there is none.
    function settlementOf(bytes32 settlementId) external view returns (Record memory record) {
        record = _records[settlementId];
        record.state = stateOf(settlementId);
    }

    /// @notice The state as of now: an overdue proposal reads as Expired before expire().
    function stateOf(bytes32 settlementId) public view returns (State) {
        Record storage record = _records[settlementId];
        bool overdue = record.state == State.Proposed && block.timestamp > record.deadline;
        return overdue ? State.Expired : record.state;
    }

    function arbiters() external view returns (address[] memory judges, uint32 threshold) {
        return (_arbiters, _threshold);
    }

    // ---------------------------------------------------------------- inside

    function _inState(bytes32 settlementId, State wanted)
        private
        view
        returns (Record storage record)
    {
        record = _records[settlementId];
        if (record.state == State.None) revert UnknownSettlement(settlementId);
        if (record.state != wanted) revert WrongState(settlementId, record.state);
    }

    function _pairKey(bytes32 acquirer, bytes32 issuer) private pure returns (bytes32) {
        return keccak256(abi.encode(acquirer, issuer));
    }

    /// @dev Whether the acquirer signed (else the issuer), by the operator that it has now.
    function _signingSide(
        bytes32 acquirer,
        bytes32 issuer,
        bytes32 settlementId,
        bytes calldata signature
    ) private view returns (bool) {
        address signer = TypedData.signerOf(settlementId, signature);
        (bytes32 memberId, bool isOperator, MemberRegistry.Status status) =
            members.standing(signer);
        if (!isOperator || (memberId != acquirer && memberId != issuer)) {
            revert SignerNotParty(signer);
        }
        if (status != MemberRegistry.Status.Active) revert MemberGate.MemberRevoked(memberId);
        return memberId == acquirer;
    }

    function _requireTime(uint64 deadline) private view {
        if (block.timestamp > deadline) revert DeadlinePassed(deadline);
        uint64 latest = uint64(block.timestamp) + MAX_WINDOW;
        if (deadline > latest) revert DeadlineTooFar(deadline, latest);
    }

    /// @dev The totals of the close in force, which has to be this revision.
    function _requireClose(bytes32 closeId, uint32 revision) private view returns (bytes32) {
        (bool found, uint32 inForce,, bytes32 totalsHash) = closes.confirmedOf(closeId);
        if (!found || inForce != revision) revert CloseNotConfirmed(closeId, revision);
        return totalsHash;
    }

    function _dropWaiting(bytes32 waiting, bytes32 closeId, bytes32 by) private {
        Record storage record = _records[waiting];
        if (block.timestamp > record.deadline) {
            record.state = State.Expired;
            emit SettlementExpired(waiting, closeId);
        } else {
            record.state = State.Superseded;
            emit SettlementSuperseded(waiting, closeId, by);
        }
    }

    function _emitProposed(
        bytes32 settlementId,
        bytes32 closeId,
        bool byAcquirer,
        Settlement calldata s
    ) private {
        emit SettlementProposed(
            settlementId,
            closeId,
            byAcquirer ? s.acquirer : s.issuer,
            s.closeRevision,
            s.statementHash,
            s.supersedes,
            s.nonce,
            s.deadline
        );
    }

    function _requireArbiters(bytes32 closeId, bytes32 digest, bytes[] calldata signatures)
        private
        view
    {
        if (_threshold == 0) revert NoArbiters();
        if (signatures.length < _threshold) {
            revert TooFewSignatures(_threshold, signatures.length);
        }
        (bytes32 acquirer, bytes32 issuer) = closes.partiesOf(closeId);
        address last = address(0);
        for (uint256 i = 0; i < signatures.length; ++i) {
            address signer = TypedData.signerOf(digest, signatures[i]);
            if (signer <= last) revert SignersNotAscending(signer);
            if (!_isArbiter[signer]) revert NotArbiter(signer);
            (bytes32 memberId,,) = members.standing(signer);
            if (memberId == acquirer || memberId == issuer) revert ArbiterIsParty(signer);
            last = signer;
        }
    }

    function _setArbiters(address[] memory judges, uint32 threshold) private {
        if (threshold == 0 || threshold > judges.length || judges.length > MAX_ARBITERS) {
            revert InvalidArbiters();
        }
        for (uint256 i = 0; i < _arbiters.length; ++i) _isArbiter[_arbiters[i]] = false;
        address last = address(0);
        for (uint256 i = 0; i < judges.length; ++i) {
            if (judges[i] <= last) revert InvalidArbiters();
            last = judges[i];
            _isArbiter[last] = true;
        }
        _arbiters = judges;
        _threshold = threshold;
        emit ArbitersSet(judges, threshold);
    }
}
