# Opens the sealed fields of a state. open_sealed is for the claims of a token that
# was verified, here with PyJWT. secrets are those of the authority's StateSecrets.
# It returns the state, and raises InvalidTag if a value was changed or moved.
#
# The first line of standard input is a JWK set. Each further line is a token; the
# answer is its state as JSON, or why it is refused. The arguments are the audience
# and the secrets, in hexadecimal.
import base64
import copy
import json
import sys

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def open_sealed(claims, secrets):
    state = copy.deepcopy(claims["state"])
    pointers = claims.get("sld", [])
    for pointer in [pointers] if isinstance(pointers, str) else pointers:
        *above, last = [n.replace("~1", "/").replace("~0", "~") for n in pointer.split("/")[1:]]
        parent = state
        for name in above:
            parent = parent[int(name) if isinstance(parent, list) else name]
        blob = base64.urlsafe_b64decode(parent[last] + "==")
        associated = b""
        for text in (claims["iss"], claims["sub"], claims["sid"], pointer):
            associated += len(text.encode()).to_bytes(4, "big") + text.encode()
        associated += claims.get("stv", [0])[0].to_bytes(4, "big")
        info = b"sessiontoken state 1\0" + claims["sid"].encode()
        parent[last] = json.loads(_open(blob, associated, info, secrets))
    return state


def _open(blob, associated, info, secrets):
    for secret in secrets:
        key = HKDF(SHA256(), 32, salt=None, info=info).derive(secret)
        try:
            return AESGCM(key).decrypt(blob[:12], blob[12:], associated)
        except InvalidTag:
            pass  # another secret
    raise InvalidTag("a sealed value cannot be opened")


keys = None
for line in sys.stdin:
    if keys is None:
        keys = {k["kid"]: jwt.PyJWK(k).key for k in json.loads(line)["keys"]}
        continue
    try:
        token = line.strip()
        kid = jwt.get_unverified_header(token)["kid"]
        claims = jwt.decode(token, keys[kid], algorithms=["ES256"], audience=sys.argv[1])
        print(json.dumps(open_sealed(claims, [bytes.fromhex(s) for s in sys.argv[2:]])), flush=True)
    except (jwt.InvalidTokenError, InvalidTag) as err:
        print(f"refused: {err}", flush=True)
