package arg

import (
	"fmt"
	"time"
)

// Duration checks a duration that was configured, where zero means a default. An
// error begins with the name of the field. It asks back about what looks like a
// bare number of seconds, which Go takes for nanoseconds.
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

// bare is more than any number of seconds that is meant, in nanoseconds: those of
// a hundred days.
const bare = 100 * 24 * 3600 * time.Nanosecond
