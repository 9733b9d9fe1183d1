// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

/// @title A member's roles, as bits of one mask
library Roles {
    uint8 internal constant ISSUER = 1;
    uint8 internal constant ACQUIRER = 2;
    uint8 internal constant MERCHANT = 4;
    uint8 internal constant AUDITOR = 8;
}

/// @title The network's directory: who is a member, in which roles, reached where, by which keys
/// @notice Governance (the owner) admits, changes and revokes members. A member's operator rotates
///         the member's own keys and moves its API. Keys have histories: a retired key stays valid
///         for the blocks of its period, so that what it signed then can be checked for ever.
contract MemberRegistry is Ownable2Step {
    enum Status {
        None,
        Active,
        Revoked
    }

    /// @dev Operator, Promise: EVM addresses (the second signs the promises on receipts and is
    ///      optional). Note, Message: Ed25519 public keys (RFC 8032).
    enum KeyKind {
        Operator,
        Note,
        Message,
        Promise
    }

    enum Change {
        Registered,
        Renamed,
        ApiMoved,
        RolesSet,
        BinsSet,
        KeyRotated,
        Revoked,
        Reinstated
    }

    /// @notice A key and the blocks from `first` to `last`, both included, in which it is valid;
    ///         last = 0 while it is in use.
    struct KeyPeriod {
        bytes32 key;
        uint64 first;
        uint64 last;
    }

    struct Registration {
        bytes32 memberId;
        uint8 roles;
        string name;
        string apiUrl;
        string[] bins;
        address operator;
        bytes32 noteKey;
        bytes32 messageKey;
    }

    struct Member {
        bytes32 memberId;
        uint8 roles;
        Status status;
        string name;
        string apiUrl;
        string[] bins;
        KeyPeriod[] operators;
        KeyPeriod[] noteKeys;
        KeyPeriod[] messageKeys;
        KeyPeriod[] promiseKeys;
    }

    /// @notice Whose a key is or was, for what, and from when to when (block timestamps, UTC);
    ///         until = 0 while it is in use.
    struct KeyUse {
        bytes32 memberId;
        KeyKind kind;
        uint64 since;
        uint64 until;
    }

    uint8 public constant ISSUER = Roles.ISSUER;
    uint8 public constant ACQUIRER = Roles.ACQUIRER;
    uint8 public constant MERCHANT = Roles.MERCHANT;
    uint8 public constant AUDITOR = Roles.AUDITOR;

    uint256 private constant MAX_NAME = 64;
    uint256 private constant MAX_URL = 256;

    error NotGovernance(address sender);
    error NotGovernanceOrOperator(address sender);
    error InvalidMemberId(bytes32 memberId);
    error MemberExists(bytes32 memberId);
    error UnknownMember(bytes32 memberId);
    error MemberRevoked(bytes32 memberId);
    error MemberNotRevoked(bytes32 memberId);
    error InvalidRoles(uint8 roles);
    error InvalidName();
    error InvalidApiUrl();
    error InvalidBin(string bin);
    error BinOverlaps(string bin, bytes32 memberId);
    error BinNotHeld(string bin);
    error BinsNeedIssuer(bytes32 memberId);
    error InvalidKey(bytes32 key);
    error InvalidKeyKind(uint8 keyKind);
    error KeyInUse(bytes32 key, bytes32 memberId);
    error NoKeyAtBlock(bytes32 memberId, KeyKind kind, uint256 blockNumber);

    event MemberChanged(
        bytes32 indexed memberId,
        Change indexed change,
        uint8 roles,
        Status status,
        address operator,
        bytes32 noteKey,
        bytes32 messageKey
    );
    event KeyRotated(
        bytes32 indexed memberId, KeyKind indexed kind, bytes32 previous, bytes32 key, address by
    );

    struct Record {
        uint8 roles;
        Status status;
        string name;
        string apiUrl;
        bytes8[] bins;
    }

    bytes32[] private _memberIds;
    mapping(bytes32 memberId => Record) private _records;
    mapping(bytes32 memberId => mapping(KeyKind => KeyPeriod[])) private _keys;
    /// @dev A key or address never changes hands, nor its purpose.
    mapping(bytes32 key => KeyUse) private _keyUses;
    mapping(bytes8 bin => bytes32 memberId) private _binOwner;
    /// @dev Where a BIN stands in its holder's list.
    mapping(bytes8 bin => uint256) private _binIndex;
    /// @dev How many 8-digit BINs are held below a 6-digit one.
    mapping(bytes8 bin => uint256) private _binsBelow;

    constructor(address governance) Ownable(governance) {}

    modifier governanceOrOperator(bytes32 memberId) {
        if (msg.sender != owner()) {
            _requireActive(memberId);
            if (msg.sender != operatorOf(memberId)) revert NotGovernanceOrOperator(msg.sender);
        }
        _;
    }

    // ---------------------------------------------------------------- governance

    function register(Registration calldata r) external onlyOwner {
        if (!_isMemberId(r.memberId)) revert InvalidMemberId(r.memberId);
        Record storage record = _records[r.memberId];
        if (record.status != Status.None) revert MemberExists(r.memberId);
        record.status = Status.Active;
        _memberIds.push(r.memberId);
        _setRoles(record, r.roles);
        _setName(record, r.name);
        _setApiUrl(record, r.apiUrl);
        _addBins(r.memberId, record, r.bins);
        _openKeys(r.memberId, r.operator, r.noteKey, r.messageKey);
        _emitChange(r.memberId, Change.Registered);
    }

    function setName(bytes32 memberId, string calldata name) external onlyOwner {
        _setName(_known(memberId), name);
        _emitChange(memberId, Change.Renamed);
    }

    function setRoles(bytes32 memberId, uint8 roles) external onlyOwner {
        Record storage record = _known(memberId);
        _setRoles(record, roles);
        if (roles & ISSUER == 0 && record.bins.length != 0) revert BinsNeedIssuer(memberId);
        _emitChange(memberId, Change.RolesSet);
    }

    /// @notice Takes BINs from a member and gives it others, in this order.
    function setBins(bytes32 memberId, string[] calldata removed, string[] calldata added)
        external
        onlyOwner
    {
        Record storage record = _known(memberId);
        for (uint256 i = 0; i < removed.length; ++i) _removeBin(memberId, record, removed[i]);
        _addBins(memberId, record, added);
        _emitChange(memberId, Change.BinsSet);
    }

    /// @notice Ends a membership: its keys' periods end with this block. Its BINs stay reserved
    ///         until governance takes them.
    function revoke(bytes32 memberId) external onlyOwner {
        _requireActive(memberId);
        _records[memberId].status = Status.Revoked;
        _closeKey(memberId, KeyKind.Operator);
        _closeKey(memberId, KeyKind.Note);
        _closeKey(memberId, KeyKind.Message);
        _closeKey(memberId, KeyKind.Promise);
        _emitChange(memberId, Change.Revoked);
    }

    /// @notice Admits a revoked member again, with fresh keys; its log goes on where it stood. A
    ///         promise key is given as the first was, by rotateKey.
    function reinstate(bytes32 memberId, address operator, bytes32 noteKey, bytes32 messageKey)
        external
        onlyOwner
    {
        Record storage record = _known(memberId);
        if (record.status != Status.Revoked) revert MemberNotRevoked(memberId);
        record.status = Status.Active;
        _openKeys(memberId, operator, noteKey, messageKey);
        _emitChange(memberId, Change.Reinstated);
    }

    /// @dev A registry without governance could never revoke anyone.
    function renounceOwnership() public view override onlyOwner {
        revert NotGovernance(address(0));
    }

    // ---------------------------------------------------------------- governance or operator

    function setApiUrl(bytes32 memberId, string calldata apiUrl)
        external
        governanceOrOperator(memberId)
    {
        _setApiUrl(_known(memberId), apiUrl);
        _emitChange(memberId, Change.ApiMoved);
    }

    /// @notice Retires the key in use, if there is one, and puts another in its place; an
    ///         operator's or promise key is its address as a uint256. Both are valid in this
    ///         block. The member's own hand is its operator's key, the old one when it replaces
    ///         itself; where that key is lost or stolen, governance rotates it.
    function rotateKey(bytes32 memberId, uint8 keyKind, bytes32 key)
        external
        governanceOrOperator(memberId)
    {
        if (keyKind > uint8(type(KeyKind).max)) revert InvalidKeyKind(keyKind);
        KeyKind kind = KeyKind(keyKind);
        _requireActive(memberId);
        bytes32 previous = _closeKey(memberId, kind);
        _openKey(memberId, kind, key);
        emit KeyRotated(memberId, kind, previous, key, msg.sender);
        _emitChange(memberId, Change.KeyRotated);
    }

    // ---------------------------------------------------------------- views

    function memberCount() external view returns (uint256) {
        return _memberIds.length;
    }

    /// @notice Up to `limit` members in the order of registration, from the one numbered `offset`.
    function members(uint256 offset, uint256 limit) external view returns (Member[] memory page) {
        uint256 count = _memberIds.length;
        if (offset > count) offset = count;
        if (limit > count - offset) limit = count - offset;
        page = new Member[](limit);
        for (uint256 i = 0; i < limit; ++i) page[i] = member(_memberIds[offset + i]);
    }

    function member(bytes32 memberId) public view returns (Member memory) {
        Record storage record = _known(memberId);
        string[] memory bins = new string[](record.bins.length);
        for (uint256 i = 0; i < bins.length; ++i) bins[i] = _binText(record.bins[i]);
        return Member({
            memberId: memberId,
            roles: record.roles,
            status: record.status,
            name: record.name,
            apiUrl: record.apiUrl,
            bins: bins,
            operators: _keys[memberId][KeyKind.Operator],
            noteKeys: _keys[memberId][KeyKind.Note],
            messageKeys: _keys[memberId][KeyKind.Message],
            promiseKeys: _keys[memberId][KeyKind.Promise]
        });
    }

    /// @notice The operator's address; after a revocation the last one.
    function operatorOf(bytes32 memberId) public view returns (address) {
        return address(uint160(uint256(_lastKey(memberId, KeyKind.Operator))));
    }

    /// @notice The address that signs the member's promises; zero if it makes none.
    function promiseKeyOf(bytes32 memberId) external view returns (address) {
        KeyPeriod[] storage periods = _keys[memberId][KeyKind.Promise];
        if (periods.length == 0) return address(0);
        KeyPeriod storage period = periods[periods.length - 1];
        return period.last == 0 ? address(uint160(uint256(period.key))) : address(0);
    }

    /// @notice A member's roles and status; (0, None) for nobody.
    function rolesOf(bytes32 memberId) external view returns (uint8 roles, Status status) {
        Record storage record = _records[memberId];
        return (record.roles, record.status);
    }

    /// @notice Whose address this is or ever was (zero: nobody's), whether it is that member's
    ///         operator now, and the member's status. What AnchorRegistry and a permissioned
    ///         chain's front door ask.
    function standing(address account)
        external
        view
        returns (bytes32 memberId, bool isOperator, Status status)
    {
        KeyUse storage use = _keyUses[_addressKey(account)];
        memberId = use.memberId;
        if (memberId != 0) {
            status = _records[memberId].status;
            isOperator = use.kind == KeyKind.Operator
                && (use.until == 0 || (status == Status.Revoked && operatorOf(memberId) == account));
        }
    }

    /// @notice The key of a kind that was valid at a block; of two, the newer.
    function keyAt(bytes32 memberId, KeyKind kind, uint256 blockNumber)
        public
        view
        returns (bytes32)
    {
        KeyPeriod[] storage periods = _keys[memberId][kind];
        // How many periods began at this block or before: only the last of them may hold, since
        // each begins when the one before it has ended.
        uint256 low = 0;
        uint256 high = periods.length;
        while (low < high) {
            uint256 middle = low + (high - low) / 2;
            if (periods[middle].first <= blockNumber) low = middle + 1;
            else high = middle;
        }
        if (low == 0) revert NoKeyAtBlock(memberId, kind, blockNumber);
        KeyPeriod storage period = periods[low - 1];
        if (period.last != 0 && period.last < blockNumber) {
            revert NoKeyAtBlock(memberId, kind, blockNumber);
        }
        return period.key;
    }

    /// @notice The operator's address that was valid at a block.
    function operatorAt(bytes32 memberId, uint256 blockNumber) external view returns (address) {
        return address(uint160(uint256(keyAt(memberId, KeyKind.Operator, blockNumber))));
    }

    /// @notice The promise key's address that was valid at a block.
    function promiseKeyAt(bytes32 memberId, uint256 blockNumber) external view returns (address) {
        return address(uint160(uint256(keyAt(memberId, KeyKind.Promise, blockNumber))));
    }

    /// @notice Whose a key is or was, for what and when; all zero if it is nobody's.
    function keyUse(bytes32 key)
        external
        view
        returns (bytes32 memberId, KeyKind kind, uint64 since, uint64 until)
    {
        KeyUse storage use = _keyUses[key];
        return (use.memberId, use.kind, use.since, use.until);
    }

    /// @notice How many keys of a kind a member has had.
    function keyCount(bytes32 memberId, KeyKind kind) external view returns (uint256) {
        return _keys[memberId][kind].length;
    }

    /// @notice One of a member's keys, from 0 in the order of their periods.
    function keyPeriod(bytes32 memberId, KeyKind kind, uint256 index)
        external
        view
        returns (KeyPeriod memory)
    {
        return _keys[memberId][kind][index];
    }

    /// @notice The member that holds exactly this BIN; zero if none does.
    function binOwner(string calldata bin) external view returns (bytes32) {
        return _binOwner[_bin(bin)];
    }

    // ---------------------------------------------------------------- inside

    function _checkOwner() internal view override {
        if (msg.sender != owner()) revert NotGovernance(msg.sender);
    }

    function _known(bytes32 memberId) private view returns (Record storage record) {
        record = _records[memberId];
        if (record.status == Status.None) revert UnknownMember(memberId);
    }

    function _requireActive(bytes32 memberId) private view {
        if (_known(memberId).status != Status.Active) revert MemberRevoked(memberId);
    }

    function _setRoles(Record storage record, uint8 roles) private {
        if (roles == 0 || roles > (ISSUER | ACQUIRER | MERCHANT | AUDITOR)) {
            revert InvalidRoles(roles);
        }
        record.roles = roles;
    }

    function _setName(Record storage record, string calldata name) private {
        uint256 length = bytes(name).length;
        if (length == 0 || length > MAX_NAME) revert InvalidName();
        record.name = name;
    }

    function _setApiUrl(Record storage record, string calldata apiUrl) private {
        uint256 length = bytes(apiUrl).length;
        if (length == 0 || length > MAX_URL) revert InvalidApiUrl();
        record.apiUrl = apiUrl;
    }

    function _openKeys(bytes32 memberId, address operator, bytes32 noteKey, bytes32 messageKey)
        private
    {
        _openKey(memberId, KeyKind.Operator, _addressKey(operator));
        _openKey(memberId, KeyKind.Note, noteKey);
        _openKey(memberId, KeyKind.Message, messageKey);
    }

    function _openKey(bytes32 memberId, KeyKind kind, bytes32 key) private {
        if (key == 0) revert InvalidKey(key);
        bool isAddress = kind == KeyKind.Operator || kind == KeyKind.Promise;
        if (isAddress && uint256(key) > type(uint160).max) revert InvalidKey(key);
        bytes32 holder = _keyUses[key].memberId;
        if (holder != 0) revert KeyInUse(key, holder);
        _keyUses[key] =
            KeyUse({memberId: memberId, kind: kind, since: uint64(block.timestamp), until: 0});
        _keys[memberId][kind].push(KeyPeriod({key: key, first: uint64(block.number), last: 0}));
    }

    /// @dev The key that was in use until now; zero if none was, and then nothing changes.
    function _closeKey(bytes32 memberId, KeyKind kind) private returns (bytes32) {
        KeyPeriod[] storage periods = _keys[memberId][kind];
        if (periods.length == 0) return 0;
        KeyPeriod storage period = periods[periods.length - 1];
        if (period.last != 0) return 0;
        period.last = uint64(block.number);
        _keyUses[period.key].until = uint64(block.timestamp);
        return period.key;
    }

    function _lastKey(bytes32 memberId, KeyKind kind) private view returns (bytes32) {
        KeyPeriod[] storage periods = _keys[memberId][kind];
        return periods.length == 0 ? bytes32(0) : periods[periods.length - 1].key;
    }

    function _addressKey(address account) private pure returns (bytes32) {
        return bytes32(uint256(uint160(account)));
    }

    function _addBins(bytes32 memberId, Record storage record, string[] calldata bins) private {
        if (bins.length != 0 && record.roles & ISSUER == 0) revert BinsNeedIssuer(memberId);
        for (uint256 i = 0; i < bins.length; ++i) {
            bytes8 bin = _bin(bins[i]);
            bytes8 six = _sixDigits(bin);
            bytes32 holder = _binOwner[bin];
            if (holder == 0) holder = _binOwner[six];
            if (holder != 0) revert BinOverlaps(bins[i], holder);
            if (bin != six) ++_binsBelow[six];
            else if (_binsBelow[six] != 0) revert BinOverlaps(bins[i], 0);
            _binOwner[bin] = memberId;
            _binIndex[bin] = record.bins.length;
            record.bins.push(bin);
        }
    }

    function _removeBin(bytes32 memberId, Record storage record, string calldata text) private {
        bytes8 bin = _bin(text);
        if (_binOwner[bin] != memberId) revert BinNotHeld(text);
        delete _binOwner[bin];
        bytes8 six = _sixDigits(bin);
        if (bin != six) --_binsBelow[six];
        bytes8 moved = record.bins[record.bins.length - 1];
        uint256 place = _binIndex[bin];
        record.bins[place] = moved;
        _binIndex[moved] = place;
        record.bins.pop();
        delete _binIndex[bin];
    }

    /// @dev 6 or 8 ASCII digits (ISO/IEC 7812-1), padded on the right with zero bytes.
    function _bin(string calldata text) private pure returns (bytes8) {
        bytes calldata raw = bytes(text);
        if (raw.length != 6 && raw.length != 8) revert InvalidBin(text);
        for (uint256 i = 0; i < raw.length; ++i) {
            if (raw[i] < "0" || raw[i] > "9") revert InvalidBin(text);
        }
        return bytes8(raw);
    }

    function _sixDigits(bytes8 bin) private pure returns (bytes8) {
        return bin & 0xffffffffffff0000;
    }

    function _binText(bytes8 bin) private pure returns (string memory) {
        bytes memory raw = new bytes(bin == _sixDigits(bin) ? 6 : 8);
        for (uint256 i = 0; i < raw.length; ++i) raw[i] = bin[i];
        return string(raw);
    }

    /// @dev 2 to 31 lower-case letters, digits and hyphens, a letter first, then zero bytes: as
    ///      nodes/ids.py has it.
    function _isMemberId(bytes32 id) private pure returns (bool) {
        uint256 length = 0;
        while (length < 32 && id[length] != 0) {
            bytes1 c = id[length];
            bool letter = c >= "a" && c <= "z";
            bool inside = letter || (c >= "0" && c <= "9") || c == "-";
            if (length == 0 ? !letter : !inside) return false;
            ++length;
        }
        if (length < 2 || length > 31) return false;
        return uint256(id) << (8 * length) == 0;
    }

    function _emitChange(bytes32 memberId, Change change) private {
        Record storage record = _records[memberId];
        emit MemberChanged(
            memberId,
            change,
            record.roles,
            record.status,
            operatorOf(memberId),
            _lastKey(memberId, KeyKind.Note),
            _lastKey(memberId, KeyKind.Message)
        );
    }
}
