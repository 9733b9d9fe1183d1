"use strict";
// The two ways to look at the chain: over RPC, or in roots that were read from it before
// (docs/evidence.md, Cached roots). Both answer what nodes/anchoring/verifier.py calls a ChainView.

/** The chain can't be asked, or answers nonsense: nothing is proven and nothing is refused. */
class CannotCheck extends Error {}

class RpcView {
  /** A chain node, an anchor contract and (for receipts) an omission contract that you trust. */
  constructor(url, registry, omissions = "") {
    this.url = url;
    this.registry = registry.toLowerCase();
    this.omissions = omissions.toLowerCase();
    this.ids = 0;
  }

  static word(value) {
    return Bytes.hex(Bytes.of(value, 32));
  }

  static memberWord(memberId) {
    return Bytes.hex(Bytes.utf8(memberId)).padEnd(64, "0");
  }

  async request(method, params) {
    let answer;
    try {
      const response = await fetch(this.url, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ jsonrpc: "2.0", id: ++this.ids, method, params }),
        credentials: "omit",
        referrerPolicy: "no-referrer",
      });
      answer = await response.json();
    } catch (error) {
      throw new CannotCheck(`The chain at ${this.url} can't be asked: ${error.message}`);
    }
    if (answer.error) {
      const failed = new CannotCheck(`The chain refuses ${method}: ${answer.error.message}`);
      const data = answer.error.data;
      failed.data = typeof data === "string" ? data : (data && data.data) || "";
      throw failed;
    }
    return answer.result;
  }

  async call(to, selector, ...words) {
    const result = await this.request("eth_call", [{ to, data: selector + words.join("") }, "latest"]);
    const bytes = typeof result === "string" && Bytes.fromHex(result);
    if (!bytes || !bytes.length) {
      throw Object.assign(new CannotCheck(`There is no such contract at ${to}.`), { data: "" });
    }
    return Array.from({ length: bytes.length / 32 }, (_, k) => bytes.slice(32 * k, 32 * k + 32));
  }

  async chainId() {
    return BigInt(await this.request("eth_chainId", []));
  }

  async anchorRegistry() {
    return this.registry;
  }

  /** The versions before the anchor contract, by its own word, the newest first. */
  async predecessors() {
    if (this.before) return this.before;
    const found = [];
    for (let at = this.registry; found.length < 64; ) {
      let word;
      try {
        [word] = await this.call(at, "0xb719d032");
      } catch (error) {
        if (error.data === undefined) throw error; // the chain is away
        break; // it has no such function
      }
      if (Bytes.number(word) === 0n) break;
      at = "0x" + Bytes.hex(word.slice(12));
      found.push(at);
    }
    this.before = found;
    return found;
  }

  async omissionRegistry() {
    return this.omissions || null;
  }

  async maxMergeDelay() {
    return Number(Bytes.number((await this.call(this.omissions, "0xb32737a2"))[0]));
  }

  /** The anchor and its event; null if the contract has none or its block isn't on the chain. */
  async anchor(memberId, seq) {
    if (seq < 1n) return null;
    const member = RpcView.memberWord(memberId);
    const number = RpcView.word(seq);
    const entry = await this.call(this.registry, "0x5d030b1b", member, number);
    const size = Bytes.number(entry[0]);
    if (size === 0n) return null;
    const height = "0x" + Bytes.number(entry[2]).toString(16);
    const logsOf = (address) => this.request("eth_getLogs", [
      {
        address, fromBlock: height, toBlock: height,
        topics: ["0xf8ab709a15390919aa936d416c91e86c173ccf3a54041aa52be7362e755cdf50", "0x" + member, "0x" + number],
      },
    ]);
    let logs = await logsOf(this.registry);
    if (!logs.length) logs = (await Promise.all((await this.predecessors()).map(logsOf))).flat();
    for (const log of logs) {
      const data = Bytes.fromHex(log.data);
      const words = [0, 1, 2, 3].map((k) => data.slice(32 * k, 32 * k + 32));
      if (Bytes.number(words[0]) !== size || !Bytes.equal(words[2], entry[1])) continue;
      const block = await this.request("eth_getBlockByNumber", [height, false]);
      if (!block || block.hash.toLowerCase() !== log.blockHash.toLowerCase()) return null;
      return {
        seq, size, root: words[2], metaHash: words[3],
        blockNumber: BigInt(log.blockNumber),
        blockHash: log.blockHash.slice(2).toLowerCase(),
        txHash: log.transactionHash.slice(2).toLowerCase(),
        timestamp: Number(BigInt(block.timestamp)),
      };
    }
    return null;
  }

  async memberRegistry() {
    const [word] = await this.call(this.registry, "0xbdd4d18d");
    return "0x" + Bytes.hex(word.slice(12));
  }

  /** The member's note key at that block; null if it had none. */
  async noteKey(memberId, blockNumber) {
    const directory = await this.memberRegistry();
    const words = [RpcView.memberWord(memberId), RpcView.word(1n), RpcView.word(blockNumber)];
    try {
      return (await this.call(directory, "0xf7f9b3db", ...words))[0];
    } catch (error) {
      const named = ["0x8d9b2fda", "0xf273a1fc"];
      if (error.data && named.some((name) => error.data.startsWith(name))) return null;
      throw error;
    }
  }

  /** Since and until when (seconds; null: still) an address signs promises for a member. */
  async promiseKey(memberId, address) {
    const directory = await this.memberRegistry();
    const key = Bytes.hex(Bytes.concat(new Uint8Array(12), address));
    const [member, kind, since, until] = await this.call(directory, "0x13706497", key);
    if (Bytes.hex(member) !== RpcView.memberWord(memberId) || Bytes.number(kind) !== 3n) return null;
    return { since: Number(Bytes.number(since)), until: Number(Bytes.number(until)) || null };
  }
}

