"use strict";
// The page: puts files and inputs together, and shows a verdict. Text only ever as text.

(() => {
  const get = (id) => document.getElementById(id);
  const NUMBERS = { 1: "amount", 3: "kind", 4: "transmitted_ms", 6: "outcome" };
  const TEXTS = { 2: "currency", 5: "merchant" };
  const KINDS = ["{{kinds}}"];
  const OUTCOMES = {"{{outcomes}}": 0};
  const WORD_OF_OTHERS =
    "DEV_FINALITY: that the block is final is the word of whoever told the roots";
  // told: the roots are this node's word, to be asked for anew with each proof.
  const state = { roots: null, raw: null, told: false };

  /** The trusted look at the chain; CannotCheck if nothing was given to trust. */
  function trusted() {
    const [url, registry, omissions] = ["rpc", "registry", "omissions"].map((id) => get(id).value.trim());
    const text = get("validators").value.trim();
    const named = text ? Blocks.parseValidators(text) : null;
    if (state.told) {
      [state.roots.contract, ...state.roots.before] = registry ? contracts(registry) : [""];
    }
    if (named && !url) return bySeals(named, registry);
    const view = withoutSeals(url, registry, omissions);
    view.validators = named && named.addresses;
    return view;
  }

  function address(text) {
    if (!/^0x[0-9a-fA-F]{40}$/.test(text)) throw new CannotCheck("An address is 0x and 40 digits.");
    return text;
  }

  /** The anchor contract and the versions before it, the newest first. */
  function contracts(text) {
    return text.split(/[\s,]+/).map(address);
  }

  /** Judged by the block's seals: no node, of the roots only chain, contract and keys. */
  function bySeals(named, registry) {
    if (state.roots) {
      const { roots, contract, before } = state.roots;
      const line = contract ? [contract, ...before] : [roots.anchor_registry, ...(roots.predecessors || [])];
      return new SealsView(named.addresses, BigInt(roots.chain_id), line[0], state.roots, line.slice(1));
    }
    const told = get("chain").value.trim();
    if (!/^[0-9]{0,19}$/.test(told)) throw new CannotCheck("The chain's id is a number.");
    const chainId = told ? BigInt(told) : named.chainId;
    if (chainId === null) throw new CannotCheck("Give the chain's id, or its genesis as validators.");
    if (!registry) throw new CannotCheck("Give the anchor contract: 0x and 40 digits.");
    const [newest, ...before] = contracts(registry);
    return new SealsView(named.addresses, chainId, newest, null, before);
  }

  function withoutSeals(url, registry, omissions) {
    if (state.roots) return state.roots;
    if (!url) throw new CannotCheck("Give a file of cached roots, or a chain node and the contract.");
    const [newest] = contracts(registry);
    if (omissions) address(omissions);
    return new RpcView(url, newest, omissions);
  }

  function promiseText() {
    return get("promise").value.trim().replace(/^.*#/s, "");
  }

  function proofBytes() {
    if (state.raw) return state.raw;
    const pasted = get("proof").value;
    return pasted ? Bytes.utf8(pasted) : null;
  }

  async function check() {
    try {
      const [text, raw] = [promiseText(), proofBytes()];
      if (!text && !raw) throw new CannotCheck("Give a proof or a receipt's promise.");
      const view = trusted();
      const nowS = Math.floor(Date.now() / 1000);
      show(text ? await Receipt.judge(text, raw, view, nowS) : await Bundle.verify(raw, view));
    } catch (error) {
      if (!(error instanceof CannotCheck)) throw error;
      show({ ok: null, reason: null, detail: error.message });
    }
    const native = Ed25519.isNative() ? "the browser's own Ed25519" : "its own Ed25519";
    get("footer").textContent = `Checked with ${native}.`;
  }

  function show(verdict) {
    const waits = verdict.reason === "PROMISE_PENDING";
    const head = get("verdict");
    head.className = `verdict ${verdict.ok ? "good" : verdict.ok === null || waits ? "wait" : "bad"}`;
    head.dataset.ok = String(verdict.ok);
    head.dataset.reason = verdict.reason || "";
    head.textContent = verdict.ok
      ? "PROVEN"
      : verdict.ok === null
        ? "CAN'T BE CHECKED"
        : `${waits ? "NOT YET" : "REFUSED"} ${verdict.reason}`;
    get("reason").textContent = verdict.ok
      ? verdict.late
        ? "It was anchored after the promised deadline."
        : ""
      : verdict.detail;
    get("steps").replaceChildren(...stepsOf(verdict));
    get("details").replaceChildren(...detailsOf(verdict));
    get("result").hidden = false;
    ChainForm.offer(verdict.reason === "PROMISE_OVERDUE" ? verdict.promise : null);
  }

  /** What wasn't checked of a step that nothing refused; "" if all of it was. */
  function leftOut(title, verdict) {
    if (title === KEY_STEP && verdict.keyless) {
      return "The note's signature isn't checked: no key of the member's was given";
    }
    if (title !== BLOCK_STEP) return "";
    if (!verdict.bundle || !verdict.bundle.anchor.block) {
      return "The proof carries no block: its finality is another's word";
    }
    if (verdict.ok && !verdict.sealedBy) {
      return "The block that the proof carries holds together; no validators were given to judge its seals";
    }
    return "";
  }

  function stepsOf(verdict) {
    if (verdict.ok === null) return [];
    const failed = STEPS.findIndex(([, reasons]) => reasons.includes(verdict.reason));
    const aboutPromise = !verdict.ok && failed < 0;
    if (aboutPromise && verdict.reason !== "PROMISE_MISMATCH") return [];
    return STEPS.map(([title], place) => {
      const passed = verdict.ok || aboutPromise || place < failed;
      const tried = passed || place === failed;
      const left = passed ? leftOut(title, verdict) : "";
      const item = document.createElement("li");
      const mark = document.createElement("span");
      mark.className = `mark ${left || !tried ? "soft" : passed ? "good" : "bad"}`;
      mark.textContent = left || !tried ? "\u2013" : passed ? "\u2713" : "\u2717";
      const text = document.createElement("span");
      text.textContent = tried ? title : `${title} (not tried)`;
      if (left) text.textContent = left;
      if (tried && !passed) text.textContent = `${title}: ${verdict.reason}`;
      item.append(mark, text);
      return item;
    });
  }

  function detailsOf(verdict) {
    const rows = [];
    if (verdict.promise) {
      const { memberId, txid, mergeDeadline } = verdict.promise;
      rows.push(["promised by", memberId], ["transaction", Bytes.hex(txid)]);
      rows.push(["to be anchored by", new Date(mergeDeadline * 1000).toISOString()]);
    }
    if (verdict.ok) rows.push(...provenRows(verdict));
    return rows.flatMap(([name, value]) => {
      const [term, data] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      data.textContent = String(value);
      return [term, data];
    });
  }

  /** Who judged the seals, or why nobody did. */
  function sealsOf({ bundle, validators }) {
    const { block } = bundle.anchor;
    if (!block) return "not judged: the proof carries none";
    if (!validators) {
      return `not judged: no validators were given (the proof carries ${block.sealers.length} for ${block.finality})`;
    }
    const named = [...validators].sort().map((one) => `0x${one}`).join(", ");
    const told = state.told && !state.roots.contract ? `; the contract is the word of ${location.host}` : "";
    return `judged by the ${validators.size} validators given: ${named}${told}`;
  }

  function provenRows(verdict) {
    const { bundle, leaf, note, anchor, finality, sealedBy, keyless } = verdict;
    return [
      ["member", leaf.isEvent ? leaf.memberId : `${leaf.memberId} (${leaf.side})`],
      ...(leaf.isEvent ? eventRows(bundle, leaf) : transactionRows(bundle, leaf)),
      ["place in the log", `${bundle.index} of ${note.size}`],
      ["root", Bytes.hex(note.root)],
      ["anchor", `${anchor.seq} in block ${anchor.blockNumber}`],
      ["transaction on chain", `0x${anchor.txHash}`],
      ["finality", sealedBy ? `${finality}: sealed by ${sealedBy}` : WORD_OF_OTHERS],
      ["seals", sealsOf(verdict)],
      ...(keyless ? [["note's signature", "not checked: no key of the member's was given"]] : []),
    ];
  }

  function eventRows(bundle, leaf) {
    const [action, at, token] = [2, 3, 8].map((number) => bundle.fields[number].value);
    const rows = [["event", `${leaf.terminalSeq} (${leaf.side})`], ["reference", Bytes.hex(leaf.txid)]];
    if (action) rows.push(["action", Bundle.textOf(action) ?? Bytes.hex(action)]);
    if (at) rows.push(readable("occurred_ms", Bytes.number(at)));
    for (const [number, text] of Object.entries(bundle.texts)) {
      rows.push([["subject", "actor", "detail"][number - 4], new TextDecoder().decode(text)]);
    }
    if (token && Bytes.number(token)) rows.push(["card_token", Bytes.hex(token)]);
    return rows;
  }

  function transactionRows(bundle, leaf) {
    const rows = [];
    for (let number = 1; number <= 8; number++) {
      const { value } = bundle.fields[number];
      if (!value) continue;
      if (NUMBERS[number]) rows.push(readable(NUMBERS[number], Bytes.number(value)));
      else if (TEXTS[number]) rows.push([TEXTS[number], Bundle.textOf(value) ?? Bytes.hex(value)]);
      else if (Bytes.number(value)) rows.push([number === 7 ? "original" : "card_token", Bytes.hex(value)]);
    }
    return [
      ["txid", Bytes.hex(leaf.txid)],
      ...rows,
      ["pair_seq", leaf.pairSeq],
      ["terminal", `${leaf.terminalId} ${leaf.terminalSeq}`],
    ];
  }

  function readable(name, number) {
    if (name === "kind") return [name, KINDS[Number(number) - 1] ?? number];
    if (name === "outcome") return [name, OUTCOMES[Number(number)] ?? number];
    if (name.endsWith("_ms") && number < 1n << 52n) {
      return [name.slice(0, -3), new Date(Number(number)).toISOString()];
    }
    return name === "amount" ? ["amount (minor units)", number] : [name, number];
  }

  async function takeRoots(file) {
    try {
      state.roots = new RootsView(await file.text());
      state.told = false;
      const members = Object.keys(state.roots.roots.members).join(", ");
      get("roots-told").textContent = `${file.name}: chain ${state.roots.roots.chain_id}; ${members}`;
    } catch (error) {
      if (!(error instanceof CannotCheck)) throw error;
      state.roots = null;
      get("roots-told").textContent = error.message;
    }
  }

  async function takeProof(file) {
    state.raw = new Uint8Array(await file.slice(0, Bundle.MAX_BYTES + 1).arrayBuffer());
    get("proof").value = "";
    get("proof").placeholder = file.name;
    await check();
  }

  function accept(zone, input, take) {
    input.addEventListener("change", () => input.files[0] && take(input.files[0]));
    zone.addEventListener("dragover", (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      zone.classList.remove("over");
      if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
    });
  }

  /** What the node says of the transaction; null if it has no such thing or can't be reached. */
  async function ask(promise, what) {
    const key = await Receipt.accessKey(promise);
    const path = `v1/receipts/${Bytes.hex(promise.txid)}/${what}?key=${key}`;
    const address = new URL(path, location.href);
    const response = await fetch(address, { credentials: "omit" }).catch(() => null);
    return response && response.ok ? response : null;
  }

  /** The node that serves this page hands out the proof to whoever holds the receipt. */
  async function fetchProof() {
    let promise;
    try {
      promise = Receipt.parse(promiseText());
    } catch {
      return check();
    }
    const response = await ask(promise, "proof");
    state.raw = response ? new Uint8Array(await response.arrayBuffer()) : null;
    get("proof").value = "";
    get("proof").placeholder = state.raw ? "the node's proof" : "the node has no proof";
    if (state.told || (!state.roots && !get("rpc").value)) await fetchRoots(promise);
    return check();
  }

  /** Without roots of the reader's own: the node's word, and the page says so. */
  async function fetchRoots(promise) {
    const response = await ask(promise, "roots");
    if (!response) return;
    state.roots = new RootsView(await response.text());
    state.told = true;
    get("roots-told").textContent =
      `The roots are the word of ${location.host}. For a proof without its word give roots of your own;` +
      " where validators are given, only the keys and the contract are its word.";
  }

  get("check").addEventListener("click", check);
  get("fetch").addEventListener("click", fetchProof);
  get("proof").addEventListener("input", () => (state.raw = null));
  get("promise").addEventListener("input", () => ChainForm.offer(null));
  accept(get("roots-drop"), get("roots-file"), takeRoots);
  accept(get("proof-drop"), get("proof-file"), takeProof);
  if (location.protocol.startsWith("http")) get("fetch").hidden = false;
  if (location.hash.length > 1) {
    get("promise").value = location.hash.slice(1);
    if (location.protocol.startsWith("http")) fetchProof();
  }
  // For tests, and for whoever wants to check many.
  window.countersign = { Bytes, Hashes, Ed25519, Secp256k1, Merkle, Rlp, Trie, Blocks, Bundle, Receipt,
    RpcView, RootsView, SealsView };
})();
