package arg

import (
	"fmt"
	"time"
)

// Duration checks a configured duration; zero means the default. An error
// begins with the name of the field. For a value that looks like a number of
// seconds without a unit, which Go reads as nanoseconds, the error suggests the
// unit.
func Duration(field string, d, least time.Duration) error {
	switch {
	case d == 0 || d >= least:
		return nil
	case d < 0:
		return fmt.Errorf("%s is %v; it must not be negative", field, d)
	case d < bare:
		return fmt.Errorf("%s is %v; it must be at least %v (did you mean %d * time.Second?)", field, d, least, int64(d))
	}
	return fmt.Errorf("%s is %v; it must be at least %v", field, d, least)
}

// bare is the number of seconds in a hundred days. A duration of fewer
// nanoseconds looks like a number of seconds without a unit.
const bare = 100 * 24 * 3600 * time.Nanosecond
