package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// What holds the namespaces of a Pod of several containers has to run as long as the Pod, and to do nothing. An engine has
// no program for that, may have no way to a registry, and the images of the Pod need not have one; so the image is written
// here, one program of a few instructions, and imported where the engine lacks it. Its tag names its content.
const (
	holderRepository = "isthmus.invalid/pod" // of a domain that never is: nobody else offers an image of this name
	holderProgram    = "/holder"
	holderFolder     = "/volumes/" // with a place for each volume that the containers share
	holderPlaces     = 32
)

// The programs ignore SIGCHLD, which has the kernel take away children that ended: where the containers share their
// processes, the holder is the first of them and inherits all orphans. Then they sleep for good, in ppoll, which all
// architectures have, and again where a signal wakes them. Being the first process they get no other signal than SIGKILL,
// with which the holder is therefore stopped.
//
// A program ends with the struct sigaction of its first call: the handler SIG_IGN, and nothing else.
var holderPrograms = map[string]struct {
	machine uint16 // as ELF has it
	code    []byte
}{
	"amd64": {62, slices.Concat(
		[]byte{0xb8, 13, 0, 0, 0},                  // mov eax, rt_sigaction
		[]byte{0xbf, 17, 0, 0, 0},                  // mov edi, SIGCHLD
		[]byte{0x48, 0x8d, 0x35, 0x1f, 0, 0, 0},    // lea rsi, [rip+31]
		[]byte{0x31, 0xd2},                         // xor edx, edx
		[]byte{0x41, 0xba, 8, 0, 0, 0},             // mov r10d, 8
		[]byte{0x0f, 0x05},                         // syscall
		[]byte{0xb8, 0x0f, 0x01, 0, 0},             // again: mov eax, ppoll
		[]byte{0x31, 0xff, 0x31, 0xf6, 0x31, 0xd2}, // xor edi, edi; xor esi, esi; xor edx, edx
		[]byte{0x45, 0x31, 0xd2, 0x45, 0x31, 0xc0}, // xor r10d, r10d; xor r8d, r8d
		[]byte{0x0f, 0x05},                         // syscall
		[]byte{0xeb, 0xeb},                         // jmp again
		binary.LittleEndian.AppendUint64(nil, 1), make([]byte, 24)),
	},
	"arm64": {183, slices.Concat(words(
		0xd28010c8, // mov x8, rt_sigaction
		0xd2800220, // mov x0, SIGCHLD
		0x10000181, // adr x1, 48 bytes from here
		0xd2800002, // mov x2, 0
		0xd2800103, // mov x3, 8
		0xd4000001, // svc 0
		0xd2800928, // again: mov x8, ppoll
		0xd2800000, // mov x0, 0
		0xd2800001, // mov x1, 0
		0xd2800002, // mov x2, 0
		0xd2800003, // mov x3, 0
		0xd2800004, // mov x4, 0
		0xd4000001, // svc 0
		0x17fffff9, // b again
	), binary.LittleEndian.AppendUint64(nil, 1), make([]byte, 24)),
	},
}

func words(instructions ...uint32) []byte {
	var code []byte
	for _, i := range instructions {
		code = binary.LittleEndian.AppendUint32(code, i)
	}
	return code
}

// holderELF is the program as a file: one segment, with the code after the headers.
func holderELF(machine uint16, code []byte) []byte {
	const base, headers, page = 0x400000, 64 + 56, 0x10000 // no architecture has larger pages
	size := uint64(headers + len(code))
	e := binary.LittleEndian
	file := append([]byte("\x7fELF"), 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0) // 64 bits, little endian
	file = e.AppendUint16(e.AppendUint16(file, 2), machine)               // an executable
	file = e.AppendUint32(file, 1)
	file = e.AppendUint64(e.AppendUint64(e.AppendUint64(file, base+headers), 64), 0)
	file = e.AppendUint32(file, 0)
	for _, half := range []uint16{64, 56, 1, 64, 0, 0} {
		file = e.AppendUint16(file, half)
	}
	file = e.AppendUint32(e.AppendUint32(file, 1), 4|1) // loaded, to be read and executed
	for _, word := range []uint64{0, base, base, size, size, page} {
		file = e.AppendUint64(file, word)
	}
	return append(file, code...)
}

// holderArchive is the image's file system. A volume begins with the mode of its place in the image.
func holderArchive(architecture string) ([]byte, error) {
	program, ok := holderPrograms[architecture]
	if !ok {
		return nil, fault.New(fault.Unsupported, "a Pod of several containers needs an engine of amd64 or arm64; this one is of %s", architecture)
	}
	elf := holderELF(program.machine, program.code)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: holderProgram[1:], Mode: 0o755, Size: int64(len(elf))})
	if err == nil {
		_, err = w.Write(elf)
	}
	for i := range holderPlaces {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: holderPlace(i)[1:] + "/", Mode: 0o777}))
	}
	return archive.Bytes(), errors.Join(err, w.Close())
}

// holderPlace is where a holder has its volume of a number.
func holderPlace(i int) string { return holderFolder + strconv.Itoa(i) }

// holderImage gives the id of the image, which it imports where the engine lacks it.
func (c *Cluster) holderImage(ctx context.Context) (string, error) {
	version, err := c.api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return "", faultOf(err)
	}
	archive, err := holderArchive(version.Arch)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(archive)
	digest := hex.EncodeToString(sum[:])
	name := holderRepository + ":" + digest[:12]
	found, err := c.api.ImageInspect(ctx, name)
	// The engine's users can call another image so: the layer is what tells.
	if err == nil && slices.Equal(found.RootFS.Layers, []string{"sha256:" + digest}) && slices.Equal(found.Config.Entrypoint, []string{holderProgram}) {
		return found.ID, nil
	}
	if err != nil && !cerrdefs.IsNotFound(err) {
		return "", faultOf(err)
	}
	imported, err := c.api.ImageImport(ctx, client.ImageImportSource{Source: bytes.NewReader(archive), SourceName: "-"}, holderRepository,
		client.ImageImportOptions{Tag: digest[:12], Message: "holds the namespaces of Pods", Changes: []string{fmt.Sprintf("ENTRYPOINT [%q]", holderProgram)}})
	if err != nil {
		return "", faultOf(err)
	}
	defer func() { _ = imported.Close() }()
	return importedImage(imported)
}

// importedImage reads an import's answer, whose last word is the id.
func importedImage(answer io.Reader) (string, error) {
	id := ""
	for decoder := json.NewDecoder(io.LimitReader(answer, 1<<20)); ; {
		var said struct{ Status, Error string }
		switch err := decoder.Decode(&said); {
		case errors.Is(err, io.EOF) && id != "":
			return id, nil
		case err != nil:
			return "", fault.Wrap(fault.Internal, err, "the orchestrator gave an answer that cannot be read")
		case said.Error != "":
			return "", fault.New(fault.Internal, "an image to hold Pods could not be made: %s", plain(said.Error))
		case said.Status != "":
			id = said.Status
		}
	}
}
