package podstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// sizeLimit bounds one terminal size as a client writes it, in bytes.
const sizeLimit = 1 << 10

var errSize = errors.New("a terminal size is malformed")

// sizeReader reads terminal sizes out of what a client sends, which may be cut anywhere.
type sizeReader struct {
	rest []byte
	bad  bool
}

// read gives each size that is whole by now. After what is no size nothing is read any more.
func (r *sizeReader) read(data []byte, emit func(neutral.Size)) error {
	if r.bad {
		return errSize
	}
	r.rest = append(r.rest, data...)
	decoder := json.NewDecoder(bytes.NewReader(r.rest))
	var read int64
	for {
		var size struct{ Width, Height uint16 }
		err := decoder.Decode(&size)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			r.rest = append(r.rest[:0], r.rest[read:]...)
			if len(r.rest) <= sizeLimit {
				return nil
			}
		}
		if err != nil {
			r.bad, r.rest = true, nil
			return errSize
		}
		read = decoder.InputOffset()
		if size.Width > 0 && size.Height > 0 {
			emit(neutral.Size{Rows: size.Height, Columns: size.Width})
		}
	}
}
