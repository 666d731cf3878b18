//go:build e2e && rollout

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// image is an image for this machine, unpacked as a container runtime would.
type image struct {
	root string // directory with its file system

	Config struct {
		User       string
		Entrypoint []string
		Cmd        []string
		Env        []string
	}
}

// descriptor is that of the OCI image specification, as far as it is needed to find one's way in a layout.
type descriptor struct {
	Digest   string
	Platform struct{ Architecture string }
}

// openImage unpacks the image of a program from the OCI archive that make image has written to a directory.
func openImage(t *testing.T, dir, program string) *image {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, program+"_*_oci.tar"))
	if err != nil || len(found) != 1 {
		t.Fatalf("archives of %s in %s: %q, %v", program, dir, found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	i := &image{root: t.TempDir()}
	if err := i.unpack(text); err != nil {
		t.Fatalf("unpack %s: %v", found[0], err)
	}
	return i
}

func (i *image) unpack(archive []byte) error {
	files := map[string][]byte{}
	if err := eachFile(bytes.NewReader(archive), func(h *tar.Header, body []byte) error {
		files[filepath.Clean(h.Name)] = body
		return nil
	}); err != nil {
		return err
	}
	// blob returns content by its digest, which must be that of the content.
	blob := func(d descriptor) ([]byte, error) {
		body := files["blobs/sha256/"+d.Digest[len("sha256:"):]]
		if sum := sha256.Sum256(body); "sha256:"+hex.EncodeToString(sum[:]) != d.Digest {
			return nil, fmt.Errorf("no content has the digest %s", d.Digest)
		}
		return body, nil
	}
	var manifest struct {
		Manifests []descriptor
		Config    descriptor
		Layers    []descriptor
	}
	for text := files["index.json"]; ; {
		manifest.Manifests = nil
		if err := json.Unmarshal(text, &manifest); err != nil {
			return err
		}
		if len(manifest.Manifests) == 0 {
			break
		}
		next := manifest.Manifests[0]
		for _, d := range manifest.Manifests {
			if d.Platform.Architecture == runtime.GOARCH {
				next = d
			}
		}
		var err error
		if text, err = blob(next); err != nil {
			return err
		}
	}
	config, err := blob(manifest.Config)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(config, i); err != nil {
		return err
	}
	for _, d := range manifest.Layers {
		layer, err := blob(d)
		if err != nil {
			return err
		}
		in, err := gzip.NewReader(bytes.NewReader(layer))
		if err != nil {
			return err
		}
		if err := eachFile(in, i.write); err != nil {
			return err
		}
	}
	return nil
}

// write writes a file or a directory of a layer.
func (i *image) write(h *tar.Header, body []byte) error {
	path := filepath.Join(i.root, filepath.Clean("/"+h.Name))
	var err error
	switch h.Typeflag {
	case tar.TypeDir:
		err = os.MkdirAll(path, 0o755)
	case tar.TypeReg:
		err = os.WriteFile(path, body, 0o644)
	default:
		err = fmt.Errorf("%s is neither a file nor a directory", h.Name)
	}
	if err == nil {
		err = os.Chown(path, h.Uid, h.Gid)
	}
	if err == nil {
		err = os.Chmod(path, h.FileInfo().Mode())
	}
	return err
}

// eachFile calls do with each entry of a tar archive.
func eachFile(in io.Reader, do func(*tar.Header, []byte) error) error {
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := do(h, body); err != nil {
			return err
		}
	}
}
