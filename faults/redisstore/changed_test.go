package redisstore_test

import (
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/faults"
)

func TestHowSoonChanged(t *testing.T) {
	each(t, func(t *testing.T, place string) { faults.HowSoonChanged(t, place, time.Second) })
}

func TestChangedOften(t *testing.T) {
	each(t, func(t *testing.T, place string) { faults.ChangedOften(t, place, time.Second) })
}
