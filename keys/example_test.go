package keys_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"

	"github.com/sessiontoken/sessiontoken/keys"
)

func ExampleNewRing() {
	ctx := context.Background()
	ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore)}) // or NewFileStore, or Sealed
	if err != nil {
		log.Fatal(err)
	}
	// go ring.Run(ctx) on every replica: it rotates, and follows the others.
	if _, err := ring.SigningKey(ctx); err != nil {
		log.Fatal(err)
	}
	for _, k := range ring.Status().Keys {
		fmt.Println(k.Phase, k.Algorithm, k.SignsUntil.Sub(k.SignsFrom).Hours() >= 30*24)
	}
	// Output:
	// current ES256 true
	// next ES256 true
}

func ExampleSealed() {
	secret := make([]byte, 32) // from a secret manager
	if _, err := rand.Read(secret); err != nil {
		log.Fatal(err)
	}
	aead, err := keys.NewAESGCM(secret)
	if err != nil {
		log.Fatal(err)
	}
	var shared keys.MemStore // any Store
	ring, err := keys.NewRing(keys.RingConfig{Store: keys.Sealed(&shared, aead), Name: "orders"})
	if err != nil {
		log.Fatal(err)
	}
	_, err = ring.SigningKey(context.Background())
	fmt.Println(err)
	// Output: <nil>
}

func ExampleNewStatic() {
	// In place of this, the crypto.Signer of a KMS or an HSM.
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	key, err := keys.NewSigningKey(keys.ES256, signer)
	if err != nil {
		log.Fatal(err)
	}
	source, err := keys.NewStatic(key)
	if err != nil {
		log.Fatal(err)
	}
	set, err := source.KeySet(context.Background(), "")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(set.Keys()), set.Keys()[0].Algorithm())
	// Output: 1 ES256
}
