"use strict";
// An overdue promise, taken to the chain by a member's node: the reader needs no key, and no account
// (docs/receipts.md, To the chain). What the node gets is what the chain must see; salt_fin, which
// opens the payment, stays here.

const Relay = (() => {
  const PATH = "v1/receipts/claims";
  const TIMEOUT_MS = 20_000;
  const LAST_TIME = 253_402_300_799; // 9999-12-31, the last that a Date is asked to name

  /** The directory under which a node's paths are; CannotCheck unless the text is an address. */
  function base(text) {
    const url = URL.canParse(text) ? new URL(text) : null;
    const bare = url && !url.search && !url.hash && !url.username && !url.password;
    if (!bare || !/^https?:$/.test(url.protocol)) {
      throw new CannotCheck("Give the address of a member's node: https:// and its name.");
    }
    return url.href.replace(/\/*$/, "/");
  }

  /** A claim's identity on the chain: one (member, transaction, C) is claimed once. */
  function claimId({ memberId, txid, commitment }) {
    const member = Bytes.fromHex(RpcView.memberWord(memberId));
    return Bytes.hex(Hashes.keccak256(Bytes.concat(member, txid, commitment)));
  }

  /** Has the node send the claim; one that it knows already it only tells of. */
  function send(node, promise) {
    const body = {
      member_id: promise.memberId,
      txid: Bytes.hex(promise.txid),
      commitment: Bytes.hex(promise.commitment),
      merge_deadline: promise.mergeDeadline,
      signature: Bytes.hex(promise.signature),
    };
    return request(node, promise, "", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  /** The state of a claim that was brought to the node. */
  function look(node, promise) {
    return request(node, promise, `/${claimId(promise)}`, {});
  }

  async function request(node, promise, more, options) {
    let response;
    let answer;
    try {
      response = await fetch(base(node) + PATH + more, {
        ...options,
        credentials: "omit",
        referrerPolicy: "no-referrer",
        cache: "no-store",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      answer = await response.json().catch((error) => {
        if (error instanceof SyntaxError) return null;
        throw error;
      });
    } catch (error) {
      if (error instanceof CannotCheck) throw error;
      throw new CannotCheck(`The node at ${node} can't be asked: ${error.message}`);
    }
    if (!response.ok) throw new CannotCheck(`The node refuses: ${problem(response.status, answer)}`);
    const { state, answer_by: until } = answer || {};
    const timed = until === null || (Number.isInteger(until) && until >= 0 && until <= LAST_TIME);
    if (!answer || answer.claim_id !== claimId(promise) || !Object.hasOwn(WORDS, state) || !timed) {
      throw new CannotCheck("The answer is no state of this claim: is that a member's node?");
    }
    return answer;
  }

  function problem(status, answer) {
    const { type, reason, detail } = answer || {};
    const texts = [typeof type === "string" ? type.split(":").pop() : "", reason];
    const named = [status, ...texts].filter((text) => text && typeof text !== "object").join(", ");
    return typeof detail === "string" && detail ? `${detail} (${named})` : named;
  }

  const time = (seconds) => new Date(seconds * 1000).toISOString();

  const WORDS = {
    queued: () => "Taken on. The node is going to send it to the chain: look again in a minute.",
    claimed: (member, { answer_by: until }) => {
      if (until === null) return `Claimed on the chain. ${member} may answer.`;
      if (until * 1000 < Date.now()) {
        return `Claimed on the chain. ${member} could answer until ${time(until)}; the node is going to conclude it.`;
      }
      return `Claimed on the chain. ${member} may answer until ${time(until)}.`;
    },
    answered: (member) =>
      `Answered. ${member} has shown the chain that the entry is anchored: ask for the proof again.`,
    proven: (member) => `Proven. It stands on the chain that ${member} left it out (OmissionProven).`,
    refused: (_, { reason }) => `Refused: ${typeof reason === "string" ? reason : "the node says no reason"}.`,
  };
  const TONES = { answered: "good", proven: "good", refused: "bad" };

  /** A claim's state in words, and how it is shown. */
  function words(promise, answer) {
    return [WORDS[answer.state](promise.memberId, answer), TONES[answer.state] || "wait"];
  }

  return { send, look, words };
})();

/** The page's form for it: there while an overdue promise is shown. */
const ChainForm = (() => {
  const get = (id) => document.getElementById(id);
  // busy: one request at a time; its answer counts only while its promise is the one shown.
  const state = { promise: null, signature: "", busy: false };

  /** Shown for an overdue promise, hidden otherwise (null). */
  function offer(promise) {
    const signature = promise ? Bytes.hex(promise.signature) : "";
    get("chain-part").hidden = !promise;
    if (signature === state.signature && promise) return;
    Object.assign(state, { promise, signature });
    get("chain-member").textContent = promise ? promise.memberId : "";
    get("chain-again").hidden = true;
    tell("", "soft", "");
  }

  function tell(text, tone, word) {
    const told = get("chain-told");
    told.textContent = text;
    told.className = tone;
    told.dataset.state = word;
  }

  async function ask(how) {
    if (state.busy) return;
    const { promise, signature } = state;
    const node = get("chain-node").value.trim();
    state.busy = true;
    tell("Asking the node\u2026", "soft", "");
    let said;
    try {
      const answer = await how(node, promise);
      said = [...Relay.words(promise, answer), answer.state];
    } catch (error) {
      if (!(error instanceof CannotCheck)) throw error;
      said = [error.message, "bad", "problem"];
    } finally {
      state.busy = false;
    }
    if (state.signature !== signature) return;
    tell(...said);
    if (said[2] !== "problem") get("chain-again").hidden = false;
  }

  get("chain-send").addEventListener("click", () => ask(Relay.send));
  get("chain-again").addEventListener("click", () => ask(Relay.look));
  if (location.protocol.startsWith("http")) {
    get("chain-node").value = new URL(".", location.href).href;
  }
  return { offer };
})();
