package redisstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/faults"
)

func TestHowSoonChanged(t *testing.T) {
	each(t, func(t *testing.T, place string) {
		n := 100
		if strings.HasPrefix(place, "cluster") {
			n = 20
		}
		faults.HowSoonChanged(t, place, time.Second, n)
	})
}

func TestChangedOften(t *testing.T) {
	each(t, func(t *testing.T, place string) { faults.ChangedOften(t, place, time.Second) })
}
