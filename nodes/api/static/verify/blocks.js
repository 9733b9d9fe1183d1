"use strict";
// What nodes/anchoring/finality.py does: whether a block's seals show that an anchor stands for good.
// RLP and the tries of transactions and receipts: Yellow Paper, appendices B to D.

const Rlp = (() => {
  const head = (length, offset) => {
    if (length < 56) return Uint8Array.of(offset + length);
    const size = number(BigInt(length));
    return Bytes.concat(Uint8Array.of(offset + 55 + size.length), size);
  };

  /** A whole number: big-endian without leading zeros, 0 as nothing. */
  function number(value) {
    if (value === 0n) return new Uint8Array(0);
    const digits = value.toString(16);
    return Bytes.fromHex(digits.length % 2 ? "0" + digits : digits);
  }

  /** The RLP of bytes or of an array. */
  function encode(item) {
    if (!Array.isArray(item)) {
      return item.length === 1 && item[0] < 0x80 ? item : Bytes.concat(head(item.length, 0x80), item);
    }
    const body = Bytes.concat(...item.map(encode));
    return Bytes.concat(head(body.length, 0xc0), body);
  }

  /** The one item that the bytes encode in the shortest form; null if they don't. */
  function decode(raw) {
    const found = read(raw, 0, raw.length, 0);
    return found && found[1] === raw.length ? found[0] : null;
  }

  function read(raw, at, limit, depth) {
    if (at >= limit) return null;
    const first = raw[at];
    if (first < 0x80) return [raw.slice(at, at + 1), at + 1];
    const offset = first < 0xc0 ? 0x80 : 0xc0;
    let [start, length] = [at + 1, first - offset];
    if (length > 55) {
      const size = raw.slice(start, start + length - 55);
      if (start + length - 55 > limit || size[0] === 0) return null;
      start += length - 55;
      const stated = Bytes.number(size);
      if (stated < 56n || stated > BigInt(limit)) return null;
      length = Number(stated);
    }
    const end = start + length;
    if (end > limit) return null;
    if (offset === 0x80) {
      return length === 1 && raw[start] < 0x80 ? null : [raw.slice(start, end), end];
    }
    if (depth >= 16) return null;
    const items = [];
    while (start < end) {
      const found = read(raw, start, end, depth + 1);
      if (!found) return null;
      items.push(found[0]);
      start = found[1];
    }
    return [items, end];
  }

  return { encode, decode, number };
})();

const Trie = (() => {
  const nibbles = (bytes) => Array.from(bytes).flatMap((byte) => [byte >> 4, byte & 15]);

  /** Hex-prefix encoding: the path, and whether it ends in a leaf; null if it isn't one. */
  function unpacked(raw) {
    const halves = nibbles(raw);
    if (!halves.length || halves[0] > 3) return null;
    if (halves[0] & 1) return [halves.slice(1), halves[0] > 1];
    return halves[1] === 0 ? [halves.slice(2), halves[0] > 1] : null;
  }

  /** What a node holds on the way: a reference, the rest of the way, whether it is the value. */
  function step(node, wanted) {
    if (!Array.isArray(node)) return null;
    if (node.length === 17) {
      return wanted.length ? [node[wanted[0]], wanted.slice(1), false] : [node[16], [], true];
    }
    if (node.length !== 2 || Array.isArray(node[0])) return null;
    const part = unpacked(node[0]);
    if (!part) return null;
    const [path, isLeaf] = part;
    const begins = path.every((nibble, place) => nibble === wanted[place]);
    if (isLeaf) return begins && path.length === wanted.length ? [node[1], [], true] : null;
    return path.length && begins ? [node[1], wanted.slice(path.length), false] : null;
  }

  /** The value that a proof shows at a place under a root; null if it shows none. */
  function valueAt(root, place, nodes) {
    let [reference, wanted] = [root, nibbles(Rlp.encode(Rlp.number(place)))];
    let used = 0;
    for (;;) {
      let node = reference;
      if (!Array.isArray(reference)) {
        if (reference.length !== 32 || used >= nodes.length) return null;
        if (!Bytes.equal(Hashes.keccak256(nodes[used]), reference)) return null;
        node = Rlp.decode(nodes[used]);
        used += 1;
      }
      const next = step(node, wanted);
      if (!next) return null;
      let ended;
      [reference, wanted, ended] = next;
      if (ended) {
        const whole = !Array.isArray(reference) && reference.length && used === nodes.length;
        return whole ? reference : null;
      }
    }
  }

  return { valueAt };
})();

