package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sessiontoken/sessiontoken/examples/apps/moving/site"
)

// userClaims are the claims of the tokens before.
type userClaims struct {
	Name string `json:"name"`
	Role string `json:"role"`
	jwt.RegisteredClaims
}

// sign makes a token.
func sign(secret []byte, user string, person site.Person) (string, error) {
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, userClaims{person.Name, person.Role, jwt.RegisteredClaims{
		Subject:   user,
		IssuedAt:  jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(24 * time.Hour)),
	}})
	return token.SignedString(secret)
}

// parse reads a token.
func parse(secret []byte, raw string) (*userClaims, error) {
	claims := &userClaims{}
	_, err := jwt.ParseWithClaims(raw, claims, func(*jwt.Token) (any, error) { return secret, nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired())
	return claims, err
}

// tokenOf returns the token of a request, or "".
func tokenOf(r *http.Request) string {
	if raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return raw
	}
	if c, err := r.Cookie("token"); err == nil {
		return c.Value
	}
	return ""
}

// newBefore is the site with tokens of golang-jwt.
func newBefore(secret []byte) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		user := r.FormValue("user")
		person, ok := site.CheckPassword(user, r.FormValue("password"))
		if !ok {
			http.Error(w, "wrong name or password", http.StatusUnauthorized)
			return
		}
		token, err := sign(secret, user, person)
		if err != nil {
			http.Error(w, "no token", http.StatusInternalServerError)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "token", Value: token, Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode})
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("POST /api/token", func(w http.ResponseWriter, r *http.Request) {
		user := r.FormValue("user")
		person, ok := site.CheckPassword(user, r.FormValue("password"))
		if !ok {
			http.Error(w, "wrong name or password", http.StatusUnauthorized)
			return
		}
		token, err := sign(secret, user, person)
		if err != nil {
			http.Error(w, "no token", http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"token": token})
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		claims, err := parse(secret, tokenOf(r))
		if err != nil {
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		_, _ = fmt.Fprintf(w, "Hello %s, %s.\n", claims.Name, claims.Role)
	})
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "token", Path: "/", MaxAge: -1})
	})
	return mux
}
