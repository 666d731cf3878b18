// Package authenticator tries enrolment on EKS with the verifier that EKS' API servers run, aws-iam-authenticator's. It is
// a module of its own because of what that needs.
package authenticator
