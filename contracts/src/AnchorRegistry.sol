// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {MemberGate} from "./MemberGate.sol";
import {MemberRegistry} from "./MemberRegistry.sol";
import {MerkleTree} from "./MerkleTree.sol";

/// @title The heads of the members' logs
/// @notice Each member anchors the size and root of its own append-only RFC 9162 log. An anchor is
///         taken only with a proof that the new tree extends the anchored one: a log can grow, it
///         can't be rewritten or forked. No proxy: a new version is a new address, which names the
///         old one as its predecessor and goes on from its heads once governance has retired that.
///         From then on those are frozen, and what comes later is asked of the successor.
contract AnchorRegistry {
    using MemberGate for MemberRegistry;

    struct Anchor {
        bytes32 root;
        uint64 size;
        uint64 blockNumber;
    }

    MemberRegistry public immutable members;
    /// @notice The version before this one; zero of the first.
    AnchorRegistry public immutable predecessor;
    /// @notice The version after this one; zero while this one takes anchors.
    AnchorRegistry public successor;

    error ZeroRegistry();
    error RegistriesDiffer();
    error NotGovernance(address sender);
    error NotSuccessor(address given);
    error Retired(AnchorRegistry successor);
    error PredecessorNotRetired(AnchorRegistry predecessor);
    error UnknownBlockHash(bytes32 blockHash);
    error WrongSequence(uint64 expected, uint64 given);
    error WrongPreviousRoot(bytes32 expected, bytes32 given);
    error SizeNotGrowing(uint64 headSize, uint64 given);
    error InconsistentTree(uint64 headSize, uint64 size);

    event Anchored(
        bytes32 indexed memberId,
        uint64 indexed seq,
        uint64 size,
        bytes32 prevRoot,
        bytes32 root,
        bytes32 metaHash
    );

    /// @notice This contract takes no anchor any more.
    event HeadsFrozen(AnchorRegistry indexed successor);

    struct Head {
        uint64 seq;
        uint64 size;
    }

    mapping(bytes32 memberId => Head) private _heads;
    mapping(bytes32 memberId => mapping(uint64 seq => Anchor)) private _anchors;

    /// @param before The version before this one, which goes on until it is retired; zero for the
    ///        first.
    constructor(MemberRegistry registry, AnchorRegistry before) {
        if (address(registry) == address(0)) revert ZeroRegistry();
        if (address(before) != address(0)) {
            if (address(before.members()) != address(registry)) revert RegistriesDiffer();
            AnchorRegistry other = before.successor();
            if (address(other) != address(0)) revert Retired(other);
        }
        members = registry;
        predecessor = before;
    }

    /// @notice Freezes all heads here for ever; `next` goes on from them. By the MemberRegistry's
    ///         governance, once, and not before this contract's own predecessor is retired: else
    ///         a log could grow here and there at once.
    function retire(AnchorRegistry next) external {
        if (msg.sender != members.owner()) revert NotGovernance(msg.sender);
        if (address(successor) != address(0)) revert Retired(successor);
        _requireOpen();
        if (!_isPredecessorOf(address(next))) revert NotSuccessor(address(next));
        successor = next;
        emit HeadsFrozen(next);
    }

    /// @notice Anchors the sender's log at `size` leaves and `root`.
    /// @param seq The member's last anchor number + 1; the first is 1. A member that has none here
    ///        goes on from its head in the predecessor.
    /// @param prevRoot The head's root; before the first anchor SHA-256 of the empty string.
    /// @param consistencyProof RFC 9162 proof from the head's size to `size`; empty for the first.
    /// @param recentBlockHash The hash of one of the 256 blocks before this one: the anchor then
    ///        belongs to this chain and no other.
    /// @param metaHash Whatever else the member commits to with this anchor.
    function anchor(
        uint64 seq,
        uint64 size,
        bytes32 prevRoot,
        bytes32 root,
        bytes32[] calldata consistencyProof,
        bytes32 recentBlockHash,
        bytes32 metaHash
    ) external {
        if (address(successor) != address(0)) revert Retired(successor);
        bytes32 memberId = members.operatorsMember(msg.sender);
        if (!_isRecent(recentBlockHash)) revert UnknownBlockHash(recentBlockHash);

        (uint64 lastSeq, uint64 headSize, bytes32 headRoot) = _headToExtend(memberId);
        if (seq != lastSeq + 1) revert WrongSequence(lastSeq + 1, seq);
        if (prevRoot != headRoot) revert WrongPreviousRoot(headRoot, prevRoot);
        if (size <= headSize) revert SizeNotGrowing(headSize, size);
        bool extends_ = headSize == 0
            ? consistencyProof.length == 0
            : MerkleTree.verifyConsistency(headSize, size, headRoot, root, consistencyProof);
        if (!extends_) revert InconsistentTree(headSize, size);

        _heads[memberId] = Head({seq: seq, size: size});
        _anchors[memberId][seq] =
            Anchor({root: root, size: size, blockNumber: uint64(block.number)});
        emit Anchored(memberId, seq, size, prevRoot, root, metaHash);
    }

    /// @notice A member's newest anchor, here or in a version before or after this one; before the
    ///         first (0, 0, SHA-256 of the empty string).
    function head(bytes32 memberId)
        external
        view
        returns (uint64 seq, uint64 size, bytes32 root, uint64 blockNumber)
    {
        if (address(successor) != address(0)) return successor.head(memberId);
        return headHere(memberId);
    }

    /// @notice An anchor by its number, in whichever version; all zero if there is none.
    function anchors(bytes32 memberId, uint64 seq)
        external
        view
        returns (uint64 size, bytes32 root, uint64 blockNumber)
    {
        (size, root, blockNumber) = anchorHere(memberId, seq);
        if (size == 0 && address(successor) != address(0)) return successor.anchors(memberId, seq);
    }

    /// @notice The number of the first anchor whose tree has at least `size` leaves, so that it
    ///         covers leaf `size - 1`, in whichever version; 0 if none has.
    function covering(bytes32 memberId, uint64 size) external view returns (uint64 seq) {
        seq = coveringHere(memberId, size);
        if (seq == 0 && address(successor) != address(0)) return successor.covering(memberId, size);
    }

    /// @notice `head` of this version and those before it. Asks only backward, as `anchorHere` and
    ///         `coveringHere` do, and the three above go forward first: no two ask each other.
    function headHere(bytes32 memberId)
        public
        view
        returns (uint64 seq, uint64 size, bytes32 root, uint64 blockNumber)
    {
        (seq, size) = (_heads[memberId].seq, _heads[memberId].size);
        if (seq == 0) {
            if (address(predecessor) != address(0)) return predecessor.headHere(memberId);
            return (0, 0, MerkleTree.EMPTY_ROOT, 0);
        }
        Anchor storage entry = _anchors[memberId][seq];
        return (seq, size, entry.root, entry.blockNumber);
    }

    /// @notice `anchors` of this version and those before it.
    function anchorHere(bytes32 memberId, uint64 seq)
        public
        view
        returns (uint64 size, bytes32 root, uint64 blockNumber)
    {
        Anchor storage entry = _anchors[memberId][seq];
        if (entry.size == 0 && address(predecessor) != address(0)) {
            return predecessor.anchorHere(memberId, seq);
        }
        return (entry.size, entry.root, entry.blockNumber);
    }

    /// @notice `covering` of this version and those before it.
    function coveringHere(bytes32 memberId, uint64 size) public view returns (uint64) {
        uint64 low = 1;
        if (address(predecessor) != address(0)) {
            (uint64 seq, uint64 inherited,,) = predecessor.headHere(memberId);
            if (size <= inherited) return predecessor.coveringHere(memberId, size);
            low = seq + 1;
        }
        uint64 high = _heads[memberId].seq;
        if (size == 0 || high == 0 || _anchors[memberId][high].size < size) return 0;
        while (low < high) {
            uint64 middle = low + (high - low) / 2;
            if (_anchors[memberId][middle].size >= size) high = middle;
            else low = middle + 1;
        }
        return low;
    }

    /// @notice The consistency check that anchor() makes, for anybody to ask.
    function isConsistent(
        uint64 size1,
        uint64 size2,
        bytes32 root1,
        bytes32 root2,
        bytes32[] calldata proof
    ) external view returns (bool) {
        return MerkleTree.verifyConsistency(size1, size2, root1, root2, proof);
    }

    /// @dev A member's first anchor here goes on from its frozen head in the predecessor. Nothing
    ///      undoes a retirement, so the anchors after it need not ask.
    function _headToExtend(bytes32 memberId)
        private
        view
        returns (uint64 seq, uint64 size, bytes32 root)
    {
        Head storage own = _heads[memberId];
        (seq, size) = (own.seq, own.size);
        if (seq != 0) return (seq, size, _anchors[memberId][seq].root);
        if (address(predecessor) == address(0)) return (0, 0, MerkleTree.EMPTY_ROOT);
        _requireOpen();
        (seq, size, root,) = predecessor.headHere(memberId);
    }

    /// @dev Open: the first version, or the one that its predecessor was retired for.
    function _requireOpen() private view {
        if (address(predecessor) == address(0)) return;
        if (address(predecessor.successor()) != address(this)) {
            revert PredecessorNotRetired(predecessor);
        }
    }

    /// @dev Whatever is at that address: one that has no such function is no successor.
    function _isPredecessorOf(address next) private view returns (bool) {
        (bool done, bytes memory answer) = next.staticcall(abi.encodeCall(this.predecessor, ()));
        return done && answer.length == 32
            && abi.decode(answer, (uint256)) == uint160(address(this));
    }

    function _isRecent(bytes32 blockHash) private view returns (bool) {
        if (blockHash == 0) return false;
        uint256 oldest = block.number > 256 ? block.number - 256 : 0;
        unchecked {
            for (uint256 number = block.number; number > oldest;) {
                if (blockhash(--number) == blockHash) return true;
            }
        }
        return false;
    }
}
