"use strict";
// A receipt's promise (docs/receipts.md), and what became of it: nodes/anchoring/receipt.py.

Object.assign(MEANINGS, {
  PROMISE_MALFORMED: "This is not a receipt's promise in canonical form.",
  PROMISE_KEY_UNKNOWN: "The promise is not signed by a promise key that this member had for it.",
  PROMISE_MISMATCH: "The proof is of another member, transaction or content than the promise.",
  PROMISE_OVERDUE: "The deadline is over and there is no proof: anybody may take this to the chain.",
  PROMISE_PENDING: "There is no proof yet, and the deadline is not over.",
});

const Receipt = (() => {
  const MIN_BYTES = 2 + 2 + 32 * 3 + 8 + 65;

  /** version 1 | length | member | txid | C | salt_fin | uint64 deadline | signature (65). */
  function parse(text) {
    const bytes = Bytes.fromBase64Url(text);
    const bad = () => new Refused("PROMISE_MALFORMED");
    if (!bytes || bytes.length < MIN_BYTES || bytes[0] !== 1) throw bad();
    const length = bytes[1];
    if (bytes.length !== MIN_BYTES - 2 + length) throw bad();
    const memberId = String.fromCharCode(...bytes.slice(2, 2 + length));
    if (!/^[a-z][a-z0-9-]{1,30}$/.test(memberId)) throw bad();
    const at = (start, count) => bytes.slice(2 + length + start, 2 + length + start + count);
    const mergeDeadline = Bytes.number(at(96, 8));
    if (mergeDeadline >= 1n << 53n) throw bad();
    return {
      memberId, txid: at(0, 32), commitment: at(32, 32), saltFin: at(64, 32),
      mergeDeadline: Number(mergeDeadline), signature: at(104, 65),
    };
  }

  const keccak = (...parts) => Hashes.keccak256(Bytes.concat(...parts));
  const named = (text) => keccak(Bytes.ascii(text));

  /** The EIP-712 digest that the member's promise key signed. */
  function digest(promise, chainId, omissionRegistry) {
    const domain = keccak(
      named("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
      named("Countersign"),
      named("1"),
      Bytes.of(chainId, 32),
      Bytes.of(BigInt(omissionRegistry), 32),
    );
    const struct = keccak(
      named("Promise(bytes32 member,bytes32 txid,bytes32 commitment,uint64 mergeDeadline)"),
      Bytes.fromHex(RpcView.memberWord(promise.memberId)),
      promise.txid,
      promise.commitment,
      Bytes.of(promise.mergeDeadline, 32),
    );
    return keccak(Uint8Array.of(0x19, 0x01), domain, struct);
  }

  async function checkSignature(promise, view) {
    const registry = await view.omissionRegistry();
    if (!registry && view.bySeals && !view.roots) {
      throw new CannotCheck("Seals don't tell who signs promises: give cached roots, or a chain node.");
    }
    if (!registry) throw new CannotCheck("Give the omission contract that you trust.");
    const signer = Secp256k1.recover(
      digest(promise, await view.chainId(), registry),
      promise.signature,
    );
    const use = signer && (await view.promiseKey(promise.memberId, signer));
    const due = promise.mergeDeadline;
    const late = use && use.until !== null && due > use.until + (await view.maxMergeDelay());
    if (!use || due < use.since || late) throw new Refused("PROMISE_KEY_UNKNOWN");
  }

  /** What the node asks for before it hands a receipt's proof out: salt_fin itself stays here. */
  async function accessKey(promise) {
    const label = Bytes.ascii("countersign/receipt/1");
    return Bytes.hex(await Hashes.hmac(promise.saltFin, Bytes.concat(label, promise.txid)));
  }

  async function checkSame(promise, proven) {
    const { leaf, bundle } = proven;
    let same =
      bundle.texts === null &&
      leaf.memberId === promise.memberId &&
      Bytes.equal(leaf.txid, promise.txid) &&
      Bytes.equal(leaf.commitment, promise.commitment);
    for (let number = 1; number <= 7; number++) {
      const { salt } = bundle.fields[number];
      if (!salt) continue;
      const own = await Hashes.hmac(promise.saltFin, Bytes.concat(promise.txid, Bytes.of(number, 4)));
      same = same && Bytes.equal(own, salt);
    }
    if (!same) throw new Refused("PROMISE_MISMATCH");
  }

  /**
   * Judges a promise, with the proof's bytes where there is one. `nowS`: seconds since 1970.
   * ok is true only with a proof that holds; PROMISE_PENDING is neither proof nor failure.
   */
  async function judge(text, raw, view, nowS) {
    let promise = null;
    try {
      promise = parse(text);
      await checkSignature(promise, view);
      if (raw === null) {
        const reason = nowS > promise.mergeDeadline ? "PROMISE_OVERDUE" : "PROMISE_PENDING";
        throw new Refused(reason);
      }
      const verdict = await Bundle.verify(raw, view);
      if (verdict.ok) {
        await checkSame(promise, verdict);
        verdict.late = verdict.anchor.timestamp > promise.mergeDeadline;
      }
      return { ...verdict, promise };
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return { ok: false, reason: error.reason, detail: error.detail, promise };
    }
  }

  return { parse, judge, accessKey, digest };
})();
