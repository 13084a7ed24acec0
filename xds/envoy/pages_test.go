package envoy

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// smaps is of an Envoy, shortened: its program, the heap, one that is in huge pages, a stack, what is reserved, a file's.
const smaps = `55e36cc1b000-55e370d81000 r-xp 0207d000 fe:00 9995021                    /usr/bin/envoy
Size:              67992 kB
Rss:               30000 kB
AnonHugePages:         0 kB
THPeligible:           0
VmFlags: rd ex mr mw me
7098fee01000-709900000000 rw-p 00000000 00:00 0 
Size:              18428 kB
Rss:               17000 kB
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me ac
70aa00000000-70aa00400000 rw-p 00000000 00:00 0 
Size:               4096 kB
Rss:                4096 kB
AnonHugePages:      4096 kB
7feb1d781000-7feb1df81000 rw-p 00000000 00:00 0 
Size:               8192 kB
Rss:                  40 kB
AnonHugePages:         0 kB
7feb2e783000-7feb2f783000 ---p 00000000 00:00 0 
Size:              16384 kB
Rss:               16384 kB
AnonHugePages:         0 kB
7feb3e783000-7feb3f783000 rw-p 00000000 fe:00 326269                     /usr/lib/x86_64-linux-gnu/libc.so.6
Size:              16384 kB
Rss:               16384 kB
AnonHugePages:         0 kB
7feb4e783000-7feb4e785000 rw-p 00000000 00:00 0 
Size:                  8 kB
Rss:                   8 kB
AnonHugePages:         0 kB
`

func TestScattered(t *testing.T) {
	t.Parallel()
	got := scattered([]byte(smaps), 2<<20)
	if want := []memory{{0x7098ff000000, 0x709900000000}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func FuzzScattered(f *testing.F) {
	f.Add([]byte(smaps))
	f.Add([]byte("ffffffffffe00000-ffffffffffffffff rw-p 0 00:00 0\nRss: 99999999 kB\nAnonHugePages: 0 kB\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, r := range scattered(text, 2<<20) {
			if r.begin >= r.end || r.begin%(2<<20) != 0 || r.end%(2<<20) != 0 {
				t.Errorf("%x is no range of huge pages", r)
			}
		}
	})
}

// What is asked for is what the kernel does: of this process, of which nobody has to be allowed to ask.
func TestGather(t *testing.T) {
	t.Parallel()
	const size = 2 << 20
	region, err := unix.Mmap(-1, 0, 8*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(region); err != nil {
			t.Error(err)
		}
	}()
	for i := 0; i < len(region); i += os.Getpagesize() {
		region[i] = byte(i/os.Getpagesize()) | 1
	}
	before := bytes.Clone(region)
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	at := uint64(uintptr(unsafe.Pointer(&region[0]))) //nolint:gosec // to find it in what the kernel says
	found := false
	for _, r := range scattered(maps, size) {
		if r.begin >= at+uint64(len(region)) || r.end <= at {
			continue
		}
		found = true
		switch err := collapse(fd, r); {
		case err == nil:
			maps, err := os.ReadFile("/proc/self/smaps")
			if err != nil {
				t.Fatal(err)
			}
			for _, left := range scattered(maps, size) {
				if left == r {
					t.Errorf("%x is in small pages still", left)
				}
			}
		case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
			t.Logf("the kernel has no huge page at the moment, or knows no such call: %v", err)
		default:
			t.Error(err)
		}
	}
	if !found {
		t.Errorf("the memory at %x is not found", at)
	}
	if !bytes.Equal(before, region) {
		t.Error("the memory has changed")
	}
}
