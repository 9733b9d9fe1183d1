"use strict";
// Bytes, and the hashes that a verifier needs. SHA-256 and SHA-512 come from WebCrypto where the
// page may use it, else from here; Keccak-256 (FIPS 202's permutation, Ethereum's padding) always
// from here, since no browser has it. Known answers: tests/browser/test_verify_page.py.

const Bytes = {
  hex(bytes) {
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  },
  /** Bytes of lower- or upper-case hex, with or without 0x; null if it isn't hex. */
  fromHex(text) {
    const digits = text.replace(/^0x/, "");
    if (digits.length % 2 || !/^[0-9a-fA-F]*$/.test(digits)) return null;
    return Uint8Array.from(digits.match(/../g) || [], (pair) => parseInt(pair, 16));
  },
  ascii(text) {
    return Uint8Array.from(text, (character) => character.charCodeAt(0));
  },
  utf8(text) {
    return new TextEncoder().encode(text);
  },
  concat(...parts) {
    const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      joined.set(part, at);
      at += part.length;
    }
    return joined;
  },
  equal(left, right) {
    return left.length === right.length && left.every((byte, place) => byte === right[place]);
  },
  /** A number (BigInt) of big-endian bytes. */
  number(bytes) {
    return bytes.length ? BigInt("0x" + Bytes.hex(bytes)) : 0n;
  },
  /** A BigInt in `length` big-endian bytes. */
  of(value, length) {
    return Bytes.fromHex(BigInt(value).toString(16).padStart(2 * length, "0"));
  },
  base64(bytes) {
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return btoa(text);
  },
  /** Bytes of canonical standard base64; null for anything else. */
  fromBase64(text) {
    if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return null;
    try {
      const bytes = Bytes.ascii(atob(text));
      return Bytes.base64(bytes) === text ? bytes : null;
    } catch {
      return null;
    }
  },
  /** Bytes of canonical base64url without padding; null for anything else. */
  fromBase64Url(text) {
    if (!/^[A-Za-z0-9_-]*$/.test(text)) return null;
    const padded = text.replace(/-/g, "+").replace(/_/g, "/") + "=".repeat((4 - (text.length % 4)) % 4);
    return Bytes.fromBase64(padded);
  },
};

