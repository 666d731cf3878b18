package lab

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// cpio writes an initramfs: an archive in the "newc" format, which Documentation/driver-api/early-userspace/
// buffer-format.rst of the kernel describes. Parent directories appear by themselves. The first error sticks and is
// returned by close.
type cpio struct {
	w     io.Writer
	inode int
	dirs  []string // made so far
	err   error
}

// File types of stat.h's st_mode.
const (
	typeDir     = 0o040000
	typeRegular = 0o100000
	typeLink    = 0o120000
	typeChar    = 0o020000
)

func (c *cpio) dir(name string) {
	name = strings.Trim(path.Clean("/"+name), "/")
	if name == "" || slices.Contains(c.dirs, name) {
		return
	}
	c.dir(path.Dir(name))
	c.dirs = append(c.dirs, name)
	c.entry(name, typeDir|0o755, 0, 0, nil)
}

func (c *cpio) file(name string, perm fs.FileMode, data []byte) {
	c.dir(path.Dir(name))
	c.entry(name, typeRegular|uint32(perm.Perm()), 0, 0, data)
}

func (c *cpio) symlink(name, target string) {
	c.dir(path.Dir(name))
	c.entry(name, typeLink|0o777, 0, 0, []byte(target))
}

func (c *cpio) charDevice(name string, perm fs.FileMode, major, minor uint32) {
	c.dir(path.Dir(name))
	c.entry(name, typeChar|uint32(perm.Perm()), major, minor, nil)
}

func (c *cpio) close() error {
	c.entry("TRAILER!!!", 0, 0, 0, nil)
	return c.err
}

func (c *cpio) entry(name string, mode, major, minor uint32, data []byte) {
	c.inode++
	name = strings.TrimPrefix(name, "/")
	// Magic, then thirteen fields: ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize
	// check. The name counts its NUL; name and data are padded to 4 bytes.
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	c.write([]byte(header + name + "\x00"))
	c.pad(len(header) + len(name) + 1)
	c.write(data)
	c.pad(len(data))
}

func (c *cpio) write(b []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(b)
	}
}

func (c *cpio) pad(n int) {
	c.write(make([]byte, (4-n%4)%4))
}
