"use strict";
// What nodes/anchoring/verifier.py does, in the same order and with the same names of reasons.
// A bundle has one canonical form (docs/evidence.md), so each part is read by one expression.

const MEANINGS = {
  MALFORMED: "The file is not a proof in canonical form.",
  LEAF_MALFORMED: "The leaf is not the canonical encoding of a log entry.",
  COMMITMENT_MISMATCH: "The disclosed fields do not lead to the commitment in the leaf.",
  NOTE_MALFORMED: "The checkpoint is not a signed note of this network.",
  LEAF_MISMATCH: "The leaf and the checkpoint name different members.",
  WRONG_CHAIN: "The checkpoint is for another chain.",
  UNTRUSTED_REGISTRY: "The checkpoint names another anchor contract than the trusted one.",
  NOT_SEALED: "The proof carries no seals, and only by seals it was to be judged.",
  BLOCK_MISMATCH: "The block's header is not that of the block that is stated.",
  TRANSACTION_NOT_IN_BLOCK: "The anchor's transaction is not in the block.",
  RECEIPT_NOT_IN_BLOCK: "The receipt is not in the block.",
  EVENT_NOT_IN_RECEIPT: "The receipt has no such anchor of the trusted contract.",
  SEAL_INVALID: "A seal of the block is not that of the sealer it names.",
  SEALER_UNKNOWN: "Somebody sealed the block who is none of the validators given.",
  SEALS_TOO_FEW: "Fewer validators sealed the block than make it final.",
  NOT_ANCHORED: "There is no anchor of that member with that number.",
  SIZE_MISMATCH: "The checkpoint states another size than the anchor.",
  ROOT_MISMATCH: "The checkpoint states another root than the anchor.",
  ANCHOR_MISMATCH: "The proof states another block or transaction than the chain.",
  KEY_NOT_VALID_AT_BLOCK: "The member had no note key at that block.",
  SIGNATURE_INVALID: "The checkpoint is not signed by the member's note key.",
  META_MISMATCH: "Checkpoint, moment or totals differ from what was anchored.",
  NOT_INCLUDED: "The path does not lead from the leaf to the anchored root.",
};

const KEY_STEP = "The member's key signed it";
const BLOCK_STEP = "The block that the proof carries holds together, and is sealed";

/** The checks as people see them: a title, and the reasons with which each can refuse. */
const STEPS = [
  ["The file is in canonical form", ["MALFORMED"]],
  ["The log entry is well formed", ["LEAF_MALFORMED"]],
  ["The fields lead to the commitment", ["COMMITMENT_MISMATCH"]],
  ["The checkpoint is this member's signed note", ["NOTE_MALFORMED", "LEAF_MISMATCH"]],
  ["Chain and contract are the trusted ones", ["WRONG_CHAIN", "UNTRUSTED_REGISTRY"]],
  [
    BLOCK_STEP,
    [
      "NOT_SEALED", "BLOCK_MISMATCH", "TRANSACTION_NOT_IN_BLOCK", "RECEIPT_NOT_IN_BLOCK",
      "EVENT_NOT_IN_RECEIPT", "SEAL_INVALID", "SEALER_UNKNOWN", "SEALS_TOO_FEW",
    ],
  ],
  [
    "The chain holds this anchor",
    ["NOT_ANCHORED", "SIZE_MISMATCH", "ROOT_MISMATCH", "ANCHOR_MISMATCH"],
  ],
  [KEY_STEP, ["KEY_NOT_VALID_AT_BLOCK", "SIGNATURE_INVALID"]],
  ["Moment and totals are those anchored", ["META_MISMATCH"]],
  ["The path leads from the entry to the root", ["NOT_INCLUDED"]],
];

class Refused extends Error {
  constructor(reason, detail) {
    super(reason);
    this.reason = reason;
    this.detail = detail || MEANINGS[reason];
  }
}

