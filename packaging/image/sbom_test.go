package main

import (
	"io"
	"testing"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdxlib"
)

// readSPDX reads a document with SPDX' own library and checks that every relationship is between elements that exist.
func readSPDX(t *testing.T, in io.Reader) *spdx.Document {
	t.Helper()
	doc, err := spdxjson.Read(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Error(err)
	}
	return doc
}
