// Package authenticator tests enrolment on EKS with the verifier of EKS' API servers, aws-iam-authenticator's. It is a module of
// its own because of that program's dependencies.
package authenticator
