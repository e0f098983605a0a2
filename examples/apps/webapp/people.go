package main

import (
	"net/http"
	"slices"
	"strings"

	"github.com/sessiontoken/sessiontoken"
)

// roles are those that an administrator gives and takes.
var roles = []string{"reader", "author", "editor", "admin"}

// person is a row of the administrator's page.
type person struct {
	ID    string
	Saved bool
	State
}

// people shows an administrator the users and their roles.
func (r *replica) people(w http.ResponseWriter, req *http.Request, c *sessiontoken.Claims[State]) {
	if !c.State.Is("admin") {
		r.forbidden(w, c)
		return
	}
	saved := req.URL.Query().Get("saved")
	var all []person
	r.shared.mu.Lock()
	for id, u := range r.shared.users {
		all = append(all, person{id, id == saved, u.State})
	}
	r.shared.mu.Unlock()
	slices.SortFunc(all, func(a, b person) int { return strings.Compare(a.ID, b.ID) })
	render(w, http.StatusOK, "people.html", r.view(c, "/people", map[string]any{"People": all, "Roles": roles, "Needs": "admin"}))
}

// saveRoles changes the roles of a user. The user's requests have them as soon
// as their replica has read the mark.
func (r *replica) saveRoles(w http.ResponseWriter, req *http.Request, c *sessiontoken.Claims[State]) {
	if !c.State.Is("admin") {
		r.forbidden(w, c)
		return
	}
	if !readForm(w, req) {
		return
	}
	id := req.PostForm.Get("user")
	if id == c.Subject { // there is always an administrator left
		http.Error(w, "another administrator changes your roles", http.StatusForbidden)
		return
	}
	given := []string{}
	for _, role := range roles {
		if slices.Contains(req.PostForm["role"], role) {
			given = append(given, role)
		}
	}
	r.shared.mu.Lock()
	u := r.shared.users[id]
	if u != nil {
		u.Roles = given
	}
	r.shared.mu.Unlock()
	if u == nil {
		http.Error(w, "no such user", http.StatusNotFound)
		return
	}
	// The change is committed. If the mark is not, the same form sets it.
	if err := r.sessions.Changed(req.Context(), id); err != nil {
		r.sessions.Refuse(w, req, err)
		return
	}
	http.Redirect(w, req, "/people?saved="+id, http.StatusSeeOther)
}

func (r *replica) forbidden(w http.ResponseWriter, c *sessiontoken.Claims[State]) {
	render(w, http.StatusForbidden, "forbidden.html", r.view(c, "/people", map[string]any{"Needs": "admin"}))
}
