// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

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

    /// @dev Operator: an EVM address. Note, Message: Ed25519 public keys (RFC 8032).
    enum KeyKind {
        Operator,
        Note,
        Message
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
    }

    uint8 public constant ISSUER = 1;
    uint8 public constant ACQUIRER = 2;
    uint8 public constant MERCHANT = 4;
    uint8 public constant AUDITOR = 8;

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
    /// @dev Whose a key is or ever was, whatever its kind. An address never changes hands.
    mapping(bytes32 key => bytes32 memberId) private _keyOwner;
    mapping(bytes8 bin => bytes32 memberId) private _binOwner;
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
        _emitChange(memberId, Change.Revoked);
    }

    /// @notice Admits a revoked member again, with fresh keys; its log goes on where it stood.
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

    /// @notice Retires the key in use and puts another in its place; an operator's key is its
    ///         address as a uint256. Both are valid in this block.
    function rotateKey(bytes32 memberId, KeyKind kind, bytes32 key)
        external
        governanceOrOperator(memberId)
    {
        _requireActive(memberId);
        _closeKey(memberId, kind);
        _openKey(memberId, kind, key);
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
            messageKeys: _keys[memberId][KeyKind.Message]
        });
    }

    /// @notice The operator's address; after a revocation the last one.
    function operatorOf(bytes32 memberId) public view returns (address) {
        return address(uint160(uint256(_lastKey(memberId, KeyKind.Operator))));
    }

    /// @notice Whose address this is or ever was (zero: nobody's), whether it is that member's
    ///         operator now, and the member's status. What AnchorRegistry and a permissioned
    ///         chain's front door ask.
    function standing(address account)
        external
        view
        returns (bytes32 memberId, bool isOperator, Status status)
    {
        memberId = _keyOwner[_addressKey(account)];
        if (memberId != 0) {
            isOperator = operatorOf(memberId) == account;
            status = _records[memberId].status;
        }
    }

    /// @notice The key of a kind that was valid at a block; of two, the newer.
    function keyAt(bytes32 memberId, KeyKind kind, uint256 blockNumber)
        external
        view
        returns (bytes32)
    {
        KeyPeriod[] storage periods = _keys[memberId][kind];
        for (uint256 i = periods.length; i > 0; --i) {
            KeyPeriod storage period = periods[i - 1];
            if (period.first <= blockNumber && (period.last == 0 || blockNumber <= period.last)) {
                return period.key;
            }
        }
        revert NoKeyAtBlock(memberId, kind, blockNumber);
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
        if (kind == KeyKind.Operator && uint256(key) > type(uint160).max) revert InvalidKey(key);
        if (_keyOwner[key] != 0) revert KeyInUse(key, _keyOwner[key]);
        _keyOwner[key] = memberId;
        _keys[memberId][kind].push(KeyPeriod({key: key, first: uint64(block.number), last: 0}));
    }

    function _closeKey(bytes32 memberId, KeyKind kind) private {
        KeyPeriod[] storage periods = _keys[memberId][kind];
        periods[periods.length - 1].last = uint64(block.number);
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
            record.bins.push(bin);
        }
    }

    function _removeBin(bytes32 memberId, Record storage record, string calldata text) private {
        bytes8 bin = _bin(text);
        if (_binOwner[bin] != memberId) revert BinNotHeld(text);
        delete _binOwner[bin];
        bytes8 six = _sixDigits(bin);
        if (bin != six) --_binsBelow[six];
        uint256 last = record.bins.length - 1;
        for (uint256 i = 0; i <= last; ++i) {
            if (record.bins[i] == bin) {
                record.bins[i] = record.bins[last];
                record.bins.pop();
                return;
            }
        }
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
