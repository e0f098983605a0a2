package sessiontoken_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

// Cart is what the application keeps in its sessions.
type Cart struct {
	Name  string   `json:"name"`
	Role  string   `json:"role"`
	Items []string `json:"items"`
}

// exampleIssuer is an issuer whose keys live in memory.
func exampleIssuer() (*sessiontoken.Issuer[Cart], *keys.Ring) {
	ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore)})
	if err != nil {
		log.Fatal(err)
	}
	issuer, err := sessiontoken.NewIssuer[Cart](sessiontoken.IssuerConfig{
		Issuer: "https://auth.example", Audience: []string{"shop"}, Keys: ring,
	})
	if err != nil {
		log.Fatal(err)
	}
	return issuer, ring
}

// A session is issued after the user has proven who they are. Who has the keys
// can read it.
func Example() {
	ctx := context.Background()
	issuer, ring := exampleIssuer()
	token, _, err := issuer.Issue(ctx, "user-42", Cart{Name: "Ada", Items: []string{"lamp"}})
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := sessiontoken.NewVerifier[Cart](sessiontoken.VerifierConfig{
		Issuer: "https://auth.example", Audience: "shop", Keys: ring,
	})
	if err != nil {
		log.Fatal(err)
	}
	claims, err := verifier.Verify(ctx, token)
	switch {
	case errors.Is(err, sessiontoken.ErrInvalid):
		fmt.Println("401: sign in")
	case err != nil:
		fmt.Println("503: try again")
	default:
		fmt.Println(claims.Subject, claims.State.Name, claims.State.Items, claims.Expires.Sub(claims.IssuedAt))
	}

	_, err = verifier.Verify(ctx, token+"x")
	fmt.Println(errors.Is(err, sessiontoken.ErrInvalid))
	// Output:
	// user-42 Ada [lamp] 5m0s
	// true
}

// The state of a renewed token comes from the authority, never from the client.
func ExampleIssuer_Renew() {
	ctx := context.Background()
	issuer, _ := exampleIssuer()
	database := map[string]Cart{"user-42": {Name: "Ada", Role: "clerk"}}
	token, before, err := issuer.Issue(ctx, "user-42", database["user-42"])
	if err != nil {
		log.Fatal(err)
	}

	database["user-42"] = Cart{Name: "Ada", Role: "manager"}
	_, after, err := issuer.Renew(ctx, token, func(_ context.Context, old *sessiontoken.Claims[Cart]) (Cart, error) {
		state, ok := database[old.Subject]
		if !ok {
			return Cart{}, errors.New("no such user")
		}
		return state, nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(before.State.Role, "->", after.State.Role)
	fmt.Println("same session:", before.SessionID == after.SessionID)
	// Output:
	// clerk -> manager
	// same session: true
}

// A test of the application can hold its state to a budget.
func ExampleIssuer_Size() {
	issuer, _ := exampleIssuer()
	report, err := issuer.Size(context.Background(), "user-42", Cart{Name: "Ada", Items: []string{"lamp", "desk", "chair"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("within the budget:", report.Bytes <= 700)
	fmt.Println("heaviest:", report.Claims[0])

	_, _, err = issuer.Issue(context.Background(), "user-42", Cart{Items: strings.Split(strings.Repeat("lamp ", 600), " ")})
	var tooBig *sessiontoken.SizeError
	fmt.Println(errors.As(err, &tooBig))
	fmt.Println(err)
	// Output:
	// within the budget: true
	// heaviest: state.items 42 B
	// true
	// sessiontoken: token of 6143 B is over the limit of 3584 B; heaviest: state.items 5616 B, jti 40 B, sid 40 B
}

// The key set is served below the issuer's URL.
func ExampleJWKSHandler() {
	_, ring := exampleIssuer()
	jwks, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: ring})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/.well-known/jwks.json", jwks)

	r := httptest.NewRequest(http.MethodGet, "https://auth.example/.well-known/jwks.json", nil)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("Content-Type"), w.Header().Get("Cache-Control"))
	// Output: 200 application/jwk-set+json public, max-age=600, s-maxage=1
}

// CartV2 is the Cart of the next release: its items have numbers.
type CartV2 struct {
	Name  string         `json:"name"`
	Role  string         `json:"role"`
	Items map[string]int `json:"items"`
}

// A release that has only Cart cannot read version 2.
func (CartV2) StateVersion() (version, readableBy int) { return 2, 2 }

// What the release before has written, a Cart, is version 0.
func (c *CartV2) UpgradeState(version int, raw []byte) error {
	var old Cart
	if err := json.Unmarshal(raw, &old); err != nil {
		return err
	}
	c.Name, c.Role, c.Items = old.Name, old.Role, map[string]int{}
	for _, item := range old.Items {
		c.Items[item]++
	}
	return nil
}

// While a deploy is under way, two releases read the tokens of each other.
func ExampleVersioned() {
	before, ring := exampleIssuer()
	ctx := context.Background()
	token, _, err := before.Issue(ctx, "user-42", Cart{Name: "Ada", Items: []string{"lamp", "lamp"}})
	if err != nil {
		log.Fatal(err)
	}
	after, err := sessiontoken.NewVerifier[CartV2](sessiontoken.VerifierConfig{Issuer: "https://auth.example", Audience: "shop", Keys: ring})
	if err != nil {
		log.Fatal(err)
	}
	claims, err := after.Verify(ctx, token)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(claims.State.Name, claims.State.Items)
	// Output: Ada map[lamp:2]
}

// A sealed field is encrypted in the token. The program reads it with Open, and
// prints it nowhere by mistake.
func ExampleSeal() {
	type State struct {
		Role string
		Mail sessiontoken.Sealed[string]
	}
	ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore)})
	if err != nil {
		log.Fatal(err)
	}
	secrets := [][]byte{[]byte("32 random bytes of the servers..")}
	issuer, err := sessiontoken.NewIssuer[State](sessiontoken.IssuerConfig{
		Issuer: "https://auth.example", Audience: []string{"shop"}, Keys: ring, StateSecrets: secrets,
	})
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := sessiontoken.NewVerifier[State](sessiontoken.VerifierConfig{
		Issuer: "https://auth.example", Audience: "shop", Keys: ring, StateSecrets: secrets,
	})
	if err != nil {
		log.Fatal(err)
	}
	token, _, err := issuer.Issue(context.Background(), "user-42", State{"admin", sessiontoken.Seal("ada@example.com")})
	if err != nil {
		log.Fatal(err)
	}
	claims, err := verifier.Verify(context.Background(), token)
	if err != nil {
		log.Fatal(err)
	}
	mail, err := claims.State.Mail.Open()
	fmt.Println(claims.State, mail, err)
	// Output: {admin sealed} ada@example.com <nil>
}
