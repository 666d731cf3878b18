// Package browser tests the page of deaths in a browser, Debian's Chromium, as a person uses it. It is a module of its own
// because of what drives the browser.
package browser
