package sessiontoken

import (
	"context"
	"fmt"

	"github.com/sessiontoken/sessiontoken/keys"
)

// checkSource refuses a source of keys that no constructor made. It does no I/O.
func checkSource(field string, source KeySource) error {
	switch s := source.(type) {
	case *keys.Ring:
		if s.RetainFor() != 0 {
			return nil
		}
	case *keys.Static, *keys.Set: // from memory
		if _, err := s.KeySet(context.Background(), ""); err == nil {
			return nil
		}
	default:
		return nil
	}
	return fmt.Errorf("sessiontoken: %s is a zero %T: make it with its constructor", field, source)
}
