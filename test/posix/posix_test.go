// The public tests of go-fuse (package posixtest), each in a directory of its own below POSIX_DIR.
package posix

import (
	"os"
	"sort"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

func TestPosix(t *testing.T) {
	names := []string{}
	for name := range posixtest.All {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp(os.Getenv("POSIX_DIR"), "t")
			if err != nil {
				t.Fatal(err)
			}
			posixtest.All[name](t, dir)
		})
	}
}