const Blocks = (() => {
  const ISTANBUL = "63746963616c2062797a616e74696e65206661756c7420746f6c6572616e6365";
  const ANCHORED = "f8ab709a15390919aa936d416c91e86c173ccf3a54041aa52be7362e755cdf50";
  const [PARENT, TRANSACTIONS, RECEIPTS, NUMBER, TIME, EXTRA, MIX] = [0, 4, 5, 8, 11, 12, 13];
  const [ROUND, SEALS, EXTRA_PARTS, VANITY_BYTES, SEAL_BYTES] = [3, 4, 5, 32, 65];
  const mismatch = (detail) => new Refused("BLOCK_MISMATCH", detail);

  const withExtra = (fields, extra) =>
    Rlp.encode([...fields.slice(0, EXTRA), extra, ...fields.slice(EXTRA + 1)]);

  /** The address of a seal: r, s, v with v 0 or 1; "" for what is no signature. */
  function sealer(digest, seal) {
    if (Array.isArray(seal) || seal.length !== SEAL_BYTES || seal[64] > 1) return "";
    const signature = Bytes.concat(seal.slice(0, 64), Uint8Array.of(seal[64] + 27));
    const address = Secp256k1.recover(digest, signature);
    return address ? Bytes.hex(address) : "";
  }

  /** A header: how it was made, its hash, and who sealed it. */
  function parseHeader(raw) {
    const fields = Rlp.decode(raw);
    if (!Array.isArray(fields) || fields.length < 15 || fields.some(Array.isArray)) {
      throw mismatch("A header is a list of 15 fields or more.");
    }
    if ([PARENT, TRANSACTIONS, RECEIPTS, MIX].some((place) => fields[place].length !== 32)) {
      throw mismatch("A header's field has not its form.");
    }
    if (fields[NUMBER].length > 8 || fields[TIME].length > 8) {
      throw mismatch("A header's number or time has more than 64 bits.");
    }
    const made = Bytes.hex(fields[MIX]) === ISTANBUL ? qbft(fields) : clique(fields, raw);
    return {
      ...made,
      hash: Hashes.keccak256(made.named),
      parent: fields[PARENT],
      transactions: fields[TRANSACTIONS],
      receipts: fields[RECEIPTS],
      number: Bytes.number(fields[NUMBER]),
      timestamp: Number(Bytes.number(fields[TIME])),
    };
  }

  /** Besu's and GoQuorum's: the hash leaves out round and seals, what is signed the seals alone. */
  function qbft(fields) {
    const extra = Rlp.decode(fields[EXTRA]);
    const whole = Array.isArray(extra) && extra.length === EXTRA_PARTS;
    if (!whole || Array.isArray(extra[ROUND]) || !Array.isArray(extra[SEALS])) {
      throw mismatch("QBFT's extraData has not its form.");
    }
    const signed = Hashes.keccak256(
      withExtra(fields, Rlp.encode([...extra.slice(0, SEALS), []])),
    );
    return {
      finality: "QBFT_FINALITY",
      named: withExtra(
        fields,
        Rlp.encode([...extra.slice(0, ROUND), new Uint8Array(0), []]),
      ),
      sealers: extra[SEALS].map((seal) => sealer(signed, seal)),
    };
  }

  /** EIP-225. */
  function clique(fields, raw) {
    const extra = fields[EXTRA];
    if (fields[MIX].some((byte) => byte) || extra.length < VANITY_BYTES + SEAL_BYTES) {
      throw mismatch("Neither QBFT nor clique made this header.");
    }
    const at = extra.length - SEAL_BYTES;
    const signed = Hashes.keccak256(withExtra(fields, extra.slice(0, at)));
    return { finality: "CLIQUE_FINALITY", named: raw, sealers: [sealer(signed, extra.slice(at))] };
  }

  function headersOf(block, anchor) {
    const headers = [block.header, ...block.following].map(parseHeader);
    if (headers.some((header) => header.finality !== block.finality)) {
      throw mismatch(`A header is not one of ${block.finality}.`);
    }
    if (block.finality === "QBFT_FINALITY" && block.following.length) {
      throw mismatch("A block of QBFT needs none after it.");
    }
    if (Bytes.hex(headers[0].hash) !== anchor.blockHash || headers[0].number !== anchor.blockNumber) {
      throw mismatch("The header is another block's.");
    }
    headers.slice(1).forEach((child, place) => {
      const parent = headers[place];
      if (!Bytes.equal(child.parent, parent.hash) || child.number !== parent.number + 1n) {
        throw mismatch(`Block ${child.number} doesn't follow block ${parent.number}.`);
      }
    });
    return headers;
  }

  /** The data of the Anchored event in a receipt (a type's byte may stand before it). */
  function anchoredData(receipt, registries, memberId, seq) {
    const parts = Rlp.decode(receipt[0] < 0x80 ? receipt.slice(1) : receipt);
    if (!Array.isArray(parts) || parts.length !== 4 || !Array.isArray(parts[3])) return null;
    const topics = [ANCHORED, RpcView.memberWord(memberId), RpcView.word(seq)];
    for (const log of parts[3]) {
      if (!Array.isArray(log) || log.length !== 3) return null;
      const [emitter, named, data] = log;
      if (Array.isArray(emitter) || !registries.includes("0x" + Bytes.hex(emitter))) continue;
      if (!Array.isArray(named) || named.length !== 3 || named.some(Array.isArray)) continue;
      if (!named.every((topic, place) => Bytes.hex(topic) === topics[place])) continue;
      if (!Array.isArray(data)) return data.length === 128 ? data : null;
    }
    return null;
  }

  /** The anchor that a bundle's block holds, if header, proofs and seals belong together. */
  function sealedAnchor(bundle, leaf, registries) {
    const { anchor } = bundle;
    const { block } = anchor;
    const headers = headersOf(block, anchor);
    const sent = Trie.valueAt(headers[0].transactions, block.place, block.transaction);
    if (!sent || Bytes.hex(Hashes.keccak256(sent)) !== anchor.txHash) {
      throw new Refused("TRANSACTION_NOT_IN_BLOCK");
    }
    const receipt = Trie.valueAt(headers[0].receipts, block.place, block.receipt);
    if (!receipt) throw new Refused("RECEIPT_NOT_IN_BLOCK");
    const data = anchoredData(receipt, registries, leaf.memberId, anchor.seq);
    if (!data) throw new Refused("EVENT_NOT_IN_RECEIPT");
    const found = headers.flatMap((header) => header.sealers);
    if (found.length !== block.sealers.length || found.some((one, k) => one !== block.sealers[k])) {
      throw new Refused("SEAL_INVALID");
    }
    return {
      seq: anchor.seq, size: Bytes.number(data.slice(0, 32)), root: data.slice(64, 96),
      metaHash: data.slice(96), blockNumber: headers[0].number, blockHash: anchor.blockHash,
      txHash: anchor.txHash, timestamp: headers[0].timestamp,
    };
  }

  /** How many of the validators sealed it, in words; refuses if that isn't enough. */
  function checkSealers(block, validators) {
    const sealers = new Set(block.sealers);
    const strangers = [...sealers].filter((address) => !validators.has(address)).sort();
    if (strangers.length) {
      throw new Refused("SEALER_UNKNOWN", `0x${strangers[0]} is none of the validators given.`);
    }
    const count = validators.size;
    const isQbft = block.finality === "QBFT_FINALITY";
    const needed = isQbft ? Math.ceil((2 * count) / 3) : Math.floor(count / 2) + 1;
    const blocks = isQbft ? "" : `, ${1 + block.following.length} blocks`;
    const said = `${sealers.size} of ${count} validators${blocks}`;
    if (sealers.size < Math.max(needed, 1)) {
      throw new Refused("SEALS_TOO_FEW", `Sealed by ${said}; ${needed} are needed.`);
    }
    return said;
  }

  /** The anchor in the sealed block, where the bundle has one, and the finality that was found. */
  function judge(bundle, leaf, registries, validators) {
    const { block } = bundle.anchor;
    if (!block) return { anchor: null, finality: "DEV_FINALITY", sealedBy: "" };
    const anchor = sealedAnchor(bundle, leaf, registries);
    if (!validators) return { anchor, finality: "DEV_FINALITY", sealedBy: "" };
    return { anchor, finality: block.finality, sealedBy: checkSealers(block, validators) };
  }

  /** Addresses in a text, or those of a genesis file: {addresses: Set, chainId: BigInt or null}. */
  function parseValidators(text) {
    if (text.trimStart().startsWith("{")) return ofGenesis(text);
    const found = new Set();
    for (const part of text.trim().split(/[\s,]+/)) {
      const match = /^(?:0x)?([0-9a-fA-F]{40})$/.exec(part);
      if (!match) throw new CannotCheck(`"${part.slice(0, 50)}" is no validator's address.`);
      found.add(match[1].toLowerCase());
    }
    return { addresses: found, chainId: null };
  }

  function ofGenesis(text) {
    let genesis;
    try {
      genesis = JSON.parse(text);
    } catch {
      throw new CannotCheck("The genesis is not JSON.");
    }
    const extra = genesis.extraData || genesis.extradata;
    const raw = typeof extra === "string" && extra.startsWith("0x") ? Bytes.fromHex(extra) : null;
    if (!raw) throw new CannotCheck("The genesis has no extraData in hexadecimal.");
    const parts = Rlp.decode(raw);
    let listed = [];
    if (Array.isArray(parts) && parts.length === EXTRA_PARTS && Array.isArray(parts[1])) {
      listed = parts[1].filter((one) => !Array.isArray(one) && one.length === 20);
    } else if (raw.length >= VANITY_BYTES + SEAL_BYTES && (raw.length - 97) % 20 === 0) {
      for (let at = VANITY_BYTES; at < raw.length - SEAL_BYTES; at += 20) {
        listed.push(raw.slice(at, at + 20));
      }
    }
    if (!listed.length) throw new CannotCheck("The genesis' extraData lists no validators.");
    const chainId = genesis.config && genesis.config.chainId;
    return {
      addresses: new Set(listed.map(Bytes.hex)),
      chainId: Number.isSafeInteger(chainId) ? BigInt(chainId) : null,
    };
  }

  return { judge, parseValidators };
})();
