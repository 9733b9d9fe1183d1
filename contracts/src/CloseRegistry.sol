// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {MemberGate} from "./MemberGate.sol";
import {MemberRegistry, Roles} from "./MemberRegistry.sol";

/// @title Two institutions' books for a day, compared by one equality
/// @notice For each acquirer, issuer, currency and business date both sides commit to the root and
///         totals of their own list of the day, and reveal them when both have committed: neither
///         can copy the other's. Equal: Confirmed by itself. Different: Broken, and a corrected
///         revision may follow. Who stays silent confirms nothing: the revision expires.
///         No proxy and no owner: a new version is a new address.
contract CloseRegistry {
    using MemberGate for MemberRegistry;

    /// @dev Committing: one side has committed. Revealing: both have. Superseded: a later revision
    ///      is Confirmed.
    enum State {
        None,
        Committing,
        Revealing,
        Confirmed,
        Broken,
        Expired,
        Superseded
    }

    struct Side {
        bytes32 commitment;
        bytes32 closeRoot;
        bytes32 totalsHash;
        bool revealed;
    }

    struct Round {
        State state;
        uint64 deadline;
        Side acquirer;
        Side issuer;
    }

    /// @dev `confirmed` is the revision in force + 1; 0 if there is none.
    struct Close {
        bytes32 acquirer;
        bytes32 issuer;
        uint32 revisions;
        uint32 confirmed;
    }

    uint64 public constant MAX_WINDOW = 30 days;

    MemberRegistry public immutable members;
    /// @notice Seconds from the first side's commitment in which the other has to commit.
    uint64 public immutable commitWindow;
    /// @notice Seconds from the second commitment in which both have to reveal.
    uint64 public immutable revealWindow;

    error ZeroRegistry();
    error InvalidWindow();
    error NotParty(bytes32 memberId);
    error SameParty(bytes32 memberId);
    error WrongRole(bytes32 memberId, uint8 role);
    error InvalidCurrency(bytes32 currency);
    error InvalidDate(uint32 date);
    error ZeroCommitment();
    error UnknownClose(bytes32 closeId);
    error WrongRevision(uint32 expected, uint32 given);
    error RoundOpen(uint32 revision, uint64 deadline);
    error RoundSettled(uint32 revision);
    error RevealWithheld(bytes32 memberId);
    error AlreadyCommitted(bytes32 memberId, uint32 revision);
    error CommitTooLate(uint64 deadline);
    error NotCommitted(bytes32 memberId, uint32 revision);
    error CounterpartyNotCommitted(uint32 revision);
    error AlreadyRevealed(bytes32 memberId, uint32 revision);
    error RevealTooLate(uint64 deadline);
    error CommitmentMismatch(bytes32 committed, bytes32 revealed);
    error NotOverdue(uint32 revision, uint64 deadline);

    event CloseOpened(
        bytes32 indexed closeId,
        bytes32 indexed acquirer,
        bytes32 indexed issuer,
        bytes32 currency,
        uint32 businessDate,
        uint32 revision
    );
    event CloseCommitted(
        bytes32 indexed closeId,
        bytes32 indexed member,
        uint32 revision,
        bytes32 commitment,
        uint64 deadline
    );
    event ClosePosted(
        bytes32 indexed closeId,
        bytes32 indexed member,
        uint32 revision,
        bytes32 closeRoot,
        bytes32 totalsHash
    );
    event CloseMatched(
        bytes32 indexed closeId, uint32 indexed revision, bytes32 closeRoot, bytes32 totalsHash
    );
    event CloseBroken(bytes32 indexed closeId, uint32 indexed revision);
    event CloseExpired(
        bytes32 indexed closeId, uint32 indexed revision, bool acquirerSilent, bool issuerSilent
    );
    event CloseSuperseded(
        bytes32 indexed closeId, uint32 indexed revision, uint32 byRevision
    );

    mapping(bytes32 closeId => Close) private _closes;
    mapping(bytes32 closeId => mapping(uint32 revision => Round)) private _rounds;

    constructor(MemberRegistry registry, uint64 commitSeconds, uint64 revealSeconds) {
        if (address(registry) == address(0)) revert ZeroRegistry();
        if (commitSeconds == 0 || commitSeconds > MAX_WINDOW) revert InvalidWindow();
        if (revealSeconds == 0 || revealSeconds > MAX_WINDOW) revert InvalidWindow();
        members = registry;
        commitWindow = commitSeconds;
        revealWindow = revealSeconds;
    }

    // ---------------------------------------------------------------- the two sides

    /// @notice Commits the sender's member to its close of a day, see `commitmentOf`.
    /// @param currency Three capital letters (ISO 4217), padded on the right with zero bytes.
    /// @param businessDate The day as yyyymmdd.
    /// @param revision 0 for the first; a correction is the next number.
    function commit(
        bytes32 acquirer,
        bytes32 issuer,
        bytes32 currency,
        uint32 businessDate,
        uint32 revision,
        bytes32 commitment
    ) external {
        bytes32 memberId = members.operatorsMember(msg.sender);
        if (acquirer == issuer) revert SameParty(acquirer);
        if (memberId != acquirer && memberId != issuer) revert NotParty(memberId);
        _requireRole(acquirer, Roles.ACQUIRER);
        _requireRole(issuer, Roles.ISSUER);
        _requireCurrency(currency);
        _requireDate(businessDate);
        if (commitment == 0) revert ZeroCommitment();

        bytes32 closeId = closeIdOf(acquirer, issuer, currency, businessDate);
        Close storage close = _closes[closeId];
        if (revision == close.revisions) {
            _open(closeId, close, memberId);
            if (revision == 0) (close.acquirer, close.issuer) = (acquirer, issuer);
            close.revisions = revision + 1;
            emit CloseOpened(closeId, acquirer, issuer, currency, businessDate, revision);
        } else if (revision + 1 != close.revisions) {
            revert WrongRevision(close.revisions, revision);
        }
        _commit(closeId, revision, memberId, memberId == acquirer, commitment);
    }

    /// @notice Opens the sender's commitment of a revision; with the second one the revision is
    ///         Confirmed or Broken.
    function reveal(
        bytes32 closeId,
        uint32 revision,
        bytes32 closeRoot,
        bytes32 totalsHash,
        bytes32 blind
    ) external {
        bytes32 memberId = members.operatorsMember(msg.sender);
        Close storage close = _known(closeId);
        bool isAcquirer = memberId == close.acquirer;
        if (!isAcquirer && memberId != close.issuer) revert NotParty(memberId);
        if (revision >= close.revisions) revert WrongRevision(close.revisions - 1, revision);

        Round storage round = _rounds[closeId][revision];
        Side storage side = isAcquirer ? round.acquirer : round.issuer;
        if (side.commitment == 0) revert NotCommitted(memberId, revision);
        if (side.revealed) revert AlreadyRevealed(memberId, revision);
        if (round.state == State.Committing) revert CounterpartyNotCommitted(revision);
        if (round.state != State.Revealing) revert RoundSettled(revision);
        if (block.timestamp > round.deadline) revert RevealTooLate(round.deadline);
        bytes32 opened = commitmentOf(memberId, closeId, revision, closeRoot, totalsHash, blind);
        if (opened != side.commitment) revert CommitmentMismatch(side.commitment, opened);

        side.closeRoot = closeRoot;
        side.totalsHash = totalsHash;
        side.revealed = true;
        emit ClosePosted(closeId, memberId, revision, closeRoot, totalsHash);
        Side storage other = isAcquirer ? round.issuer : round.acquirer;
        if (!other.revealed) return;
        if (other.closeRoot == closeRoot && other.totalsHash == totalsHash) {
            round.state = State.Confirmed;
            close.confirmed = revision + 1;
            emit CloseMatched(closeId, revision, closeRoot, totalsHash);
            if (revision != 0) emit CloseSuperseded(closeId, revision - 1, revision);
        } else {
            round.state = State.Broken;
            emit CloseBroken(closeId, revision);
        }
    }

    /// @notice Writes down that the newest revision's deadline went by; anybody may.
    function expire(bytes32 closeId) external {
        Close storage close = _known(closeId);
        uint32 revision = close.revisions - 1;
        Round storage round = _rounds[closeId][revision];
        if (!_isOpen(round)) revert RoundSettled(revision);
        if (block.timestamp <= round.deadline) revert NotOverdue(revision, round.deadline);
        _expire(closeId, revision, round);
    }

    // ---------------------------------------------------------------- views

    function closeIdOf(bytes32 acquirer, bytes32 issuer, bytes32 currency, uint32 businessDate)
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(acquirer, issuer, currency, businessDate));
    }

    /// @notice What a member commits to: bound to chain, contract, member, close and revision, and
    ///         hidden by `blind`, 32 random bytes.
    function commitmentOf(
        bytes32 memberId,
        bytes32 closeId,
        uint32 revision,
        bytes32 closeRoot,
        bytes32 totalsHash,
        bytes32 blind
    ) public view returns (bytes32) {
        return keccak256(
            abi.encode(
                block.chainid,
                address(this),
                memberId,
                closeId,
                revision,
                closeRoot,
                totalsHash,
                blind
            )
        );
    }

    /// @notice How many revisions there are, and which one is in force, if any is.
    function latestOf(bytes32 closeId)
        external
        view
        returns (uint32 revisions, bool hasConfirmed, uint32 confirmedRevision)
    {
        Close storage close = _closes[closeId];
        hasConfirmed = close.confirmed != 0;
        return (close.revisions, hasConfirmed, hasConfirmed ? close.confirmed - 1 : 0);
    }

    /// @notice A revision as it stands now; an overdue one reads as Expired before expire().
    function roundOf(bytes32 closeId, uint32 revision)
        external
        view
        returns (State state, uint64 deadline, Side memory acquirer, Side memory issuer)
    {
        Round storage round = _rounds[closeId][revision];
        state = round.state;
        if (_isOpen(round) && block.timestamp > round.deadline) state = State.Expired;
        if (state != State.None && revision + 1 < _closes[closeId].confirmed) {
            state = State.Superseded;
        }
        return (state, round.deadline, round.acquirer, round.issuer);
    }

    /// @notice The close in force: of the revisions that are Confirmed the last.
    function confirmedOf(bytes32 closeId)
        external
        view
        returns (bool found, uint32 revision, bytes32 closeRoot, bytes32 totalsHash)
    {
        uint32 confirmed = _closes[closeId].confirmed;
        if (confirmed == 0) return (false, 0, 0, 0);
        Side storage side = _rounds[closeId][confirmed - 1].acquirer;
        return (true, confirmed - 1, side.closeRoot, side.totalsHash);
    }

    /// @notice The two sides of a close; zero if nobody has committed to it.
    function partiesOf(bytes32 closeId) external view returns (bytes32 acquirer, bytes32 issuer) {
        Close storage close = _closes[closeId];
        return (close.acquirer, close.issuer);
    }

    // ---------------------------------------------------------------- inside

    /// @dev Whether the next revision may begin: the last one is over, and this member isn't the
    ///      one that saw the other's reveal and kept its own back.
    function _open(bytes32 closeId, Close storage close, bytes32 memberId) private {
        if (close.revisions == 0) return;
        uint32 last = close.revisions - 1;
        Round storage round = _rounds[closeId][last];
        if (_isOpen(round)) {
            if (block.timestamp <= round.deadline) revert RoundOpen(last, round.deadline);
            _expire(closeId, last, round);
        }
        if (round.state != State.Expired) return;
        bool isAcquirer = memberId == close.acquirer;
        bool own = isAcquirer ? round.acquirer.revealed : round.issuer.revealed;
        bool others = isAcquirer ? round.issuer.revealed : round.acquirer.revealed;
        if (others && !own) revert RevealWithheld(memberId);
    }

    function _commit(
        bytes32 closeId,
        uint32 revision,
        bytes32 memberId,
        bool isAcquirer,
        bytes32 commitment
    ) private {
        Round storage round = _rounds[closeId][revision];
        Side storage side = isAcquirer ? round.acquirer : round.issuer;
        if (side.commitment != 0) revert AlreadyCommitted(memberId, revision);
        uint64 window = commitWindow;
        if (round.state == State.None) {
            round.state = State.Committing;
        } else if (round.state == State.Committing) {
            if (block.timestamp > round.deadline) revert CommitTooLate(round.deadline);
            round.state = State.Revealing;
            window = revealWindow;
        } else {
            revert RoundSettled(revision);
        }
        side.commitment = commitment;
        round.deadline = uint64(block.timestamp) + window;
        emit CloseCommitted(closeId, memberId, revision, commitment, round.deadline);
    }

    function _expire(bytes32 closeId, uint32 revision, Round storage round) private {
        // Silent is who didn't do what the phase asked for.
        bool revealing = round.state == State.Revealing;
        round.state = State.Expired;
        emit CloseExpired(
            closeId,
            revision,
            revealing ? !round.acquirer.revealed : round.acquirer.commitment == 0,
            revealing ? !round.issuer.revealed : round.issuer.commitment == 0
        );
    }

    function _isOpen(Round storage round) private view returns (bool) {
        return round.state == State.Committing || round.state == State.Revealing;
    }

    function _known(bytes32 closeId) private view returns (Close storage close) {
        close = _closes[closeId];
        if (close.revisions == 0) revert UnknownClose(closeId);
    }

    function _requireRole(bytes32 memberId, uint8 role) private view {
        (uint8 roles, MemberRegistry.Status status) = members.rolesOf(memberId);
        if (roles & role == 0) revert WrongRole(memberId, role);
        if (status != MemberRegistry.Status.Active) revert MemberGate.MemberRevoked(memberId);
    }

    function _requireCurrency(bytes32 currency) private pure {
        for (uint256 i = 0; i < 3; ++i) {
            if (currency[i] < "A" || currency[i] > "Z") revert InvalidCurrency(currency);
        }
        if (uint256(currency) << 24 != 0) revert InvalidCurrency(currency);
    }

    /// @dev A day of the Gregorian calendar from 2000 to 9999.
    function _requireDate(uint32 date) private pure {
        uint256 year = date / 10_000;
        uint256 month = (date / 100) % 100;
        uint256 day = date % 100;
        if (year < 2000 || year > 9999 || month == 0 || month > 12 || day == 0) {
            revert InvalidDate(date);
        }
        uint256 last = 31;
        if (month == 4 || month == 6 || month == 9 || month == 11) last = 30;
        if (month == 2) last = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28;
        if (day > last) revert InvalidDate(date);
    }
}
