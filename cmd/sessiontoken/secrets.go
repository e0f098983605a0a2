package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// secretFlags are the flags that name the secrets of an authority.
type secretFlags struct{ files []string }

const secretsEnv = "SESSIONTOKEN_SECRETS"

// addSecrets declares --secret-file.
func addSecrets(fs *flag.FlagSet) *secretFlags {
	f := &secretFlags{}
	fs.Func("secret-file", "`file` with a secret of the authority, in base64, or text: and the secret as it is; repeat it for several: the first seals, all open. The environment variable "+secretsEnv+" may hold them too, separated by commas", func(path string) error {
		if path == "" {
			return errors.New("it is empty")
		}
		f.files = append(f.files, path)
		return nil
	})
	return f
}

// secret is one secret. Its place names it in messages.
type secret struct {
	place string // "file F" or "secret N of SESSIONTOKEN_SECRETS"
	bytes []byte
}

const (
	minSecret  = 32
	maxPrivate = 64 << 10
)

// asText stands before a secret whose bytes are those of the text itself, such
// as that of a program that takes []byte(os.Getenv("SITE_SECRET")).
const asText = "text:"

const secretForm = "it must be at least 32 random bytes in base64, as 'openssl rand -base64 32' prints them, or " + asText + " and the text that the program takes as the secret as it is"

// read returns the secrets, the one that seals first. It is an error if there
// are none.
func (f *secretFlags) read(c *call) ([]secret, error) {
	secrets, err := f.readAny(c)
	if err == nil && len(secrets) == 0 {
		return nil, usageError{"no secret is named; set --secret-file or " + secretsEnv}
	}
	return secrets, err
}

// readAny is read for a command that needs no secrets.
func (f *secretFlags) readAny(c *call) (secrets []secret, err error) {
	add := func(place string, text []byte) error {
		s, err := decodeSecret(text)
		if err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
		for _, other := range secrets {
			if sha256.Sum256(other.bytes) == sha256.Sum256(s) {
				return fmt.Errorf("%s is the same secret as %s; leave one out", place, other.place)
			}
		}
		secrets = append(secrets, secret{place, s})
		return nil
	}
	for _, path := range f.files {
		text, err := readPrivate(path)
		if err != nil {
			return nil, fmt.Errorf("--secret-file: %w", err)
		}
		if err := add("file "+path, text); err != nil {
			return nil, err
		}
	}
	if len(f.files) > 0 {
		return secrets, nil
	}
	if list := c.getenv(secretsEnv); list != "" {
		for i, text := range strings.Split(list, ",") {
			if err := add(fmt.Sprintf("secret %d of %s", i+1, secretsEnv), []byte(text)); err != nil {
				return nil, err
			}
		}
	}
	return secrets, nil
}

// bytesOf returns the secrets as authority.Config takes them.
func bytesOf(secrets []secret) (all [][]byte) {
	for _, s := range secrets {
		all = append(all, s.bytes)
	}
	return all
}

// decodeSecret decodes a secret in one of the alphabets of base64, padded or
// not, or as text. The error does not repeat it.
func decodeSecret(text []byte) ([]byte, error) {
	if s, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte(asText)); ok {
		if len(s) < minSecret {
			return nil, fmt.Errorf("the secret has %d bytes; %s", len(s), secretForm)
		}
		return s, nil
	}
	plain := strings.NewReplacer("-", "+", "_", "/").Replace(string(bytes.TrimSpace(text)))
	s, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(plain, "="))
	switch {
	case err != nil || strings.ContainsAny(plain, "\r\n"):
		return nil, errors.New("the secret is not in base64; " + secretForm)
	case len(s) < minSecret:
		return nil, fmt.Errorf("the secret has %d bytes; %s", len(s), secretForm)
	}
	return s, nil
}

// readPrivate returns the content of a file that its owner alone may read. A
// pipe is permitted too.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no file %s; check the path", path)
	case err != nil:
		return nil, fmt.Errorf("the file cannot be opened; run this as its owner: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPrivate+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s cannot be read: %w", path, err)
	case len(text) > maxPrivate:
		return nil, fmt.Errorf("%s is larger than %d bytes; it must hold one line", path, maxPrivate)
	}
	return text, nil
}
