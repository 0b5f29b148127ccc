// Package registry speaks to image registries: it pulls base images, pushes
// results and serves the layer cache, all through one Client.
//
// How the parts move. A Client is made once per build from plain Options. New
// reads everything that lives in files (the Docker configuration, certificate
// authorities, client certificates) and keeps it in memory, so those files may
// go away while the build runs. An endpoint is one registry host under one set
// of rules (plain HTTP allowed or not, TLS setting); it is probed once, to learn
// the scheme and how the registry wants to be authenticated to, and then holds
// the tokens it was given. All endpoints with the same TLS setting share one
// http.Transport, hence one pool of connections, whatever the operation.
//
// Every request goes through endpoint.roundTrip, which adds the credentials to
// requests for the registry's own host only. Operations are wrapped in
// Client.retry: faults that pass (5xx, 429, resets, timeouts, truncated
// bodies) are tried again with growing, jittered pauses that honour
// Retry-After. What is read is checked against its digest and size while it
// flows. Failures come out as *Error.
//
// The wire protocol is that of the OCI distribution specification 1.1.
package registry
