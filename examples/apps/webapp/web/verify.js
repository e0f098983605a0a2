// Verifies this session's tokens with WebCrypto against the published keys.
"use strict";

const algorithms = {
  ES256: [{ name: "ECDSA", namedCurve: "P-256" }, { name: "ECDSA", hash: "SHA-256" }],
  EdDSA: [{ name: "Ed25519" }, { name: "Ed25519" }],
  PS256: [{ name: "RSA-PSS", hash: "SHA-256" }, { name: "RSA-PSS", saltLength: 32 }],
  RS256: [{ name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, { name: "RSASSA-PKCS1-v1_5" }],
};

const bytes = (s) => Uint8Array.from(atob(s.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const object = (s) => JSON.parse(new TextDecoder().decode(bytes(s)));

async function check(token, keys) {
  const [header, payload, signature] = token.split(".");
  const { alg, kid } = object(header);
  const jwk = keys.find((k) => k.kid === kid && k.alg === alg);
  const [imported, verified] = algorithms[alg];
  // WebCrypto knows members of a JWK by other rules than RFC 8037's names.
  const { kty, crv, x, y, n, e } = jwk;
  const key = await crypto.subtle.importKey("jwk", { kty, crv, x, y, n, e }, imported, false, ["verify"]);
  const input = new TextEncoder().encode(header + "." + payload);
  const good = await crypto.subtle.verify(verified, key, bytes(signature), input);
  input[input.length - 5] ^= 1;
  const changed = await crypto.subtle.verify(verified, key, bytes(signature), input);
  return { alg, kid, good, changed, claims: object(payload) };
}

function cell(row, text, kind) {
  const td = row.insertCell();
  td.textContent = text;
  if (kind) td.className = kind;
}

async function run() {
  const summary = document.getElementById("summary");
  try {
    const [tokens, set] = await Promise.all([
      fetch("/api/page-tokens", { method: "POST" }).then((r) => r.json()),
      fetch("/page-keys.json").then((r) => r.json()),
    ]);
    let right = 0;
    const results = document.getElementById("results");
    for (const [n, token] of tokens.entries()) {
      const r = await check(token, set.keys);
      const row = results.rows[n];
      row.replaceChildren();
      cell(row, r.alg);
      cell(row, r.kid.slice(0, 8) + "…", "key");
      cell(row, r.good ? "genuine" : "not genuine", r.good ? "good" : "problem");
      cell(row, r.changed ? "accepted" : "refused", r.changed ? "problem" : "good");
      right += r.good && !r.changed ? 1 : 0;
      document.getElementById("claims").textContent = JSON.stringify(r.claims, null, 2);
    }
    summary.textContent = right + " of " + tokens.length + " verified in this browser";
    summary.className = right === tokens.length ? "good" : "problem";
  } catch (err) {
    summary.textContent = "It could not be verified: " + err.message;
    summary.className = "problem";
  }
}

run();
