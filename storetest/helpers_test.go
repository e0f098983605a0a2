package storetest_test

import (
	"flag"
	"testing"
)

// passes runs a test from within an example, quietly, and reports whether it
// passed.
func passes(test func(t *testing.T)) bool {
	verbose := flag.Lookup("test.v").Value
	was := verbose.String()
	_ = verbose.Set("false")
	defer func() { _ = verbose.Set(was) }()
	ran := false
	ok := testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{
		{Name: "TestStore", F: func(t *testing.T) { ran = true; test(t) }},
	})
	return ran && ok
}
