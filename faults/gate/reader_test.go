//go:build unix

package gate_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// reader reads the answers on a connection.
type reader struct{ buf *bufio.Reader }

func newReader(c net.Conn) *reader { return &reader{bufio.NewReaderSize(c, 64<<10)} }

// next reads one answer, and reports whether it is 200.
func (r *reader) next() bool {
	resp, err := http.ReadResponse(r.buf, nil)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}
