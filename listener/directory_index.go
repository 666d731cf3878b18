package listener

import (
	"os"
	"slices"
	"strings"
)

// index knows the files of a Directory by class and address, oldest first.
type index struct {
	names  map[string][]string            // by class
	byAddr map[string]map[string][]string // by class and address
}

// load reads the names of the files that exist. Files with other names are not ours.
func (x *index) load(path string) error {
	list, err := os.ReadDir(path) // sorted by name, which begins with the time
	if err != nil {
		return err
	}
	for _, e := range list {
		x.add(e.Name())
	}
	return nil
}

// parseName reads class and address from the name of a file.
func parseName(name string) (class, addr string, ok bool) {
	for _, class := range [...]string{deathFile, reportFile} {
		if base, is := strings.CutSuffix(name, class); is {
			if parts := strings.Split(base, "_"); len(parts) == 3 {
				return class, parts[1], true
			}
		}
	}
	return "", "", false
}

func (x *index) add(name string) {
	class, addr, ok := parseName(name)
	if !ok {
		return
	}
	if x.names == nil {
		x.names, x.byAddr = map[string][]string{}, map[string]map[string][]string{}
	}
	if x.byAddr[class] == nil {
		x.byAddr[class] = map[string][]string{}
	}
	all, added := insert(x.names[class], name)
	if added {
		x.names[class] = all
		x.byAddr[class][addr], _ = insert(x.byAddr[class][addr], name)
	}
}

func insert(sorted []string, name string) ([]string, bool) {
	i, found := slices.BinarySearch(sorted, name)
	if found {
		return sorted, false
	}
	return slices.Insert(sorted, i, name), true
}

func (x *index) remove(name string) {
	class, addr, ok := parseName(name)
	if !ok {
		return
	}
	of := func(other string) bool { return other == name }
	x.names[class] = slices.DeleteFunc(x.names[class], of)
	x.byAddr[class][addr] = slices.DeleteFunc(x.byAddr[class][addr], of)
	if len(x.byAddr[class][addr]) == 0 {
		delete(x.byAddr[class], addr)
	}
}

// oldest is the oldest file of a class, and how many there are.
func (x *index) oldest(class string) (name string, n int) {
	if n = len(x.names[class]); n > 0 {
		name = x.names[class][0]
	}
	return name, n
}

// surplus is the oldest file of the address that has most files of a class; of several such addresses, the oldest of all.
func (x *index) surplus(class string) (name string) {
	most := 0
	for _, names := range x.byAddr[class] {
		if len(names) > most || len(names) == most && names[0] < name {
			most, name = len(names), names[0]
		}
	}
	return name
}

// leastMissed is the file to give up for another one, false if every file is worth keeping.
func (x *index) leastMissed(other string) (name string, ok bool) {
	if name := x.surplus(reportFile); name != "" && name != other {
		return name, true
	}
	name = x.surplus(deathFile)
	_, addr, _ := parseName(name)
	return name, len(x.byAddr[deathFile][addr]) > 1 && name != other
}
