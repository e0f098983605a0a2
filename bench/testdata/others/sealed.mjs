// Opens the sealed fields of a state. openSealed is for the claims of a token
// that was verified, here with npm's jose. secrets are those of the authority's
// StateSecrets, as Buffers. It returns the state, and throws if a value was
// changed or moved.
//
// The first line of standard input is a JWK set. Each further line is a token;
// the answer is its state as JSON, or why it is refused. The arguments are the
// audience and the secrets, in hexadecimal.
import { createDecipheriv, hkdfSync } from 'node:crypto'
import { createInterface } from 'node:readline'
import { createLocalJWKSet, jwtVerify } from 'jose'

export function openSealed(claims, secrets) {
  const number = (n) => { const b = Buffer.alloc(4); b.writeUInt32BE(n); return b }
  const text = (s) => { const b = Buffer.from(s, 'utf8'); return Buffer.concat([number(b.length), b]) }
  const state = structuredClone(claims.state)
  for (const pointer of [claims.sld ?? []].flat()) {
    const names = pointer.split('/').slice(1).map((n) => n.replaceAll('~1', '/').replaceAll('~0', '~'))
    const last = names.pop()
    const parent = names.reduce((at, name) => at[name], state)
    const blob = Buffer.from(parent[last], 'base64url')
    const associated = Buffer.concat([...[claims.iss, claims.sub, claims.sid, pointer].map(text), number(claims.stv?.[0] ?? 0)])
    parent[last] = JSON.parse(open(blob, associated, `sessiontoken state 1\0${claims.sid}`, secrets))
  }
  return state
}

function open(blob, associated, info, secrets) {
  for (const secret of secrets) {
    const key = Buffer.from(hkdfSync('sha256', secret, '', info, 32))
    const gcm = createDecipheriv('aes-256-gcm', key, blob.subarray(0, 12), { authTagLength: 16 })
    gcm.setAAD(associated).setAuthTag(blob.subarray(-16))
    const plain = gcm.update(blob.subarray(12, -16), undefined, 'utf8')
    try {
      return plain + gcm.final('utf8')
    } catch {
      // another secret
    }
  }
  throw new Error('a sealed value cannot be opened')
}

let keys
const [audience, ...secrets] = process.argv.slice(2)
for await (const line of createInterface({ input: process.stdin })) {
  if (!keys) {
    keys = createLocalJWKSet(JSON.parse(line))
    continue
  }
  try {
    const { payload } = await jwtVerify(line, keys, { audience, typ: 'session+jwt' })
    console.log(JSON.stringify(openSealed(payload, secrets.map((s) => Buffer.from(s, 'hex')))))
  } catch (err) {
    console.log(`refused: ${err.message}`)
  }
}