const Merkle = {
  leafHash: (leaf) => Hashes.sha256(Bytes.concat(Uint8Array.of(0), leaf)),
  nodeHash: (left, right) => Hashes.sha256(Bytes.concat(Uint8Array.of(1), left, right)),

  /** RFC 9162, 2.1.3.2; null if the path has not the length that index and size ask for. */
  async rootFromInclusion(index, size, leaf, path) {
    if (index < 0n || index >= size) return null;
    let [fn, sn, current] = [index, size - 1n, leaf];
    for (const sibling of path) {
      if (sn === 0n) return null;
      if (fn & 1n || fn === sn) {
        current = await Merkle.nodeHash(sibling, current);
        while (!(fn & 1n) && fn !== 0n) {
          fn >>= 1n;
          sn >>= 1n;
        }
      } else {
        current = await Merkle.nodeHash(current, sibling);
      }
      fn >>= 1n;
      sn >>= 1n;
    }
    return sn === 0n ? current : null;
  },

  /** RFC 9162, 2.1.4.2. */
  async verifyConsistency(size1, size2, root1, root2, path) {
    if (size1 < 1n || size1 > size2) return false;
    if (size1 === size2) return path.length === 0 && Bytes.equal(root1, root2);
    const nodes = (size1 & (size1 - 1n)) === 0n ? [root1, ...path] : [...path];
    if (!nodes.length || nodes.some((node) => node.length !== 32)) return false;
    let [fn, sn] = [size1 - 1n, size2 - 1n];
    while (fn & 1n) {
      fn >>= 1n;
      sn >>= 1n;
    }
    let [fr, sr] = [nodes[0], nodes[0]];
    for (const node of nodes.slice(1)) {
      if (sn === 0n) return false;
      if (fn & 1n || fn === sn) {
        fr = await Merkle.nodeHash(node, fr);
        sr = await Merkle.nodeHash(node, sr);
        while (!(fn & 1n) && fn !== 0n) {
          fn >>= 1n;
          sn >>= 1n;
        }
      } else {
        sr = await Merkle.nodeHash(sr, node);
      }
      fn >>= 1n;
      sn >>= 1n;
    }
    return sn === 0n && Bytes.equal(fr, root1) && Bytes.equal(sr, root2);
  },

  /** The root over leaf hashes, for the few fields of C. */
  async rootOf(hashes) {
    let level = [...hashes];
    while (level.length > 1) {
      const above = [];
      for (let k = 0; k + 1 < level.length; k += 2) {
        above.push(await Merkle.nodeHash(level[k], level[k + 1]));
      }
      if (level.length % 2) above.push(level[level.length - 1]);
      level = above;
    }
    return level[0];
  },
};

