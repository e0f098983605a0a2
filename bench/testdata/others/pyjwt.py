# Verifies tokens with PyJWT, without leeway. The first line of standard input is
# a JWK set. Each further line is a token; the answer is "ok" or why it is refused.
import json
import sys

import jwt

keys = None
for line in sys.stdin:
    if keys is None:
        keys = {k["kid"]: jwt.PyJWK(k).key for k in json.loads(line)["keys"]}
        continue
    try:
        token = line.strip()
        kid = jwt.get_unverified_header(token)["kid"]
        jwt.decode(token, keys[kid], algorithms=["ES256"], audience=sys.argv[1])
        print("ok", flush=True)
    except jwt.InvalidTokenError as err:
        print(f"{type(err).__name__}: {err}", flush=True)
