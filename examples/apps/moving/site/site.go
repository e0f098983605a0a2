// Package site is what the programs below examples/apps/moving have in common
// and what no session library has: the people, and the messages for the next
// page.
package site

import (
	"net/http"
	"sync"
)

// Person is what the database holds of a user.
type Person struct{ Name, Role string }

var (
	mu     sync.Mutex
	people = map[string]Person{"ada": {"Ada", "editor"}, "grace": {"Grace", "reader"}}
	visits = map[string]int{}
)

// CheckPassword returns the person who signs in. It is a stub: compare password
// hashes, or ask for a passkey.
func CheckPassword(user, password string) (Person, bool) {
	person, ok := Find(user)
	return person, ok && password == "demo"
}

// Find reads a person from the database.
func Find(user string) (Person, bool) {
	mu.Lock()
	defer mu.Unlock()
	person, ok := people[user]
	return person, ok
}

// SetRole changes the role of a person in the database.
func SetRole(user, role string) {
	mu.Lock()
	defer mu.Unlock()
	person := people[user]
	person.Role = role
	people[user] = person
}

// Visit counts a visit of a person in the database, and returns the count.
func Visit(user string) int {
	mu.Lock()
	defer mu.Unlock()
	visits[user]++
	return visits[user]
}

// flash is the cookie of the message for the next page.
const flash = "__Host-flash"

// messages are the texts that a flash can name. The cookie holds a key, since
// its client can write another one into it.
var messages = map[string]string{"welcome": "Welcome back. "}

// SetFlash leaves a message for the next page that the browser opens.
func SetFlash(w http.ResponseWriter, key string) {
	http.SetCookie(w, &http.Cookie{Name: flash, Value: key, Path: "/", MaxAge: 60, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// TakeFlash returns the message, if there is one, and removes it.
func TakeFlash(w http.ResponseWriter, r *http.Request) string {
	c, err := r.Cookie(flash)
	if err != nil {
		return ""
	}
	http.SetCookie(w, &http.Cookie{Name: flash, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	return messages[c.Value]
}