const Hashes = (() => {
  const MASK64 = (1n << 64n) - 1n;

  /** The first `count` primes. */
  function primes(count) {
    const found = [];
    for (let n = 2; found.length < count; n++) {
      if (found.every((prime) => n % prime)) found.push(n);
    }
    return found;
  }

  /** The first 64 bits of the fraction of n's `power`-th root (FIPS 180-4, 4.2 and 5.3). */
  function rootBits(n, power) {
    const scaled = BigInt(n) << BigInt(64 * power);
    let low = 0n;
    let high = 1n << 80n;
    while (high - low > 1n) {
      const middle = (low + high) >> 1n;
      if (middle ** BigInt(power) <= scaled) low = middle;
      else high = middle;
    }
    return low & MASK64;
  }

  const K512 = primes(80).map((prime) => rootBits(prime, 3));
  const H512 = primes(8).map((prime) => rootBits(prime, 2));
  const K256 = K512.slice(0, 64).map((word) => Number(word >> 32n));
  const H256 = H512.map((word) => Number(word >> 32n));

  function padded(message, block, lengthBytes) {
    const end = Math.ceil((message.length + 1 + lengthBytes) / block) * block;
    const bytes = new Uint8Array(end);
    bytes.set(message);
    bytes[message.length] = 0x80;
    bytes.set(Bytes.of(8n * BigInt(message.length), 8), end - 8);
    return bytes;
  }

  /** FIPS 180-4, 6.2. */
  function plainSha256(message) {
    const view = new DataView(padded(message, 64, 8).buffer);
    const state = Uint32Array.from(H256);
    const w = new Uint32Array(64);
    const turn = (x, n) => (x >>> n) | (x << (32 - n));
    for (let start = 0; start < view.byteLength; start += 64) {
      for (let t = 0; t < 16; t++) w[t] = view.getUint32(start + 4 * t);
      for (let t = 16; t < 64; t++) {
        const s0 = turn(w[t - 15], 7) ^ turn(w[t - 15], 18) ^ (w[t - 15] >>> 3);
        const s1 = turn(w[t - 2], 17) ^ turn(w[t - 2], 19) ^ (w[t - 2] >>> 10);
        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
      }
      let [a, b, c, d, e, f, g, h] = state;
      for (let t = 0; t < 64; t++) {
        const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
        const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K256[t] + w[t]) | 0;
        const s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
        const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
      }
      [a, b, c, d, e, f, g, h].forEach((word, place) => (state[place] += word));
    }
    return Bytes.concat(...Array.from(state, (word) => Bytes.of(word, 4)));
  }

  /** FIPS 180-4, 6.4. */
  function plainSha512(message) {
    const view = new DataView(padded(message, 128, 16).buffer);
    const state = [...H512];
    const turn = (x, n) => ((x >> n) | (x << (64n - n))) & MASK64;
    for (let start = 0; start < view.byteLength; start += 128) {
      const w = [];
      for (let t = 0; t < 16; t++) w.push(view.getBigUint64(start + 8 * t));
      for (let t = 16; t < 80; t++) {
        const s0 = turn(w[t - 15], 1n) ^ turn(w[t - 15], 8n) ^ (w[t - 15] >> 7n);
        const s1 = turn(w[t - 2], 19n) ^ turn(w[t - 2], 61n) ^ (w[t - 2] >> 6n);
        w.push((w[t - 16] + s0 + w[t - 7] + s1) & MASK64);
      }
      let [a, b, c, d, e, f, g, h] = state;
      for (let t = 0; t < 80; t++) {
        const s1 = turn(e, 14n) ^ turn(e, 18n) ^ turn(e, 41n);
        const t1 = h + s1 + ((e & f) ^ (~e & MASK64 & g)) + K512[t] + w[t];
        const s0 = turn(a, 28n) ^ turn(a, 34n) ^ turn(a, 39n);
        const t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) & MASK64, c, b, a, (t1 + t2) & MASK64];
      }
      [a, b, c, d, e, f, g, h].forEach((word, place) => {
        state[place] = (state[place] + word) & MASK64;
      });
    }
    return Bytes.concat(...state.map((word) => Bytes.of(word, 8)));
  }

  /** Keccak's round constants, from its shift register (FIPS 202, 3.2.5). */
  const ROUNDS = (() => {
    const constants = [];
    let register = 1;
    for (let round = 0; round < 24; round++) {
      let constant = 0n;
      for (let j = 0; j <= 6; j++) {
        if (register & 1) constant |= 1n << BigInt((1 << j) - 1);
        register = (register << 1) ^ (register & 0x80 ? 0x171 : 0);
      }
      constants.push(constant);
    }
    return constants;
  })();

  function permute(state) {
    const turn = (x, n) => (n ? ((x << n) | (x >> (64n - n))) & MASK64 : x);
    for (const constant of ROUNDS) {
      const column = [0, 1, 2, 3, 4].map(
        (x) => state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20],
      );
      for (let place = 0; place < 25; place++) {
        const x = place % 5;
        state[place] ^= column[(x + 4) % 5] ^ turn(column[(x + 1) % 5], 1n);
      }
      const moved = new Array(25);
      moved[0] = state[0];
      let [x, y] = [1, 0];
      for (let t = 0; t < 24; t++) {
        const by = BigInt((((t + 1) * (t + 2)) / 2) % 64);
        moved[y + 5 * ((2 * x + 3 * y) % 5)] = turn(state[x + 5 * y], by);
        [x, y] = [y, (2 * x + 3 * y) % 5];
      }
      for (let row = 0; row < 25; row += 5) {
        for (let k = 0; k < 5; k++) {
          state[row + k] =
            moved[row + k] ^ (~moved[row + ((k + 1) % 5)] & MASK64 & moved[row + ((k + 2) % 5)]);
        }
      }
      state[0] ^= constant;
    }
  }

  /** Keccak-256 as Ethereum uses it. */
  function keccak256(message) {
    const rate = 136;
    const bytes = new Uint8Array((Math.floor(message.length / rate) + 1) * rate);
    bytes.set(message);
    bytes[message.length] ^= 0x01;
    bytes[bytes.length - 1] ^= 0x80;
    const view = new DataView(bytes.buffer);
    const state = new Array(25).fill(0n);
    for (let start = 0; start < bytes.length; start += rate) {
      for (let k = 0; k < rate / 8; k++) state[k] ^= view.getBigUint64(start + 8 * k, true);
      permute(state);
    }
    const out = new DataView(new ArrayBuffer(32));
    for (let k = 0; k < 4; k++) out.setBigUint64(8 * k, state[k], true);
    return new Uint8Array(out.buffer);
  }

  const subtle = globalThis.crypto && globalThis.crypto.subtle;
  const digest = async (name, bytes) => new Uint8Array(await subtle.digest(name, bytes));

  return {
    plainSha256,
    plainSha512,
    keccak256,
    sha256: subtle ? (bytes) => digest("SHA-256", bytes) : async (bytes) => plainSha256(bytes),
    sha512: subtle ? (bytes) => digest("SHA-512", bytes) : async (bytes) => plainSha512(bytes),
    /** HMAC-SHA256 (RFC 2104). */
    async hmac(key, message) {
      const block = new Uint8Array(64);
      block.set(key.length > 64 ? await Hashes.sha256(key) : key);
      const inner = await Hashes.sha256(Bytes.concat(block.map((byte) => byte ^ 0x36), message));
      return Hashes.sha256(Bytes.concat(block.map((byte) => byte ^ 0x5c), inner));
    },
  };
})();
