package sessiontoken

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/jws"
)

// SizeReport says how large the parts of a token are. Header, Payload,
// Signature and two dots add up to Bytes. Claims are shares of Payload.
type SizeReport struct {
	Bytes     int // the whole token, exactly as Issue would return it
	Limit     int // IssuerConfig.MaxBytes
	Header    int // bytes of the header segment
	Payload   int // bytes of the payload segment
	Signature int // bytes of the signature segment

	// Claims lists the payload's claims, heaviest first: the registered ones,
	// and every member of an object inside "state" at any depth, by its path.
	// "state" itself is left out, since it is nearly always the heaviest.
	Claims []ClaimSize
}

// ClaimSize is the size of one claim with its name.
type ClaimSize struct {
	Path  string // such as "state.permissions"; a name with unusual characters is quoted
	Bytes int    // bytes of the token: JSON bytes times 4/3, rounded up
}

// String returns the path and the size, as in "state.permissions 2104 B".
func (c ClaimSize) String() string { return c.Path + " " + strconv.Itoa(c.Bytes) + " B" }

// String returns the report as a table of at most ten claims. It holds no value
// of a claim.
func (r SizeReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "token %d B of %d B: header %d, payload %d, signature %d\n", r.Bytes, r.Limit, r.Header, r.Payload, r.Signature)
	for _, c := range r.Claims[:min(10, len(r.Claims))] {
		fmt.Fprintf(&b, "%7d B  %s\n", c.Bytes, c.Path)
	}
	if more := len(r.Claims) - 10; more > 0 {
		fmt.Fprintf(&b, "           and %d more\n", more)
	}
	return b.String()
}

func newSizeReport(header string, payload []byte, signatureBytes, limit int) SizeReport {
	r := SizeReport{
		Limit:     limit,
		Header:    len(header),
		Payload:   jws.EncodedLen(len(payload)),
		Signature: jws.EncodedLen(signatureBytes),
	}
	r.Bytes = r.Header + 1 + r.Payload + 1 + r.Signature
	return r
}

// weigh fills in Claims. The payload is JSON that the issuer wrote. If it were
// malformed, the list would be shorter.
func (r *SizeReport) weigh(payload []byte) {
	r.Claims = r.Claims[:0]
	weighObject(payload, "", &r.Claims)
	slices.SortStableFunc(r.Claims, func(a, b ClaimSize) int { return cmp.Compare(b.Bytes, a.Bytes) })
}

func weighObject(object []byte, prefix string, out *[]ClaimSize) {
	dec := jsontext.NewDecoder(bytes.NewReader(object))
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '{' {
		return
	}
	for dec.PeekKind() == '"' {
		name, err := dec.ReadValue()
		if err != nil {
			return
		}
		quoted := len(name)
		text, err := jsontext.AppendUnquote(nil, name)
		if err != nil {
			return
		}
		value, err := dec.ReadValue()
		if err != nil {
			return
		}
		path := prefix + pathElement(string(text))
		if path != "state" {
			*out = append(*out, ClaimSize{Path: path, Bytes: jws.EncodedLen(quoted + 1 + len(value))})
		}
		if value.Kind() == '{' {
			weighObject(value.Clone(), path+".", out)
		}
	}
}

// pathElement returns a plain name as it is. It quotes and shortens any other
// name: the keys of a map are data of the application.
func pathElement(name string) string {
	const most = 40
	plain := name != ""
	for _, c := range name {
		if !(c == '_' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			plain = false
		}
	}
	cut := name
	if len(cut) > most {
		cut = cut[:most]
		for !utf8.ValidString(cut) {
			cut = cut[:len(cut)-1]
		}
		cut += "…"
	}
	if plain {
		return cut
	}
	return strconv.QuoteToASCII(cut)
}
