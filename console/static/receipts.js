// Reads a receipt's code in the browser. Of the promise only what is signed is sent, and the key
// that its salt gives: the salt itself, and the text after the #, never leave this page.
(function () {
  "use strict";
  var field = document.getElementById("code");
  var form = document.getElementById("promise");
  var note = document.getElementById("code-note");
  if (!field || !form) return;

  // -- SHA-256 (FIPS 180-4): WebCrypto isn't there on a page without TLS ---------------------------

  var K = constants();
  function constants() {
    var found = [];
    for (var n = 2; found.length < 64; n++) {
      var prime = true;
      for (var d = 2; d * d <= n; d++) if (n % d === 0) prime = false;
      if (prime) found.push(fraction(n));
    }
    return found;
  }
  // The first 32 bits of the fractional part of a prime's cube root, by whole numbers.
  function fraction(prime) {
    var wanted = BigInt(prime) << 96n;
    var low = 0n, high = 1n << 40n;
    while (low < high) {
      var middle = (low + high + 1n) >> 1n;
      if (middle * middle * middle <= wanted) low = middle; else high = middle - 1n;
    }
    return Number(low & 0xffffffffn);
  }

  function sha256(bytes) {
    var h = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
    var padded = new Uint8Array(((bytes.length + 8 >> 6) + 1) * 64);
    padded.set(bytes);
    padded[bytes.length] = 0x80;
    var view = new DataView(padded.buffer);
    view.setUint32(padded.length - 4, bytes.length * 8);
    var w = new Uint32Array(64);
    function turn(x, n) { return x >>> n | x << 32 - n; }
    for (var block = 0; block < padded.length; block += 64) {
      var i;
      for (i = 0; i < 16; i++) w[i] = view.getUint32(block + i * 4);
      for (; i < 64; i++) {
        var x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (turn(x, 7) ^ turn(x, 18) ^ x >>> 3) + (turn(y, 17) ^ turn(y, 19) ^ y >>> 10);
      }
      var v = h.slice();
      for (i = 0; i < 64; i++) {
        var e = v[4], a = v[0];
        var one = v[7] + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + (e & v[5] ^ ~e & v[6]) + K[i] + w[i] | 0;
        var two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + (a & v[1] ^ a & v[2] ^ v[1] & v[2]) | 0;
        v = [one + two | 0, a, v[1], v[2], v[3] + one | 0, e, v[5], v[6]];
      }
      h = h.map(function (word, n) { return word + v[n] | 0; });
    }
    var out = new DataView(new ArrayBuffer(32));
    h.forEach(function (word, n) { out.setInt32(n * 4, word); });
    return new Uint8Array(out.buffer);
  }

  function joined(a, b) {
    var all = new Uint8Array(a.length + b.length);
    all.set(a);
    all.set(b, a.length);
    return all;
  }

  // HMAC (RFC 2104) with a key of 32 bytes.
  function hmac(key, message) {
    var inner = new Uint8Array(64).fill(0x36), outer = new Uint8Array(64).fill(0x5c);
    key.forEach(function (byte, n) { inner[n] ^= byte; outer[n] ^= byte; });
    return sha256(joined(outer, sha256(joined(inner, message))));
  }

  // -- The promise (docs/receipts.md) -----------------------------------------------------------------

  function hex(bytes) {
    return Array.from(bytes, function (byte) { return byte.toString(16).padStart(2, "0"); }).join("");
  }

  function parse(text) {
    if (!/^[A-Za-z0-9_-]+$/.test(text)) return null;
    var raw;
    try {
      raw = Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), function (c) { return c.charCodeAt(0); });
    } catch (error) {
      return null;
    }
    var again = btoa(String.fromCharCode.apply(null, raw)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
    if (again !== text || raw[0] !== 1 || raw.length !== 2 + raw[1] + 169) return null;
    var end = 2 + raw[1];
    var member = String.fromCharCode.apply(null, raw.slice(2, end));
    if (!/^[a-z][a-z0-9-]{1,30}$/.test(member)) return null;
    var body = raw.slice(end);
    var deadline = new DataView(body.buffer).getBigUint64(96);
    if (deadline > BigInt(Number.MAX_SAFE_INTEGER)) return null;
    var txid = body.slice(0, 32);
    return {
      member: member, txid: hex(txid), commitment: hex(body.slice(32, 64)), deadline: String(deadline),
      signature: hex(body.slice(104)),
      key: hex(hmac(body.slice(64, 96), joined(new TextEncoder().encode("countersign/receipt/1"), txid))),
    };
  }

  function look() {
    var text = field.value.trim();
    var found = parse(text.slice(text.lastIndexOf("#") + 1));
    field.setAttribute("aria-invalid", String(!found));
    note.hidden = Boolean(found);
    if (!found) {
      note.textContent = text ? note.dataset.malformed : note.dataset.empty;
      return;
    }
    Object.keys(found).forEach(function (name) { form.elements[name].value = found[name]; });
    form.requestSubmit();
  }

  document.getElementById("look").addEventListener("click", look);
  field.addEventListener("keydown", function (event) {
    if (event.key === "Enter") {
      event.preventDefault();
      look();
    }
  });
  // A code that was opened with this page's address: it is taken out of the address at once.
  if (location.hash.length > 200) {
    field.value = location.hash.slice(1);
    history.replaceState(null, "", location.pathname + location.search);
    document.addEventListener("DOMContentLoaded", look);
  }
})();
