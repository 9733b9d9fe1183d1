"use strict";
// Signatures, checked only: nothing here handles a secret, so nothing needs constant time.

const Modular = {
  reduce(value, modulus) {
    const rest = value % modulus;
    return rest < 0n ? rest + modulus : rest;
  },
  power(base, exponent, modulus) {
    let result = 1n;
    let square = Modular.reduce(base, modulus);
    for (let left = exponent; left > 0n; left >>= 1n) {
      if (left & 1n) result = (result * square) % modulus;
      square = (square * square) % modulus;
    }
    return result;
  },
  /** The inverse modulo a prime. */
  inverse(value, prime) {
    return Modular.power(value, prime - 2n, prime);
  },
};

/** Ed25519 (RFC 8032, 5.1): the check without the cofactor, as OpenSSL and BoringSSL make it. */
const Ed25519 = (() => {
  const P = (1n << 255n) - 19n;
  const L = (1n << 252n) + 27742317777372353535851937790883648493n;
  const mod = (value) => Modular.reduce(value, P);
  const D = mod(-121665n * Modular.inverse(121666n, P));
  const ROOT_OF_MINUS_ONE = Modular.power(2n, (P - 1n) / 4n, P);
  const NEUTRAL = [0n, 1n, 1n, 0n];

  const little = (bytes) => Bytes.number(Uint8Array.from(bytes).reverse());

  function point(bytes) {
    const whole = little(bytes);
    const y = mod(whole & ((1n << 255n) - 1n));
    const odd = whole >> 255n;
    const u = mod(y * y - 1n);
    const v = mod(D * y * y + 1n);
    let x = mod(u * v ** 3n * Modular.power(mod(u * v ** 7n), (P - 5n) / 8n, P));
    if (mod(v * x * x) !== u) {
      if (mod(v * x * x) !== mod(-u)) return null;
      x = mod(x * ROOT_OF_MINUS_ONE);
    }
    if ((x & 1n) !== odd) x = mod(-x);
    return [x, y, 1n, mod(x * y)];
  }

  function add([x1, y1, z1, t1], [x2, y2, z2, t2]) {
    const a = mod((y1 - x1) * (y2 - x2));
    const b = mod((y1 + x1) * (y2 + x2));
    const c = mod(2n * t1 * t2 * D);
    const d = mod(2n * z1 * z2);
    const [e, f, g, h] = [b - a, d - c, d + c, b + a];
    return [mod(e * f), mod(g * h), mod(f * g), mod(e * h)];
  }

  function times(scalar, base) {
    let result = NEUTRAL;
    for (let left = scalar; left > 0n; left >>= 1n) {
      if (left & 1n) result = add(result, base);
      base = add(base, base);
    }
    return result;
  }

  function encode([x, y, z]) {
    const inverse = Modular.inverse(z, P);
    const number = mod(y * inverse) | ((mod(x * inverse) & 1n) << 255n);
    return Bytes.of(number, 32).reverse();
  }

  const BASE = point(Bytes.of(mod(4n * Modular.inverse(5n, P)), 32).reverse());

  async function plainVerify(key, signature, message) {
    const owner = point(key);
    const s = little(signature.slice(32));
    if (owner === null || s >= L) return false;
    const first = signature.slice(0, 32);
    const h = little(await Hashes.sha512(Bytes.concat(first, key, message))) % L;
    const [x, y, z, t] = times(h, owner);
    return Bytes.equal(encode(add(times(s, BASE), [mod(-x), y, z, mod(-t)])), first);
  }

  /** Whether the browser's own Ed25519 was used; for the page's footer. */
  let native = null;

  async function verify(key, signature, message) {
    if (key.length !== 32 || signature.length !== 64) return false;
    const subtle = globalThis.crypto && globalThis.crypto.subtle;
    if (subtle && native !== false) {
      try {
        const imported = await subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
        native = true;
        return await subtle.verify({ name: "Ed25519" }, imported, signature, message);
      } catch (error) {
        if (error.name !== "NotSupportedError") return plainVerify(key, signature, message);
        native = false;
      }
    }
    return plainVerify(key, signature, message);
  }

  return { verify, plainVerify, isNative: () => native === true };
})();

/** secp256k1: whose signature it is (SEC 1, 4.1.6), in the low-s form that contracts ask for. */
const Secp256k1 = (() => {
  const P = (1n << 256n) - (1n << 32n) - 977n;
  const N = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
  const G = [
    0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798n,
    0x483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8n,
  ];
  const mod = (value) => Modular.reduce(value, P);

  function add(left, right) {
    if (left === null) return right;
    if (right === null) return left;
    const [x1, y1] = left;
    const [x2, y2] = right;
    if (x1 === x2 && mod(y1 + y2) === 0n) return null;
    const slope =
      x1 === x2
        ? 3n * x1 * x1 * Modular.inverse(mod(2n * y1), P)
        : (y2 - y1) * Modular.inverse(mod(x2 - x1), P);
    const x = mod(slope * slope - x1 - x2);
    return [x, mod(slope * (x1 - x) - y1)];
  }

  function times(scalar, base) {
    let result = null;
    for (let left = scalar; left > 0n; left >>= 1n) {
      if (left & 1n) result = add(result, base);
      base = add(base, base);
    }
    return result;
  }

  /** The 20-byte address that signed; null unless r, s, v (27 or 28) is a low-s signature. */
  function recover(digest, signature) {
    if (signature.length !== 65) return null;
    const r = Bytes.number(signature.slice(0, 32));
    const s = Bytes.number(signature.slice(32, 64));
    const v = signature[64];
    if (r === 0n || r >= N || s === 0n || s > N / 2n || (v !== 27 && v !== 28)) return null;
    const square = mod(r ** 3n + 7n);
    let y = Modular.power(square, (P + 1n) / 4n, P);
    if (mod(y * y) !== square) return null;
    if ((y & 1n) !== BigInt(v - 27)) y = P - y;
    const inverse = Modular.inverse(r, N);
    const u1 = Modular.reduce(-Bytes.number(digest) * inverse, N);
    const u2 = Modular.reduce(s * inverse, N);
    const owner = add(times(u1, G), times(u2, [r, y]));
    if (owner === null) return null;
    return Hashes.keccak256(Bytes.concat(Bytes.of(owner[0], 32), Bytes.of(owner[1], 32))).slice(12);
  }

  return { recover };
})();