const Bundle = (() => {
  const HEADER = "c2sp.org/tlog-proof@v1";
  const MAX_BYTES = 65536;
  const MAX_PARTS = 256;
  const MAX_INT = (1n << 63n) - 1n;
  const WORDS = [
    "version", "kind", "member_id", "txid", "commitment", "private_commitment", "pair_id",
    "pair_seq", "terminal_id", "terminal_seq",
  ];
  const KINDS = ["issuer", "acquirer", "merchant", "card", "merchant", "settlement", "key", "audit"];
  /** An event's fields whose value is a text's SHA-256: subject, actor, detail. */
  const TEXT_FIELDS = [4, 5, 6];
  const HEX = "([0-9a-f]{64})";
  const NUMBER = "(0|[1-9][0-9]{0,18})";
  const ANY_HEX = "((?:[0-9a-f]{2})*)";
  const LIST = '\\[((?:"(?:[0-9a-f]{2})*"(?:,"(?:[0-9a-f]{2})*")*)?)\\]';
  const BLOCK =
    `"block":{"following":${LIST},"header":"${ANY_HEX}","place":${NUMBER},"receipt":${LIST},` +
    `"sealers":${LIST},"transaction":${LIST}},`;
  const EXTRA = new RegExp(
    `^{"anchor":{(?:${BLOCK})?"block_hash":"${HEX}","block_number":${NUMBER},` +
      '"finality":"(DEV_FINALITY|QBFT_FINALITY|CLIQUE_FINALITY)",' +
      `"sealed_us":${NUMBER},"seq":${NUMBER},"totals_hash":"${HEX}","tx_hash":"${HEX}"},` +
      `"disclosed":{(.*)},"hidden":{(.*)},"leaf":{` +
      [...WORDS].sort().map((name) => `"${name}":"${HEX}"`).join(",") +
      `},(?:"texts":{(.*)},"type":"countersign/event-proof/1"|"type":"countersign/transaction-proof/1")}$`,
  );
  const MEMBER = /^[a-z][a-z0-9-]{1,30}$/;
  const ORIGIN = "countersign/(0|[1-9][0-9]{0,19})/(0x[0-9a-f]{40})/([a-z][a-z0-9-]{1,30})";
  const NOTE = new RegExp(
    `^(${ORIGIN})\\n${NUMBER}\\n([A-Za-z0-9+/=]{44})\\n\\n\u2014 (\\S+) ([A-Za-z0-9+/=]{92})\\n$`,
  );

  const malformed = (detail) => new Refused("MALFORMED", detail);

  function parse(raw) {
    if (raw.length > MAX_BYTES) throw malformed("The file is larger than any proof.");
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
    } catch {
      throw malformed("The file is not text.");
    }
    const end = text.indexOf("\n\n");
    const lines = text.slice(0, Math.max(end, 0)).split("\n");
    if (end < 0 || lines.length < 3 || lines[0] !== HEADER) {
      throw malformed(`A proof begins with the line ${HEADER}.`);
    }
    const extra = lines[1].startsWith("extra ") && Bytes.fromBase64(lines[1].slice(6));
    const index = /^index (0|[1-9][0-9]{0,18})$/.exec(lines[2]);
    if (!extra || !index) throw malformed("The lines 'extra' and 'index' are not as they must be.");
    const path = lines.slice(3).map(Bytes.fromBase64);
    if (path.length > 64 || path.some((node) => node === null || node.length !== 32)) {
      throw malformed("The path is not at most 64 hashes.");
    }
    return { ...parseExtra(extra), index: BigInt(index[1]), path, note: text.slice(end + 2) };
  }

  function parseExtra(raw) {
    // A byte is a character: whatever isn't ASCII doesn't match.
    let text = "";
    for (const byte of raw) text += String.fromCharCode(byte);
    const found = EXTRA.exec(text);
    if (!found) throw malformed("The line 'extra' is not a proof's in canonical form.");
    const [blockHash, blockNumber, finality, sealedUs, seq, totalsHash, txHash, disclosed, hidden] =
      found.slice(7);
    const texts = found[16 + WORDS.length];
    const words = Object.fromEntries([...WORDS].sort().map((name, k) => [name, found[16 + k]]));
    const numbers = [blockNumber, sealedUs, seq].map(BigInt);
    if (numbers.some((number) => number > MAX_INT)) throw malformed("A number has over 63 bits.");
    const fields = parseFields(disclosed, hidden);
    return {
      leaf: Bytes.concat(...WORDS.map((name) => Bytes.fromHex(words[name]))),
      fields,
      texts: texts === undefined ? null : parseTexts(texts, fields),
      anchor: {
        blockHash, txHash,
        block: parseBlock(found.slice(1, 7), finality),
        blockNumber: numbers[0], sealedUs: numbers[1], seq: numbers[2],
        totalsHash: Bytes.fromHex(totalsHash),
      },
    };
  }

  /** The block with its seals; null where the file says nothing of finality. */
  function parseBlock([following, header, place, receipt, sealers, transaction], finality) {
    if ((header === undefined) !== (finality === "DEV_FINALITY")) {
      throw malformed("Finality and block don't belong together.");
    }
    if (header === undefined) return null;
    const listed = (text) => {
      const parts = text === "" ? [] : text.split(",");
      if (parts.length > MAX_PARTS) throw malformed("A list is too long.");
      return parts.map((part) => part.slice(1, -1));
    };
    const block = {
      finality,
      header: Bytes.fromHex(header),
      place: BigInt(place),
      following: listed(following).map(Bytes.fromHex),
      receipt: listed(receipt).map(Bytes.fromHex),
      transaction: listed(transaction).map(Bytes.fromHex),
      sealers: listed(sealers),
    };
    if (block.place > MAX_INT || block.sealers.some((address) => address.length !== 40)) {
      throw malformed("The block's evidence has not its form.");
    }
    return block;
  }

  /** Each of the eight fields of C once, in order: opened (salt, value) or hidden (hash). */
  function parseFields(disclosed, hidden) {
    const fields = new Array(9).fill(null);
    const read = (text, expression, keep) => {
      let before = 0;
      for (const item of text === "" ? [] : text.split(/,(?="[1-8]":)/)) {
        const found = expression.exec(item);
        if (!found) throw malformed("The fields are not in canonical form.");
        const number = Number(found[1]);
        if (number <= before || fields[number]) throw malformed("A field stands twice.");
        before = number;
        fields[number] = keep(found);
      }
    };
    read(disclosed, new RegExp(`^"([1-8])":{"salt":"${HEX}","value":"${HEX}"}$`), (found) => ({
      salt: Bytes.fromHex(found[2]), value: Bytes.fromHex(found[3]),
    }));
    read(hidden, new RegExp(`^"([1-8])":"${HEX}"$`), (found) => ({ hash: Bytes.fromHex(found[2]) }));
    if (fields.slice(1).some((field) => field === null)) throw malformed("A field of C is missing.");
    return fields;
  }

  /** Of an event: the texts of those of the fields 4 to 6 that are opened, by number. */
  function parseTexts(text, fields) {
    const disclosed = TEXT_FIELDS.filter((number) => fields[number].value);
    const items = text === "" ? [] : text.split(",");
    if (items.length !== disclosed.length) throw malformed("The texts are not those of the fields.");
    return Object.fromEntries(
      items.map((item, place) => {
        const found = /^"([4-6])":"((?:[0-9a-f]{2})*)"$/.exec(item);
        if (!found || Number(found[1]) !== disclosed[place]) {
          throw malformed("The texts are not in canonical form.");
        }
        return [found[1], Bytes.fromHex(found[2])];
      }),
    );
  }

  /** A padded ASCII word as text; null if it isn't one. */
  function textOf(word) {
    let end = 32;
    while (end && word[end - 1] === 0) end -= 1;
    const bytes = word.slice(0, end);
    return bytes.every((byte) => byte > 0x20 && byte < 0x7f)
      ? String.fromCharCode(...bytes)
      : null;
  }

  function decodeLeaf(raw) {
    const words = Array.from({ length: 10 }, (_, k) => raw.slice(32 * k, 32 * k + 32));
    const bad = (detail) => new Refused("LEAF_MALFORMED", detail);
    const kind = Bytes.number(words[1]);
    if (Bytes.number(words[0]) !== 1n) throw bad("The leaf's version is unknown.");
    if (kind < 1n || kind > 8n) throw bad("The leaf's kind is unknown.");
    const [memberId, terminalId] = [textOf(words[2]), textOf(words[8])];
    if (memberId === null || !MEMBER.test(memberId)) throw bad("The leaf names no member.");
    if (terminalId === null) throw bad("The leaf names no terminal.");
    return {
      isEvent: kind > 3n,
      side: KINDS[Number(kind) - 1],
      memberId, terminalId,
      txid: words[3], commitment: words[4], pairId: words[6],
      pairSeq: Bytes.number(words[7]), terminalSeq: Bytes.number(words[9]),
    };
  }

  /** What an event's leaf has beside its kind: the reference of its number, no pair, no terminal. */
  async function checkEvent(leaf) {
    const bad = new Refused("LEAF_MALFORMED", "The leaf is not an event's.");
    const number = leaf.terminalSeq;
    if (!leaf.isEvent || number < 1n || number >= 1n << 63n || leaf.pairSeq || leaf.terminalId) throw bad;
    const named = Bytes.fromHex(RpcView.memberWord(leaf.memberId));
    const label = Bytes.ascii("countersign/event/1");
    const reference = await Hashes.sha256(Bytes.concat(label, named, Bytes.of(number, 8)));
    if (!Bytes.equal(reference, leaf.txid) || Bytes.number(leaf.pairId)) throw bad;
  }

  async function checkTexts(bundle) {
    for (const [number, text] of Object.entries(bundle.texts || {})) {
      if (!Bytes.equal(await Hashes.sha256(text), bundle.fields[number].value)) {
        throw new Refused("COMMITMENT_MISMATCH", "A text is another one than was committed to.");
      }
    }
  }

  async function commitmentOf(fields) {
    const leaves = [];
    for (let number = 1; number <= 8; number++) {
      const { salt, value, hash } = fields[number];
      leaves.push(hash || (await Merkle.leafHash(Bytes.concat(Bytes.of(number, 32), salt, value))));
    }
    return Merkle.rootOf(leaves);
  }

  function parseNote(text) {
    const found = NOTE.exec(text);
    const root = found && Bytes.fromBase64(found[6]);
    const blob = found && Bytes.fromBase64(found[8]);
    if (!found || !root || !blob || root.length !== 32 || blob.length !== 68) {
      throw new Refused("NOTE_MALFORMED");
    }
    if (found[7] !== found[1]) {
      throw new Refused("NOTE_MALFORMED", "The key's name is not the checkpoint's origin.");
    }
    return {
      origin: found[1], chainId: BigInt(found[2]), registry: found[3], memberId: found[4],
      size: BigInt(found[5]), root, keyId: blob.slice(0, 4), signature: blob.slice(4),
      signed: Bytes.utf8(text.slice(0, text.lastIndexOf("\n\n") + 1)),
    };
  }

  async function noteHolds(note, key) {
    const named = Bytes.concat(Bytes.utf8(note.origin), Uint8Array.of(10, 1), key);
    const id = (await Hashes.sha256(named)).slice(0, 4);
    return Bytes.equal(id, note.keyId) && Ed25519.verify(key, note.signature, note.signed);
  }

  async function metaHash(noteText, sealedUs, totalsHash) {
    const note = await Hashes.sha256(Bytes.utf8(noteText));
    const label = Bytes.ascii("countersign/batch/1");
    return Hashes.sha256(Bytes.concat(label, note, Bytes.of(sealedUs, 32), totalsHash));
  }

  /** The contracts that may have taken an anchor whose checkpoint states this one: it, and the
   * trusted ones after it, since what was signed before a move may be anchored after it. */
  async function versions(stated, view) {
    const trusted = await view.anchorRegistry();
    if (stated === trusted) return [trusted];
    const line = [trusted, ...(await view.predecessors())];
    if (!line.includes(stated)) throw new Refused("UNTRUSTED_REGISTRY");
    return line.slice(0, line.indexOf(stated) + 1);
  }

  /** `validators`: who has to have sealed the block (a Set), or null. */
  async function againstChain(bundle, leaf, note, view, validators) {
    if (note.chainId !== (await view.chainId())) throw new Refused("WRONG_CHAIN");
    const registries = await versions(note.registry, view);
    const sealed = Blocks.judge(bundle, leaf, registries, validators);
    if (view.bySeals && !sealed.anchor) throw new Refused("NOT_SEALED");
    const anchor = view.bySeals
      ? sealed.anchor
      : await view.anchor(leaf.memberId, bundle.anchor.seq);
    if (!anchor) throw new Refused("NOT_ANCHORED");
    if (note.size !== anchor.size) throw new Refused("SIZE_MISMATCH");
    if (!Bytes.equal(note.root, anchor.root)) throw new Refused("ROOT_MISMATCH");
    const { blockNumber, blockHash, txHash, sealedUs, totalsHash } = bundle.anchor;
    if (
      blockNumber !== anchor.blockNumber || blockHash !== anchor.blockHash || txHash !== anchor.txHash
    ) {
      throw new Refused("ANCHOR_MISMATCH");
    }
    const keyless = Boolean(view.bySeals) && !view.member(leaf.memberId);
    if (!keyless) {
      const key = await view.noteKey(leaf.memberId, anchor.blockNumber);
      if (!key) throw new Refused("KEY_NOT_VALID_AT_BLOCK");
      if (!(await noteHolds(note, key))) throw new Refused("SIGNATURE_INVALID");
    }
    const meta = await metaHash(bundle.note, sealedUs, totalsHash);
    if (!Bytes.equal(meta, anchor.metaHash)) throw new Refused("META_MISMATCH");
    const hash = await Merkle.leafHash(bundle.leaf);
    const root = await Merkle.rootFromInclusion(bundle.index, anchor.size, hash, bundle.path);
    if (root === null || !Bytes.equal(root, anchor.root)) throw new Refused("NOT_INCLUDED");
    return { anchor, finality: sealed.finality, sealedBy: sealed.sealedBy, validators, keyless };
  }

  /** Judges a file's bytes; `view` is the trusted look at the chain (views.js). Of a view with
   * `bySeals` only the block's seals count; `view.validators`: whose. */
  async function verify(raw, view) {
    let bundle = null;
    try {
      bundle = parse(raw);
      const leaf = decodeLeaf(bundle.leaf);
      if (bundle.texts) await checkEvent(leaf);
      else if (leaf.isEvent) throw new Refused("LEAF_MALFORMED", "The leaf is not a transaction's.");
      if (!Bytes.equal(await commitmentOf(bundle.fields), leaf.commitment)) {
        throw new Refused("COMMITMENT_MISMATCH");
      }
      await checkTexts(bundle);
      const note = parseNote(bundle.note);
      if (note.memberId !== leaf.memberId) throw new Refused("LEAF_MISMATCH");
      const found = await againstChain(bundle, leaf, note, view, view.validators || null);
      return { ok: true, reason: null, bundle, leaf, note, ...found };
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return { ok: false, reason: error.reason, detail: error.detail, bundle };
    }
  }

  return { verify, textOf, MAX_BYTES };
})();