class SealsView {
  /** The addresses of a chain's validators (a Set) and of its contract; `roots` may know keys.
   * `before`: the versions before that contract, the newest first. */
  constructor(validators, chainId, registry, roots = null, before = []) {
    this.bySeals = true;
    this.validators = validators;
    this.id = chainId;
    this.registry = registry.toLowerCase();
    this.roots = roots;
    this.before = before.map((address) => address.toLowerCase());
  }

  async chainId() {
    return this.id;
  }

  async predecessors() {
    return this.before;
  }

  async anchorRegistry() {
    return this.registry;
  }

  member(memberId) {
    return this.roots && this.roots.member(memberId);
  }

  async noteKey(memberId, blockNumber) {
    return this.roots.noteKey(memberId, blockNumber);
  }

  async omissionRegistry() {
    return this.roots && this.roots.omissionRegistry();
  }

  async maxMergeDelay() {
    return this.roots.maxMergeDelay();
  }

  async promiseKey(memberId, address) {
    return this.roots.promiseKey(memberId, address);
  }
}

class RootsView {
  /** `text`: a roots file. CannotCheck unless it is one. */
  constructor(text) {
    let roots;
    try {
      roots = JSON.parse(text);
    } catch {
      roots = null;
    }
    if (!roots || roots.type !== "countersign/roots/1" || typeof roots.members !== "object") {
      throw new CannotCheck("This is not a file of cached roots (countersign/roots/1).");
    }
    this.roots = roots;
    /** The anchor contract that the reader trusts, where the roots are somebody else's word, and
     * the versions before it that the reader names. */
    this.contract = "";
    this.before = [];
  }

  async chainId() {
    return BigInt(this.roots.chain_id);
  }

  async anchorRegistry() {
    return (this.contract || this.roots.anchor_registry).toLowerCase();
  }

  async predecessors() {
    const line = this.contract ? this.before : this.roots.predecessors || [];
    return line.map((address) => address.toLowerCase());
  }

  async omissionRegistry() {
    return this.roots.omission_registry;
  }

  async maxMergeDelay() {
    return this.roots.max_merge_delay_s;
  }

  member(memberId) {
    const members = this.roots.members;
    return Object.hasOwn(members, memberId) ? members[memberId] : null;
  }

  async anchor(memberId, seq) {
    const member = this.member(memberId);
    const found = member && member.anchors.find((anchor) => BigInt(anchor.seq) === seq);
    if (!found) return null;
    return {
      seq, size: BigInt(found.size), root: Bytes.fromHex(found.root),
      metaHash: Bytes.fromHex(found.meta_hash), blockNumber: BigInt(found.block_number),
      blockHash: found.block_hash, txHash: found.tx_hash, timestamp: found.timestamp,
    };
  }

  async noteKey(memberId, blockNumber) {
    const member = this.member(memberId);
    if (!member) return null;
    const at = Number(blockNumber);
    const held = member.note_keys.filter(
      ({ first, last }) => first <= at && (last === null || at <= last),
    );
    return held.length ? Bytes.fromHex(held[held.length - 1].key) : null;
  }

  async promiseKey(memberId, address) {
    const member = this.member(memberId);
    const wanted = Bytes.hex(address);
    const found = member && member.promise_keys.find(({ key }) => key === wanted);
    return found ? { since: found.since, until: found.until } : null;
  }
}
