// Package page shows the deaths on record to people: grouped by what killed the kernel, one by one, with the coverage of the
// fleet and the rate of deaths. It is a set of HTML pages without scripts. The same addresses answer in JSON if asked to
// (Accept: application/json).
//
// The package cannot write: its Source has reads only, and it imports neither the cleanup nor a client. What is shown comes
// from dying kernels, so all text is escaped, and the type html (html.go) leaves no way around that. It replaces
// html/template, which calls methods by name: with it the linker could not drop any method of the AWS SDK, and the stripped listener
// would grow from 36 to 88 MB.
//
// Reading order: page.go has the addresses, source.go what is read. Each page is a value that is rendered as JSON or by its
// render method: bugs.go, deaths.go, death.go, fleet.go, trends.go. filter.go is what the reader asked for.
package page
