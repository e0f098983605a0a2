// Verifies tokens with npm's jose, without tolerance. The first line of standard
// input is a JWK set. Each further line is a token; the answer is "ok" or why it
// is refused.
import { createInterface } from 'node:readline'
import { createLocalJWKSet, jwtVerify } from 'jose'

let keys
for await (const line of createInterface({ input: process.stdin })) {
  if (!keys) {
    keys = createLocalJWKSet(JSON.parse(line))
    continue
  }
  try {
    await jwtVerify(line, keys, { audience: process.argv[2], maxTokenAge: '1h', typ: 'session+jwt' })
    console.log('ok')
  } catch (err) {
    console.log(`${err.claim ?? err.code}: ${err.message}`)
  }
}
