package storetest_test

import (
	"flag"
	"testing"
)

// passes runs a test from within an example, quietly, and reports whether it
// passed.
func passes(test func(t *testing.T)) bool {
	for name, value := range map[string]string{"test.v": "false", "test.skip": ""} {
		f := flag.Lookup(name).Value
		was := f.String()
		_ = f.Set(value)
		defer func() { _ = f.Set(was) }()
	}
	ran := false
	ok := testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{
		{Name: "TestStore", F: func(t *testing.T) { ran = true; test(t) }},
	})
	return ran && ok
}
