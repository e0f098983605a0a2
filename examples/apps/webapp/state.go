package main

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/sessiontoken/sessiontoken"
)

// State is what a session carries. The token holds the e-mail address encrypted.
type State struct {
	Name  string                      `json:"name"`
	Roles []string                    `json:"roles"`
	Theme string                      `json:"theme"`
	Mail  sessiontoken.Sealed[string] `json:"mail"`
}

// Is reports whether the user has a role.
func (s State) Is(role string) bool { return slices.Contains(s.Roles, role) }

// State1 is what a session carried in the first release of the site. There, Name
// had another name, and Roles another type. It has no version of its own, which
// is version 0.
type State1 struct {
	FullName string                      `json:"full_name"`
	Roles    string                      `json:"roles"` // with spaces between them
	Theme    string                      `json:"theme"`
	Mail     sessiontoken.Sealed[string] `json:"mail"`
}

// StateVersion makes State a [sessiontoken.Versioned]. A State1 cannot read a
// State: a server of the first release loads the state anew.
func (State) StateVersion() (version, readableBy int) { return 2, 2 }

// UpgradeState reads a State1, the only older version. In the JSON, mail is
// plain text: it was opened.
func (s *State) UpgradeState(_ int, raw []byte) error {
	var old struct {
		FullName string `json:"full_name"`
		Roles    string `json:"roles"`
		Theme    string `json:"theme"`
		Mail     string `json:"mail"`
	}
	err := json.Unmarshal(raw, &old)
	*s = State{old.FullName, strings.Fields(old.Roles), old.Theme, sessiontoken.Seal(old.Mail)}
	return err
}
