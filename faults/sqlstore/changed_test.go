package sqlstore_test

import (
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/faults"
	"github.com/sessiontoken/sessiontoken/sqlstore"
)

func TestHowSoonChanged(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		at, _ := place(t, d)
		faults.HowSoonChanged(t, at, 20*time.Millisecond, 40)
	})
}

func TestChangedOften(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		at, _ := place(t, d)
		faults.ChangedOften(t, at, 20*time.Millisecond)
	})
}
